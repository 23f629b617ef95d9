"""A checkpoint and a sound to the pictures of a person who says it.

T  frames, 25 a second     S  pixels of a picture's side     X  204 numbers of motion in a frame
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from data.shardset import Clip, json_object, npy_array
from models.checkpoint import read_config, read_weights
from models.geneface.config import Config
from models.geneface.examples import HEAD, POSTNET, sound_windows
from models.geneface.network import Seen, Torso, build, picture, places, pose_vector
from models.head import generate as heads
from models.head.examples import Camera, camera_of
from models.head.network import Head
from models.hearing import Audio, check_members, heard_rows
from models.landmarks import motion_of
from models.motion.generate import move
from models.noise import seed_of
from models.postnet import generate as postnet
from models.postnet.guards import Guards, guarded
from models.radiance.cameras import pixels, rays

# Whose landmarks are painted: those that the sound has, moved to this person's; those of anybody who says it; or the film's own,
# which no sound is needed for: what the renderer alone can do.
Source = Literal["adapted", "generic", "filmed"]
PosePath = Literal["film", "still", "loop"]
TEMPERATURE = 0.2  # of the motion's noise (GeneFace++; the release's 1.0 moves the lips at random)


class Person(NamedTuple):
    """All that a checkpoint holds."""

    torso: Torso
    head: Head
    voice: postnet.Person  # the generator of motion, and PostNet


def load(checkpoint: Path) -> Person:
    """The networks of a checkpoint folder, ready to generate. Raises BadCheckpoint."""
    torso = build(read_config(checkpoint, Config))
    read_weights(checkpoint, torso)
    return Person(torso.eval().requires_grad_(False), heads.load(checkpoint / HEAD), postnet.load(checkpoint / POSTNET))


def ready(checkpoint: Path, steps: int) -> Person:
    """As `load`, with what paints on the GPU if there is one. steps: samples that a ray may have, at most (grid)."""
    person = load(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    person.torso.to(device)
    person.head.to(device)
    person.head.config = replace(person.head.config, ray_samples=steps)
    return person


def regenerate(checkpoint: Path, clips: Sequence[Clip], sampler: str, steps: int, batch_size: int, seed: int) -> list[np.ndarray]:
    """The frames of each clip of a shard set, (T, S, S, 3) uint8, painted whole: the clip gives its sound and the head's pose.

    sampler: a Source. steps: samples that a ray may have, at most (grid). batch_size: of no use, as a frame is a batch of rays.
    seed: of the motion's noise, together with each clip's key. The background is that of the training films. On the GPU if there
    is one. ValueError for a source that there is not, and for a clip that lacks a member or has one that does not fit.
    """
    if sampler not in get_args(Source):
        raise ValueError(f"there is no source of motion {sampler!r}: there are {', '.join(get_args(Source))}")
    person = ready(checkpoint, steps)
    made = []
    for clip in clips:
        check_members(clip, ("pose.npy", "camera.json"))
        pose_T44 = npy_array(clip.members["pose.npy"])
        if sampler == "filmed":
            check_members(clip, ("vertices.npy",))
            motion_TX = motion_of(npy_array(clip.members["vertices.npy"]))
        else:
            heard = person.voice.motion.config
            rows_SD = rows_of(clip, heard.audio, heard.audio_width, len(pose_T44))
            motion_TX = speak(person, rows_SD, sampler, seed_of(seed, clip.key))
        config = person.torso.config
        of_torso = rows_of(clip, config.audio, config.audio_width, len(pose_T44)) if person.torso.in_front else None
        camera = camera_of(clip, config.image_size / json_object(clip.members["json"])["size"])
        made.append(np.stack(list(paint(person, motion_TX, pose_T44, camera, of_torso))))
    return made


def rows_of(clip: Clip, audio: Audio, width: int, frames: int) -> np.ndarray:
    """Rows (2T, D) float32 of the clip's sound. ValueError, naming it, if it has none that fit."""
    check_members(clip, (f"{audio}.npy",))
    return heard_rows(clip, audio, width, frames)


def speak(person: Person, rows_SD: np.ndarray, source: str, seed: int, guards: Guards | None = None) -> np.ndarray:
    """(T, X) float32 centimetres: what the sound's (2T, D) rows make of the landmarks.

    guards: None is those of the checkpoint. Of a generic motion, which is not held to the person's, the eyes blink alone.
    """
    network = person.voice.network
    guards = guards or network.config.guards
    if source != "generic":
        return postnet.speak(person.voice, rows_SD, TEMPERATURE, seed, guards)
    motion_TX = torch.from_numpy(move(person.voice.motion, rows_SD, TEMPERATURE, seed))
    blink_alone = replace(guards, lle_share=0.0, clamp_std=0.0, upper_share=1.0, smoothing=0.0)
    return guarded(motion_TX, blink_alone, network.motion_NX, network.mean_X, network.std_X).numpy()


def pose_path(pose_T44: np.ndarray, frames: int, path: PosePath) -> np.ndarray:
    """(frames, 4, 4): the film's poses as they are, of which there must be enough; its first one; or there and back, for ever."""
    if path == "film":
        if len(pose_T44) < frames:
            raise ValueError(f"the film has {len(pose_T44)} poses, and the sound {frames} frames: take a still, or a loop")
        return pose_T44[:frames]
    if path == "still":
        return np.repeat(pose_T44[:1], frames, axis=0)
    there_and_back = np.concatenate([np.arange(len(pose_T44)), np.arange(len(pose_T44) - 2, 0, -1)])
    return pose_T44[there_and_back[np.arange(frames) % len(there_and_back)]]


@torch.inference_mode()
def paint(
    person: Person, motion_TX: np.ndarray, pose_T44: np.ndarray, camera: Camera, rows_SD: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Pictures (S, S, 3) uint8, one after the other.

    camera: of pictures of that size. rows: (2T, D) of the column that the torso's mlp form hears; the grid form needs none.
    """
    torso = person.torso
    config, size, device = torso.config, torso.config.image_size, torso.background.device
    place_N2 = places(size, torch.arange(size * size, device=device))
    behind_N3 = torso.background.flatten(0, 1) / 255
    seen_by_first, sound_T = None, [None] * len(motion_TX)
    if torso.in_front:
        if rows_SD is None:
            raise ValueError(f"this torso hears {config.audio}: give its rows")
        seen_by_first = rays(torso.first_pose, camera.focal, camera.center, pixels(size, size, device))
        sound_T = list(torch.from_numpy(sound_windows(rows_SD, config.audio)).to(device))
    vector_T6 = pose_vector(torch.from_numpy(np.asarray(pose_T44, np.float32)).to(device), config.form)
    nothing = np.zeros((size, size, 3), np.uint8)
    heads_T = heads.painted(person.head, motion_TX, pose_T44, camera, [nothing] * len(motion_TX))
    for head, vector_6, sound in zip(heads_T, vector_T6, sound_T, strict=True):
        head_N4 = torch.cat([head.color, head.opacity[..., None]], dim=-1).flatten(0, 1)
        painted_N3 = picture(torso, Seen(place_N2, vector_6, head_N4, behind_N3, int(torso.stand_in), seen_by_first, sound))
        yield (255 * painted_N3).round().clamp(0, 255).to(torch.uint8).reshape(size, size, 3).cpu().numpy()
