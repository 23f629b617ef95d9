"""Shards of latents to batches.

    T  frames of a clip     C, h, w  latents     D  numbers of a row of audio, 50 rows a second

The autoencoder is frozen and training changes nothing in its images, so what it says of a frame is said once, by the stage
`latents`: that saves two thirds of a training step's encoding and all of its memory. The set's folder holds the autoencoder too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.mesh import LANDMARKS_68
from data.shardset import Clip, ShardSet, npy_array
from models.difftalk.config import Config
from models.difftalk.network import FRAMES, HEARD, LANDMARKS, ROWS
from models.given import Given
from models.hearing import SILENCE, Audio, check_members, heard_rows
from models.streaming import DrawnExamples, copied, spread, training_loader

LATENTS, MASKED = "latents.npy", "masked_latents.npy"  # members that the stage `latents` adds
AUTOENCODER = "autoencoder"  # folder beside train/ and val/


class Example(NamedTuple):
    """One frame's latents and what is known when they are painted; collated, each tensor has B in front."""

    latents: Tensor  # (C, h, w) float32, the target
    masked: Tensor  # (C, h, w) float32, of the frame with what is painted black
    reference: Tensor  # (C, h, w) float32, of a frame some way off
    audio: Tensor  # (30, D) float32 rows
    landmarks: Tensor  # (39, 2) float32, pixels of the frame


@dataclass(frozen=True)
class EncodedClip:
    """A clip in memory."""

    key: str
    latents: np.ndarray  # (T, C, h, w) float32
    masked: np.ndarray  # (T, C, h, w) float32
    audio: np.ndarray  # (T, 30, D) float32, a view of one padded column
    landmarks: np.ndarray  # (T, 39, 2) float32

    def example(self, index: int, reference: int) -> Example:
        arrays = self.latents[index], self.masked[index], self.latents[reference], self.audio[index], self.landmarks[index]
        return Example(*map(torch.from_numpy, arrays))


def audio_windows(rows_SD: np.ndarray, audio: Audio) -> np.ndarray:
    """Rows (2T, D) of a column -> (T, 30, D): what frame i hears, the windows of frames i-3 … i+4 in one, rows 2i-14 … 2i+15.

    Which eight frames the release takes is unpublished; these are a re-implementation's (yxdydgithub/difftalk_preprocess). A
    window is centred on its frame's first row, as AD-NeRF's. Beyond the ends there is silence.
    """
    before, after = 2 * (FRAMES // 2 - 1) + ROWS // 2, FRAMES + ROWS // 2
    padded = np.pad(rows_SD, ((before, after), (0, 0)), constant_values=SILENCE[audio])
    windows_NDS = np.lib.stride_tricks.sliding_window_view(padded, HEARD, axis=0, writeable=True)[: len(rows_SD) : 2]
    return windows_NDS.swapaxes(1, 2)


def upper_face(landmarks_TP2: np.ndarray) -> np.ndarray:
    """The 39 landmarks (T, 39, 2) float32 that the network is told, of the 68 or of MediaPipe's 478."""
    if landmarks_TP2.shape[1] != len(LANDMARKS_68):
        landmarks_TP2 = landmarks_TP2[:, LANDMARKS_68]
    return landmarks_TP2[:, LANDMARKS, :2].astype(np.float32)


def read_clip(clip: Clip, config: Config) -> EncodedClip:
    """Reads a clip of the stage `latents`. ValueError, naming the clip, if its members do not fit each other or `config`."""
    check_members(clip, (LATENTS, MASKED, "landmarks.npy", f"{config.audio}.npy"))
    latents, masked = npy_array(clip.members[LATENTS]), npy_array(clip.members[MASKED])
    expected = (len(latents), config.latent_channels, config.latent_size, config.latent_size)
    if latents.shape != expected or masked.shape != expected:
        raise ValueError(
            f"clip {clip.key} has latents of the shape {latents.shape}, not {expected}: "
            "set latent_size and latent_channels in the system's overrides, as the autoencoder has them"
        )
    rows_SD = heard_rows(clip, config.audio, config.audio_width, len(latents))
    landmarks = upper_face(npy_array(clip.members["landmarks.npy"]))
    return EncodedClip(clip.key, latents, masked, audio_windows(rows_SD, config.audio), landmarks)


def reference_of(index: int, length: int, distance: int, random: np.random.Generator) -> int:
    """A frame more than `distance` frames from `index`; if the clip has none, the farthest."""
    candidates = np.flatnonzero(np.abs(np.arange(length) - index) > distance)
    return int(random.choice(candidates)) if len(candidates) else int(max((0, length - 1), key=lambda end: abs(end - index)))


class TrainingExamples(DrawnExamples[EncodedClip, Example]):
    """Each frame as likely as any other, with a reference drawn afresh each time (the release draws it once for all)."""

    def __init__(self, shards: Path, config: Config):
        super().__init__(shards, config.seed, config.buffer_clips, config.frames_per_clip)
        self.config = config

    def decode(self, clip: Clip) -> EncodedClip:
        return read_clip(clip, self.config)

    def count(self, clip: EncodedClip) -> int:
        return len(clip.latents)

    def draw(self, clip: EncodedClip, random: np.random.Generator) -> Example:
        index = int(random.integers(len(clip.latents)))
        return clip.example(index, reference_of(index, len(clip.latents), self.config.reference_distance, random))


def validation_examples(shards: Path, config: Config) -> list[Example]:
    """`config.frames_per_clip` frames of every clip, evenly spread, each with frame 0 for reference: the same ones each time."""
    clips, number = (read_clip(clip, config) for clip in ShardSet(shards).clips()), config.frames_per_clip
    return [copied(clip.example(index, 0)) for clip in clips for index in spread(range(len(clip.latents)), number)]


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Batches of the two shard sets; the training ones have no end. Under torchrun each rank has its own."""
    return (
        training_loader(TrainingExamples(given.train, config), config.batch_size, config.loader_workers, given.step),
        DataLoader(validation_examples(given.val, config), config.batch_size),  # type: ignore[arg-type]  # a list will do
    )
