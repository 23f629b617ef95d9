"""Shards to batches.

    T  frames of a clip     H, W  pixels     D  numbers of a row of audio, 50 rows a second     M  4 x D, one window

Images are uint8 until they are on the device, a quarter of what float32 would move.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from data.media.video import decode_frames
from data.shardset import Clip, ShardSet, npy_array
from models.given import Given
from models.hearing import SILENCE, Audio, check_members, heard_rows
from models.streaming import DrawnExamples, copied, spread, training_loader
from models.video_editing.config import Config
from models.video_editing.network import AUDIO_ROWS

# The most that a perturbation of 1 does: in radians, of the size, of the width, of the contrast, of the range of levels.
ROTATION, SCALE, SHIFT, CONTRAST, TINT = 0.05, 0.03, 0.02, 0.1, 0.05


class Example(NamedTuple):
    """One frame to paint and what is known when it is painted; collated, each tensor has B in front."""

    frame: Tensor  # (H, W, 3) uint8, the target
    previous: Tensor  # (H, W, 3) uint8, the frame before it
    identity: Tensor  # (H, W, 3) uint8, frame 0, or any other in training
    audio: Tensor  # (M,) float32
    box: Tensor  # (4,) int16, x0 y0 x1 y1 of the part to paint, half open


@dataclass(frozen=True)
class DecodedClip:
    """A clip in memory. Frame 0 is given, so frames 1 … T-1 make examples."""

    key: str
    frames: np.ndarray  # (T, H, W, 3) uint8
    boxes: np.ndarray  # (T, 4) int16, as in the member mask.npy
    windows: np.ndarray  # (T, M) float32, from audio_windows

    def example(self, index: int, identity: int = 0) -> Example:
        frames = self.frames
        arrays = frames[index], frames[index - 1], frames[identity], self.windows[index], self.boxes[index]
        return Example(*map(torch.from_numpy, arrays))

    def training_example(self, config: Config, random: np.random.Generator) -> Example:
        """One of the clip's examples, changed as `config` says."""
        length = len(self.frames)
        index = random.integers(1, length)
        example = self.example(index, 0 if config.identity == "first" else random.integers(length))
        # The frame before says almost all of the next one, and a network that trusts it repeats its own errors.
        if random.random() < config.previous_dropout:
            example = example._replace(previous=example.identity)
        elif config.previous_perturbation:
            example = example._replace(previous=perturbed(example.previous, config.previous_perturbation, random))
        if config.audio_dropout and random.random() < config.audio_dropout:
            example = example._replace(audio=torch.full_like(example.audio, SILENCE[config.audio]))
        return mirrored(example) if random.random() < config.mirror else example


def perturbed(image_HW3: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """A uint8 image turned, scaled, shifted and tinted a little, as painted frames are a little off.

    The authors propose to warp it against errors that grow from frame to frame, and give no numbers.
    strength: multiplies the limits above, between which each amount is drawn. Beyond its edge the image goes on as there.
    """
    turn, zoom, *shift = random.uniform(-strength, strength, 4) * (ROTATION, SCALE, SHIFT, SHIFT)
    contrast_3, tint_3 = random.uniform(-strength, strength, (2, 3)) * ((CONTRAST,), (TINT,))
    cos, sin = (1 + zoom) * np.cos(turn), (1 + zoom) * np.sin(turn)
    # Coordinates run from -1 to 1, so that a shift of the whole width is 2.
    affine_23 = torch.tensor([[cos, -sin, 2 * shift[0]], [sin, cos, 2 * shift[1]]], dtype=torch.float32)
    image_13HW = image_HW3.permute(2, 0, 1)[None].float()
    grid_1HW2 = F.affine_grid(affine_23[None], list(image_13HW.shape), align_corners=False)
    warped_HW3 = F.grid_sample(image_13HW, grid_1HW2, padding_mode="border", align_corners=False)[0].permute(1, 2, 0)
    gain_3 = torch.tensor(1 + contrast_3, dtype=torch.float32)
    bias_3 = torch.tensor(255 * tint_3 - 127.5 * contrast_3, dtype=torch.float32)  # contrast is about the middle grey
    return (warped_HW3 * gain_3 + bias_3).round().clamp(0, 255).to(torch.uint8).contiguous()


def mirrored(example: Example) -> Example:
    """Left and right exchanged, in images and box alike."""
    width = example.frame.shape[1]
    x0, y0, x1, y1 = example.box
    frame, previous, identity = (image.flip(1) for image in example[:3])
    return Example(frame, previous, identity, example.audio, torch.stack((width - x1, y0, width - x0, y1)))


def audio_windows(rows_SD: np.ndarray, audio: Audio = "mel") -> np.ndarray:
    """Rows (2T, D) of a column -> windows (T, M): frame i hears rows 2i-2 … 2i+1, as released (§3.2 says up to 2i+2).

    Without copying: the result shares the memory of one padded column.
    """
    length, width = rows_SD.shape
    padded = np.pad(rows_SD, ((2, 0), (0, 0)), constant_values=SILENCE[audio])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (AUDIO_ROWS, width), writeable=True)
    return windows[::2].reshape(length // 2, AUDIO_ROWS * width)


def decode_clip(clip: Clip, config: Config) -> DecodedClip:
    """Decodes mp4, mask.npy and the audio's column. ValueError, naming the clip, if they do not fit each other or `config`."""
    check_members(clip, ("mp4", "mask.npy", f"{config.audio}.npy"))
    frames, boxes = decode_frames(clip.members["mp4"]), npy_array(clip.members["mask.npy"])
    length, size = len(frames), config.image_size
    for name, found, expected in (("mp4", frames.shape, (length, size, size, 3)), ("mask.npy", boxes.shape, (length, 4))):
        if found != expected:
            raise ValueError(f"clip {clip.key}: {name} has the shape {found}, not {expected}: run its stage again")
    rows_SD = heard_rows(clip, config.audio, config.audio_width, length)
    return DecodedClip(clip.key, frames, boxes.astype(np.int16), audio_windows(rows_SD, config.audio))


class TrainingExamples(DrawnExamples[DecodedClip, Example]):
    """Each frame of the shard set (but frames 0) as likely as any other, changed as the config says."""

    def __init__(self, shards: Path, config: Config):
        super().__init__(shards, config.seed, config.buffer_clips, config.frames_per_clip)
        self.config = config

    def decode(self, clip: Clip) -> DecodedClip:
        return decode_clip(clip, self.config)

    def count(self, clip: DecodedClip) -> int:
        return len(clip.frames) - 1

    def draw(self, clip: DecodedClip, random: np.random.Generator) -> Example:
        return clip.training_example(self.config, random)


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Batches of the two shard sets; the training ones have no end. Under torchrun each rank has its own."""
    return (
        training_loader(TrainingExamples(given.train, config), config.batch_size, config.loader_workers, given.step),
        DataLoader(validation_examples(given.val, config), config.batch_size),  # type: ignore[arg-type]  # a list will do
    )


def validation_examples(shards: Path, config: Config) -> list[Example]:
    """`config.frames_per_clip` frames of every clip, evenly spread: the same ones each time."""
    clips, number = (decode_clip(clip, config) for clip in ShardSet(shards).clips()), config.frames_per_clip
    return [copied(clip.example(index)) for clip in clips for index in spread(range(1, len(clip.frames)), number)]
