"""Shards to batches: squares cut from frames, (B, H, W, 3) uint8 until they are on the device."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.media.video import decode_frames
from data.shardset import Clip, ShardSet
from models.autoencoder.config import Config
from models.given import Given
from models.streaming import DrawnExamples, spread, training_loader


def decode_clip(clip: Clip, config: Config) -> np.ndarray:
    """Its frames (T, H, W, 3) uint8. ValueError, naming the clip, if it has none, or too small ones."""
    if "mp4" not in clip.members:
        raise ValueError(f"clip {clip.key} has no mp4: run the stage `align`")
    frames = decode_frames(clip.members["mp4"])
    if min(frames.shape[1:3]) < config.crop:
        raise ValueError(
            f"clip {clip.key} has frames of {frames.shape[1]} pixels, fewer than {config.crop}: set crop in the overrides"
        )
    return frames


class TrainingExamples(DrawnExamples[np.ndarray, Tensor]):
    """Each frame of the shard set as likely as any other, and each square of it."""

    def __init__(self, shards: Path, config: Config):
        super().__init__(shards, config.seed, config.buffer_clips, config.frames_per_clip)
        self.config = config

    def decode(self, clip: Clip) -> np.ndarray:
        return decode_clip(clip, self.config)

    def count(self, clip: np.ndarray) -> int:
        return len(clip)

    def draw(self, clip: np.ndarray, random: np.random.Generator) -> Tensor:
        frame, crop = clip[random.integers(len(clip))], self.config.crop
        y, x = (random.integers(length - crop + 1) for length in frame.shape[:2])
        square = frame[y : y + crop, x : x + crop]
        if random.random() < self.config.mirror:
            square = square[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(square))


def validation_examples(shards: Path, config: Config) -> list[Tensor]:
    """The middles of `config.frames_per_clip` frames of every clip, evenly spread: the same ones each time."""
    examples = []
    for clip in ShardSet(shards).clips():
        frames = decode_clip(clip, config)
        y, x = ((length - config.crop) // 2 for length in frames.shape[1:3])
        chosen = spread(range(len(frames)), config.frames_per_clip)
        examples += list(torch.from_numpy(frames[chosen, y : y + config.crop, x : x + config.crop]))
    return examples


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Batches of the two shard sets; the training ones have no end. Under torchrun each rank has its own."""
    return (
        training_loader(TrainingExamples(given.train, config), config.batch_size, config.loader_workers, given.step),
        DataLoader(validation_examples(given.val, config), config.batch_size),  # type: ignore[arg-type]  # a list will do
    )
