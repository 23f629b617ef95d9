"""A person's clips to single frames, each with what the field is told of it and what stands behind the head in it.

T  frames of a clip     H, W  pixels of a frame     X  numbers of motion in a frame     F  frames of motion about one frame
"""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from data.media.video import each_frame
from data.mesh import LANDMARKS_68
from data.shardset import Clip, ShardSet, json_object, npy_array
from models.given import Given
from models.head.config import Config, Padding
from models.hearing import check_members
from models.landmarks import motion_of
from models.streaming import DrawnExamples, copied, spread, training_loader

MEMBERS = ("mp4", "landmarks.npy", "vertices.npy", "pose.npy", "camera.json", "background.png", "parsing.npz", "torso.npz")
NPZ = {"torso": "torso.npz", "labels": "parsing.npz"}  # arrays of frames, and their members
HEAD = 2  # among the labels of the stage `parsing`
STILL = 0.01  # centimetres: a standard deviation below it is the landmarks' noise, and is not blown up to 1
CHIN, BETWEEN_EYES, LIPS = 8, 27, slice(48, 60)  # of the 68 landmarks
SMALLEST_LIPS = 16  # pixels: LPIPS halves its images four times


class Mismatch(ValueError):
    """A clip whose members do not fit each other."""

    def __init__(self, clip: Clip, what: str):
        super().__init__(f"clip {clip.key}: {what}: run the stages `meshes` and `parsing` again")


class Camera(NamedTuple):
    """Of pictures, in their pixels, the middle of the first at (0, 0)."""

    focal: float
    center: tuple[float, float]


class Person(NamedTuple):
    """What all V frames of a person's training clips say together."""

    mean: np.ndarray  # (X,) float32, centimetres, of the motion
    std: np.ndarray  # (X,) float32
    poses: np.ndarray  # (V, 4, 4) float32, camera from head, metres
    camera: Camera  # of the pictures as the clips have them
    size: tuple[int, int]  # of those, width and height
    first: dict[str, int]  # by clip, the number of its first frame, the clips following each other in the order of their keys


class Example(NamedTuple):
    """One frame; collated, each tensor has B in front."""

    image: Tensor  # (H, W, 3) uint8, the target
    behind: Tensor  # (H, W, 3) uint8, torso over background: what is there without the head
    head: Tensor  # (H, W) bool, where the picture shows nothing but head
    motion: Tensor  # (F, X) float32, normalised, the frame in the middle
    pose: Tensor  # (4, 4) float32, camera from head, metres
    focal: Tensor  # () float32, see Camera
    center: Tensor  # (2,) float32
    face: Tensor  # (4,) int64, x0 y0 x1 y1, half open, the face with much of its surroundings
    lips: Tensor  # (4,) int64, the square around the lips
    number: Tensor  # () int64, of the frame among the person's training frames; 0 for others


@dataclass(frozen=True)
class FilmedClip:
    """A clip in memory, its arrays as in Example, with T in front."""

    key: str
    images: np.ndarray
    behind: np.ndarray
    heads: np.ndarray
    motion: np.ndarray
    poses: np.ndarray
    camera: Camera
    faces: np.ndarray
    lips: np.ndarray
    numbers: np.ndarray

    def example(self, index: int) -> Example:
        return Example(
            torch.from_numpy(self.images[index]),
            torch.from_numpy(self.behind[index]),
            torch.from_numpy(self.heads[index]),
            torch.from_numpy(self.motion[index]),
            torch.from_numpy(self.poses[index]),
            torch.tensor(self.camera.focal),
            torch.tensor(self.camera.center),
            torch.from_numpy(self.faces[index]),
            torch.from_numpy(self.lips[index]),
            torch.tensor(self.numbers[index]),
        )


def person_of(shards: Path) -> Person:
    """Of the shard set of one person's training clips. ValueError for a set without any, and for clips that do not fit."""
    motions, poses, filmed = {}, [], {}
    for clip in ShardSet(shards).clips():
        check_members(clip, ("vertices.npy", "pose.npy", "camera.json", "background.png"))
        motions[clip.key] = motion_of(npy_array(clip.members["vertices.npy"]))
        poses.append(npy_array(clip.members["pose.npy"]))
        filmed[camera_of(clip), Image.open(io.BytesIO(clip.members["background.png"])).size] = clip.key
    if not motions:
        raise ValueError(f"{shards} holds no clip: see left_out in its index.json for the reasons")
    if len(filmed) > 1:
        raise ValueError(
            f"{shards} holds clips of different cameras or sizes, as {' and '.join(filmed.values())}: cut them alike"
        )
    ((camera, size),) = filmed
    ends = np.cumsum([len(motion_TX) for motion_TX in motions.values()])
    first = {key: int(end) - len(motion_TX) for (key, motion_TX), end in zip(motions.items(), ends, strict=True)}
    all_VX = np.concatenate(list(motions.values())).astype(np.float64)
    mean_X, std_X = all_VX.mean(axis=0), np.maximum(all_VX.std(axis=0), STILL)
    poses_V44 = np.concatenate(poses).astype(np.float32)
    return Person(mean_X.astype(np.float32), std_X.astype(np.float32), poses_V44, camera, size, first)


def camera_of(clip: Clip, scale: float = 1.0) -> Camera:
    """Of the clip's pictures, or of those at another scale."""
    about = json_object(clip.members["camera.json"])
    x, y = reduced_places(np.array(about["center"]), scale).tolist()
    return Camera(about["focal"] * scale, (x, y))


def motion_windows(normalised_TX: np.ndarray, frames: int, padding: Padding) -> np.ndarray:
    """`(T, F, X)`: each frame of normalised motion with those before and after it, F frames in all, an odd number.

    Beyond the ends the last frame holds ("edge"), or there are zeros, the mean face, as in the release's training ("zeros").
    """
    around = ((frames // 2, frames // 2), (0, 0))
    padded = np.pad(normalised_TX, around, "edge") if padding == "edge" else np.pad(normalised_TX, around)
    return np.lib.stride_tricks.sliding_window_view(padded, frames, axis=0, writeable=True).swapaxes(1, 2)


def decode_clip(clip: Clip, config: Config, person: Person) -> FilmedClip:
    """The clip's frames at the configuration's size. ValueError, naming the clip, if its members do not fit each other."""
    check_members(clip, MEMBERS)
    background = np.asarray(Image.open(io.BytesIO(clip.members["background.png"])).convert("RGB"))
    size, target = len(background), config.image_size
    if background.shape[:2] != (size, size) or size < target:
        shape = f"{background.shape[0]} x {background.shape[1]}"
        raise ValueError(
            f"clip {clip.key} has pictures of {shape} pixels, and they are to be squares of at least {target}: name a corpus of "
            "portraits, or set image_size in the system's overrides"
        )
    arrays = {name: npy_array(clip.members[f"{name}.npy"]) for name in ("landmarks", "vertices", "pose")}
    frames = len(arrays["pose"])
    if any(len(array) != frames for array in arrays.values()):
        raise Mismatch(clip, ", ".join(f"{name}.npy has the shape {array.shape}" for name, array in arrays.items()))
    images, behind, heads = [], [], []
    torsos, parsings = (
        npz_frames(clip, *what) for what in (("torso", (frames, size, size, 4)), ("labels", (frames, size, size)))
    )
    for image, torso, labels in zip_longest(each_frame(clip.members["mp4"]), torsos, parsings):
        if image is None or torso is None or labels is None or image.shape != background.shape:
            raise Mismatch(clip, f"its mp4 is not {frames} frames of {size} x {size} pixels, as its pose and its background are")
        images.append(reduced(image, target))
        behind.append(reduced(painted_over(torso, background), target))
        heads.append(reduced(np.where(labels == HEAD, 255, 0).astype(np.uint8), target) == 255)
    points_T68x2 = reduced_places(arrays["landmarks"][:, LANDMARKS_68, :2], target / size)
    normalised_TX = (motion_of(arrays["vertices"]) - person.mean) / person.std
    first = person.first.get(clip.key)
    return FilmedClip(
        clip.key,
        np.stack(images),
        np.stack(behind),
        np.stack(heads),
        motion_windows(normalised_TX, config.windows, config.padding),
        arrays["pose"].astype(np.float32),
        camera_of(clip, target / size),
        face_boxes(points_T68x2, target),
        lip_squares(points_T68x2, target),
        np.zeros(frames, np.int64) if first is None else first + np.arange(frames),
    )


def npz_frames(clip: Clip, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A frame's part of an array in one of the clip's .npz, one in memory at a time: a minute of torso is 1.5 gigabytes."""
    member = NPZ[name]
    try:
        with zipfile.ZipFile(io.BytesIO(clip.members[member])) as archive, archive.open(f"{name}.npy") as file:
            np.lib.format.read_magic(file)
            found, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
            if found != shape or dtype != np.uint8 or by_columns:
                raise Mismatch(clip, f"the {name} of {member} is {dtype} {found}, not uint8 {shape}")
            for _ in range(shape[0]):
                yield np.frombuffer(file.read(math.prod(shape[1:])), np.uint8).reshape(shape[1:])
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise Mismatch(clip, f"{member} is damaged ({error})") from error


def painted_over(torso_HW4: np.ndarray, background_HW3: np.ndarray) -> np.ndarray:
    """`(H, W, 3)` uint8: RGBA, not premultiplied, over RGB."""
    alpha_HW1 = torso_HW4[..., 3:].astype(np.uint32)
    return ((alpha_HW1 * torso_HW4[..., :3] + (255 - alpha_HW1) * background_HW3 + 127) // 255).astype(np.uint8)


def reduced(image_HW3: np.ndarray, size: int) -> np.ndarray:
    """A square picture at another size, each pixel the mean of what it covers."""
    if len(image_HW3) == size:
        return image_HW3
    return np.asarray(Image.fromarray(image_HW3).resize((size, size), Image.Resampling.BOX))


def reduced_places(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Places in a picture, where they are in it at another scale; the first pixel's middle is at 0 in both."""
    return (pixels + 0.5) * scale - 0.5


def face_boxes(points_T68x2: np.ndarray, size: int) -> np.ndarray:
    """`(T, 4)` int64: 1.5 times as wide as the landmarks, and from the chin's height and some as far up as down (release)."""
    left_T, right_T = points_T68x2[..., 0].min(axis=1), points_T68x2[..., 0].max(axis=1)
    middle_T2 = np.stack([(left_T + right_T) / 2, points_T68x2[:, BETWEEN_EYES, 1]], axis=1)
    half_T2 = np.stack([1.5 * (right_T - left_T) / 2, 1.15 * (points_T68x2[:, CHIN, 1] - middle_T2[:, 1])], axis=1)
    return inside(np.concatenate([middle_T2 - half_T2, middle_T2 + half_T2], axis=1), size)


def lip_squares(points_T68x2: np.ndarray, size: int) -> np.ndarray:
    """`(T, 4)` int64: squares about the outer lips, as large as those are wide or high; not less than SMALLEST_LIPS."""
    low_T2, high_T2 = points_T68x2[:, LIPS].min(axis=1), points_T68x2[:, LIPS].max(axis=1)
    sides_T = np.ceil((high_T2 - low_T2).max(axis=1)).astype(np.int64).clip(min(SMALLEST_LIPS, size), size)
    corners_T2 = np.rint((low_T2 + high_T2 - sides_T[:, None]) / 2).astype(np.int64)
    corners_T2 = corners_T2.clip(0, (size - sides_T)[:, None])
    return np.concatenate([corners_T2, corners_T2 + sides_T[:, None]], axis=1)


def inside(boxes_T4: np.ndarray, size: int) -> np.ndarray:
    """`(T, 4)` int64: the boxes in whole pixels of the picture, at least one."""
    low_T2 = np.floor(boxes_T4[:, :2]).astype(np.int64).clip(0, size - 1)
    high_T2 = np.ceil(boxes_T4[:, 2:]).astype(np.int64).clip(low_T2 + 1, size)
    return np.concatenate([low_T2, high_T2], axis=1)


class TrainingExamples(DrawnExamples[FilmedClip, Example]):
    """Each frame of the person's as likely as any other."""

    def __init__(self, shards: Path, config: Config, person: Person):
        super().__init__(shards, config.seed, config.buffer_clips, config.frames_per_clip)
        self.config, self.person = config, person

    def decode(self, clip: Clip) -> FilmedClip:
        return decode_clip(clip, self.config, self.person)

    def count(self, clip: FilmedClip) -> int:
        return len(clip.images)

    def draw(self, clip: FilmedClip, random: np.random.Generator) -> Example:
        return clip.example(int(random.integers(len(clip.images))))


def validation_examples(shards: Path, config: Config, person: Person) -> list[Example]:
    """`config.frames_per_clip` frames of every clip, evenly spread: the same ones each time."""
    clips, number = (decode_clip(clip, config, person) for clip in ShardSet(shards).clips()), config.frames_per_clip
    return [copied(clip.example(index)) for clip in clips for index in spread(range(len(clip.images)), number)]


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Frames of the two shard sets; the training ones have no end. Under torchrun each rank has its own."""
    person = person_of(given.train)
    return (
        training_loader(TrainingExamples(given.train, config, person), config.batch_size, config.loader_workers, given.step),
        DataLoader(validation_examples(given.val, config, person), config.batch_size),  # type: ignore[arg-type]  # a list will do
    )
