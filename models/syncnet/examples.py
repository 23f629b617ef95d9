"""Shards to pairs of a mouth and a sound, half of which belong together.

T  frames of an utterance     D  numbers of a row of audio, two rows a frame     N = T - 4 stretches of 5 frames
"""

from collections.abc import Iterator
from itertools import chain, count, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from data.shardset import Clip
from models.given import Given
from models.landmarks import MOUTH, Utterance, read_utterance
from models.streaming import DrawnExamples, Endless, Share, filled, training_loader
from models.syncnet.config import Config, Negatives
from models.syncnet.network import FRAMES, ROWS

POSITIVE = 0.5  # share of the pairs that belong together (release)
OTHER, ELSEWHERE = (
    0.25,
    0.375,
)  # of the negatives: from another utterance, and from any other time; the rest are shifted (release)
NEAREST, FARTHEST = 2, 5  # frames that sound is shifted by, to either side (release)
SHORTEST = FRAMES + NEAREST + 1  # frames, so that each stretch has another that far away


class Pair(NamedTuple):
    """Collated, each tensor has B in front."""

    speech: Tensor  # (10, D) float32 rows
    mouth: Tensor  # (5, 60) float32, cm
    synced: Tensor  # () bool, whether they belong together


def stretches(utterance: Utterance) -> int:
    """N."""
    return len(utterance.motion) - FRAMES + 1


def read_long_enough(clip: Clip, config: Config) -> Utterance:
    """The clip's sound and motion. ValueError, naming it, if its members do not fit or it is too short for negatives."""
    utterance = read_utterance(clip, config.audio, config.audio_width)
    if len(utterance.motion) < SHORTEST:
        raise ValueError(
            f"clip {clip.key} has {len(utterance.motion)} frames; to shift its sound takes {SHORTEST}: set align.min_frames"
        )
    return utterance


def pair(this: Utterance, other: Utterance, synced: bool, negatives: Negatives, random: np.random.Generator) -> Pair:
    """A mouth of this utterance, with its own sound or other sound (release)."""
    first = int(random.integers(stretches(this)))
    rows_RD = sound(this, first) if synced else unsynced(this, other, first, negatives, random)
    mouth_FM = this.motion[first : first + FRAMES, MOUTH]
    return Pair(torch.from_numpy(rows_RD), torch.from_numpy(mouth_FM), torch.tensor(synced))


def sound(utterance: Utterance, first: int) -> np.ndarray:
    """The 10 rows of the 5 frames from `first` on."""
    return utterance.speech[2 * first : 2 * first + ROWS]


def unsynced(this: Utterance, other: Utterance, first: int, negatives: Negatives, random: np.random.Generator) -> np.ndarray:
    """10 rows that are not those of the 5 frames from `first` on. If `other` is the same, they come from elsewhere in it."""
    kind = random.random()
    if kind < OTHER and other.key != this.key:
        at = int(random.integers(stretches(other)))
        if negatives == "designed":
            return sound(other, at)
        rows_RD = sound(this, at)  # past the end there is the padding of the release's batches
        return np.pad(rows_RD, ((0, ROWS - len(rows_RD)), (0, 0)))
    apart_N = np.abs(np.arange(stretches(this)) - first)
    farthest = len(apart_N) if kind < OTHER + ELSEWHERE else FARTHEST
    return sound(this, int(random.choice(np.flatnonzero((apart_N >= NEAREST) & (apart_N <= farthest)))))


class Utterances(DrawnExamples[Utterance, Utterance]):
    """Each stretch of 5 frames as likely as any other to be in the utterance that comes next."""

    def __init__(self, shards: Path, config: Config):
        super().__init__(shards, config.seed, config.buffer_clips, config.pairs_per_clip)
        self.config = config

    def decode(self, clip: Clip) -> Utterance:
        return read_long_enough(clip, self.config)

    def count(self, clip: Utterance) -> int:
        return stretches(clip)

    def draw(self, clip: Utterance, random: np.random.Generator) -> Utterance:
        return clip


class TrainingPairs(Endless[Pair]):
    """Pairs without end.

    The other utterance of a negative is the last one drawn that is another, among those of the same round, which is thought of
    as a ring: of a single one, itself.
    """

    def __init__(self, shards: Path, config: Config):
        self.utterances, self.config = Utterances(shards, config), config

    def examples(self, share: Share, first: int) -> Iterator[Pair]:
        size = self.config.pairs_per_clip
        first_round, drawn = divmod(first, size)
        utterances = self.utterances.examples(share, first_round * size)
        rounds = (self._round(list(islice(utterances, size)), (share.number, number)) for number in count(first_round))
        return islice(chain.from_iterable(rounds), drawn, None)

    def _round(self, utterances: list[Utterance], seed: tuple[int, int]) -> Iterator[Pair]:
        random = np.random.default_rng((self.config.seed, *seed, 1))
        for index, this in enumerate(utterances):
            before = utterances[index - 1 :: -1] + utterances[:index:-1] if index else utterances[:0:-1]
            other = next((one for one in before if one.key != this.key), this)
            yield pair(this, other, random.random() < POSITIVE, self.config.negatives, random)


class ValidationPairs(IterableDataset[Pair]):
    """`config.pairs_per_clip` of every utterance, positives and designed negatives in turn: the same ones each time.

    The other utterance is the one before; of the first one, the last.
    """

    def __init__(self, shards: Path, config: Config):
        self.shards, self.config = filled(shards), config

    def __iter__(self) -> Iterator[Pair]:
        random = np.random.default_rng(0)
        utterances = (read_long_enough(clip, self.config) for clip in self.shards.clips())
        first = next(utterances)
        for other, this in pairwise(chain((first,), utterances, (first,))):
            for index in range(self.config.pairs_per_clip):
                yield pair(this, other, index % 2 == 0, "designed", random)


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Batches of the two shard sets; the training ones have no end. Under torchrun each rank has its own."""
    return (
        training_loader(TrainingPairs(given.train, config), config.batch_size, config.loader_workers, given.step),
        DataLoader(ValidationPairs(given.val, config), config.batch_size),
    )
