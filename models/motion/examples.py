"""Shards to batches of utterances, which PostNet's training reads too.

    B  batch     T  frames, a multiple of 4     S = 2T  rows of sound     D  numbers of a row     X  204 numbers of a frame

Published are batches of utterances of like length, as many as make 60,000 rows of sound with their padding. Ours are of as many
utterances each, or random stretches of those longer than `crop_frames`, as they come from the buffered stream, padded to the
longest. The release leaves out what is shorter than 64 rows; ours has all.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from data.shardset import Clip
from models.given import Given
from models.hearing import SILENCE, Audio
from models.landmarks import Utterance, read_utterance
from models.motion.config import Config
from models.motion.network import STRIDE
from models.streaming import DrawnExamples, filled, training_loader


class Batch(NamedTuple):
    """Utterances padded to the longest of them, and to a multiple of 4 frames."""

    speech: Tensor  # (B, S, D) float32 rows of the column, silence where there is padding
    motion: Tensor  # (B, T, X) float32 centimetres, 0 where there is padding
    mask: Tensor  # (B, T) bool, false where there is padding


def collate(utterances: Sequence[Utterance], silence: float = 0.0) -> Batch:
    """Utterances of any lengths to a batch. silence: what rows of sound are padded with."""
    longest = max(len(utterance.motion) for utterance in utterances)
    count, frames = len(utterances), -(-longest // STRIDE) * STRIDE
    speech_BSD = torch.full((count, 2 * frames, utterances[0].speech.shape[1]), silence)
    motion_BTX = torch.zeros(count, frames, utterances[0].motion.shape[1])
    mask_BT = torch.zeros(count, frames, dtype=torch.bool)
    for row, (_, speech_SD, motion_TX) in enumerate(utterances):
        speech_BSD[row, : len(speech_SD)] = torch.from_numpy(speech_SD)
        motion_BTX[row, : len(motion_TX)] = torch.from_numpy(motion_TX)
        mask_BT[row, : len(motion_TX)] = True
    return Batch(speech_BSD, motion_BTX, mask_BT)


class TrainingUtterances(DrawnExamples[Utterance, Utterance]):
    """Utterances, or stretches of `crop_frames` of longer ones, without end; see DrawnExamples for their order.

    crop_frames: 0 is whole utterances, each as likely as any other; cut to stretches, a longer one comes more often. Raises
    DamagedShard, and ValueError for a clip that does not fit.
    """

    def __init__(self, shards: Path, audio: Audio, audio_width: int, crop_frames: int, seed: int, buffer_clips: int):
        super().__init__(shards, seed, buffer_clips, per_clip=1)
        self.audio, self.audio_width, self.crop_frames = audio, audio_width, crop_frames

    def decode(self, clip: Clip) -> Utterance:
        return read_utterance(clip, self.audio, self.audio_width)

    def count(self, clip: Utterance) -> int:
        return -(-len(clip.motion) // self.crop_frames) if self.crop_frames else 1

    def draw(self, clip: Utterance, random: np.random.Generator) -> Utterance:
        frames = len(clip.motion)
        length = min(self.crop_frames or frames, frames)
        first = int(random.integers(frames - length + 1))
        last = first + length
        return Utterance(clip.key, clip.speech[2 * first : 2 * last], clip.motion[first:last])


class ValidationUtterances(IterableDataset[Utterance]):
    """Every utterance, whole, once each time round. Raises as TrainingUtterances."""

    def __init__(self, shards: Path, audio: Audio, audio_width: int):
        self.shards, self.audio, self.audio_width = filled(shards), audio, audio_width

    def __iter__(self) -> Iterator[Utterance]:
        return (read_utterance(clip, self.audio, self.audio_width) for clip in self.shards.clips())


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Batches of the two shard sets; the training ones have no end. Under torchrun each rank has its own."""
    sound, padded = (config.audio, config.audio_width), partial(collate, silence=SILENCE[config.audio])
    utterances = TrainingUtterances(given.train, *sound, config.crop_frames, config.seed, config.buffer_clips)
    return (
        training_loader(utterances, config.batch_size, config.loader_workers, given.step, padded),
        DataLoader(ValidationUtterances(given.val, *sound), config.batch_size, collate_fn=padded),
    )
