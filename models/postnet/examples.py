"""Shards to batches: of other people's voices, and of the person's own utterances with their motion.

B  batch     T  frames     S = 2T  rows of sound     D  numbers of a row     X  204 numbers of a frame

The release pairs each batch of voices with the person's whole training sequence; ours with clips of it, each contiguous. What
is heard, and how, the generator of motion says, whose voices must be of the same column.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from models.checkpoint import read_config
from models.given import Given
from models.hearing import SILENCE
from models.motion.config import Config as MotionConfig
from models.motion.examples import Batch, TrainingUtterances, ValidationUtterances, collate
from models.postnet.config import Config
from models.streaming import Endless, Share, training_loader

MOTION = "motion"  # the generator's checkpoint: among what a training is given, and the folder of it in the checkpoint
VOICES = "voices"  # shard set, among what a training is given


class Step(NamedTuple):
    """What one training step sees."""

    voices: Batch  # of anybody; their motion is not looked at
    person: Batch


class TrainingSteps(Endless[Step]):
    """Steps without end. Raises DamagedShard, BadCheckpoint, and ValueError for a clip that does not fit."""

    def __init__(self, config: Config, given: Given):
        self.config, self.heard = config, generator_config(given)
        sound = self.heard.audio, self.heard.audio_width
        drawn = config.crop_frames, config.seed, config.buffer_clips
        self.voices = TrainingUtterances(beside(given, VOICES), *sound, *drawn)
        self.person = TrainingUtterances(given.train, *sound, *drawn)

    def examples(self, share: Share, first: int) -> Iterator[Step]:
        silence, sizes = SILENCE[self.heard.audio], (self.config.batch_size, self.config.person_clips)
        drawn = [of.examples(share, first * size) for of, size in zip((self.voices, self.person), sizes, strict=True)]
        while True:
            yield Step(*(collate(list(islice(some, size)), silence) for some, size in zip(drawn, sizes, strict=True)))


def beside(given: Given, name: str) -> Path:
    """The folder of this name. ValueError without it."""
    if name not in given.beside:
        raise ValueError(f"postnet is trained beside {MOTION!r}, a checkpoint, and {VOICES!r}, a shard set: give it {name!r} too")
    return given.beside[name]


def generator_config(given: Given) -> MotionConfig:
    """Of the generator below, which says what is heard. Raises BadCheckpoint."""
    return read_config(beside(given, MOTION), MotionConfig)


def person_motion(given: Given) -> np.ndarray:
    """(N, X) float32 centimetres: all of the person's training motion, clip after clip."""
    heard = generator_config(given)
    return np.concatenate([said.motion for said in ValidationUtterances(given.train, heard.audio, heard.audio_width)])


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Training steps without end, and each of the person's held-out utterances, whole. Under torchrun each rank has its own."""
    heard = generator_config(given)
    return (
        training_loader(TrainingSteps(config, given), None, config.loader_workers, given.step),
        DataLoader(
            ValidationUtterances(given.val, heard.audio, heard.audio_width),
            batch_size=1,
            collate_fn=partial(collate, silence=SILENCE[heard.audio]),
        ),
    )
