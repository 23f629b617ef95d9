"""Shards to clips and examples in training, through webdataset, which every system shares."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
import webdataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data.shardset import Clip, ShardEntry, ShardSet

Decoded = TypeVar("Decoded")
Example = TypeVar("Example", covariant=True)
Frame = TypeVar("Frame", bound=tuple)


def filled(shards: Path) -> ShardSet:
    """The shard set, opened. Raises DamagedShard, and ValueError for a set without clips."""
    opened = ShardSet(shards)
    if not opened.keys:
        raise ValueError(f"{shards} holds no clip: see left_out in its index.json for the reasons")
    return opened


def stream(shards: ShardSet, entries: Iterable[ShardEntry]) -> Iterator[Clip]:
    """The clips of these shards, one in memory at a time.

    webdataset reads a truncated tar in silence, so each shard is checked against the index first. Raises DamagedShard.
    """

    def urls() -> Iterator[dict[str, str]]:
        yield from ({"url": str(shards.verified(entry))} for entry in entries)

    for sample in webdataset.DataPipeline(urls, webdataset.tarfile_to_samples()):
        yield Clip(sample["__key__"], {suffix: data for suffix, data in sample.items() if not suffix.startswith("__")})


class Share(NamedTuple):
    """Of a training's examples: what one process draws, among all that draw."""

    number: int
    of: int


def endless_order(shards: ShardSet, seed: int, share: Share) -> Iterator[ShardEntry]:
    """One share of the shards, in a new order each time round; where there are fewer shards than shares, some share one."""
    entries = shards.index.shards
    for epoch in count():
        order = np.random.default_rng((seed, epoch)).permutation(len(entries))
        for index in order[share.number % len(entries) :: share.of]:
            yield entries[index]


def endless_clips(shards: ShardSet, seed: int, share: Share, first: int) -> Iterator[Clip]:
    """The clips of that order from number `first` on; shards before it are not read. Raises DamagedShard."""
    order = endless_order(shards, seed, share)
    for entry in order:
        if first < len(entry.keys):
            break
        first -= len(entry.keys)
    return islice(stream(shards, chain([entry], order)), first, None)


class Endless(IterableDataset[Example], ABC):
    """Examples without end, of which each rank and loader process draws its share.

    Example n of a share follows from n, the seed and the number of processes, not from what was drawn before: a training that
    goes on from a step begins with that step's examples, without a look at those before them.
    """

    step, batch_size = 0, 1  # what `training_loader` says

    @abstractmethod
    def examples(self, share: Share, first: int) -> Iterator[Example]:
        """Those of a share from number `first` on."""

    def __iter__(self) -> Iterator[Example]:
        worker, (rank, ranks) = get_worker_info(), rank_and_ranks()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # Batches come from the loader's processes in turn, always from its first to begin with, which has the part of another.
        batches, part = divmod(self.step + index, workers)
        return self.examples(Share(rank * workers + part, ranks * workers), batches * self.batch_size)


def training_loader(
    examples: Endless, batch_size: int | None, workers: int, step: int, collate: Callable[[list[Any]], Any] | None = None
) -> DataLoader:
    """Batches without end, from that of `step` on. Under torchrun each rank has its own.

    batch_size: None where an example is a batch already. workers: processes that make them; 0 is this one. collate: None is
    torch's own.
    """
    examples.step, examples.batch_size = step, batch_size or 1
    return DataLoader(examples, batch_size, num_workers=workers, collate_fn=collate, pin_memory=torch.cuda.is_available())


class DrawnExamples(Endless[Example], Generic[Decoded, Example]):
    """Examples without end, each of the shard set as likely as any other.

    They are drawn from the decoded clips in memory, `per_clip` in a round. If the whole set fits, each clip is decoded once;
    otherwise, after each round the next clip takes the place of the one that was there longest. Shards are divided over ranks
    and loader processes, anew each time round; where there are too few, some processes share one. The order depends on the
    seed, the rank and the number of processes alone. Raises DamagedShard, and ValueError for a set without clips.

    buffer_clips: decoded clips that each loader process holds.
    """

    def __init__(self, shards: Path, seed: int, buffer_clips: int, per_clip: int):
        self.shards = filled(shards)
        self.seed, self.buffer_clips, self.per_clip = seed, buffer_clips, per_clip

    @abstractmethod
    def decode(self, clip: Clip) -> Decoded:
        """A clip in memory. ValueError, naming it, if its members do not fit."""

    @abstractmethod
    def count(self, clip: Decoded) -> int:
        """How many examples it has; one without any is passed over."""

    @abstractmethod
    def draw(self, clip: Decoded, random: np.random.Generator) -> Example:
        """One of them."""

    def examples(self, share: Share, first: int) -> Iterator[Example]:
        first_round, drawn = divmod(first, self.per_clip)
        rounds = (
            self._round(clips, np.random.default_rng((self.seed, share.number, number)))
            for number, clips in enumerate(self._in_memory(share, first_round), first_round)
        )
        return islice(chain.from_iterable(rounds), drawn, None)

    def _in_memory(self, share: Share, first: int) -> Iterator[Sequence[Decoded]]:
        """The clips of each round from number `first` on."""
        if len(self.shards.keys) <= self.buffer_clips:
            yield from repeat([self.decode(clip) for clip in stream(self.shards, self.shards.index.shards)])
        arriving = (self.decode(clip) for clip in endless_clips(self.shards, self.seed, share, first))
        clips = deque(islice(arriving, self.buffer_clips), self.buffer_clips)
        while True:
            yield clips
            clips.append(next(arriving))

    def _round(self, clips: Sequence[Decoded], random: np.random.Generator) -> Iterator[Example]:
        examples = np.array([self.count(clip) for clip in clips])
        if not examples.any():
            raise ValueError(
                f"none of {len(clips)} clips of {self.shards.path} has frames enough for an example: set buffer_clips in the "
                "system's overrides, or align.min_frames"
            )
        for chosen in random.choice(len(clips), self.per_clip, p=examples / examples.sum()):
            yield self.draw(clips[chosen], random)


def spread(frames: range, number: int) -> list[int]:
    """So many of these frames, evenly spread; all, where there are fewer."""
    if not frames:
        return []
    return np.unique(np.linspace(frames[0], frames[-1], number).round().astype(int)).tolist()


def copied(example: Frame) -> Frame:
    """The example with tensors of its own: views would keep a whole clip in memory."""
    return type(example)(*(tensor.clone() for tensor in example))


def rank_and_ranks() -> tuple[int, int]:
    """Of this process among those of one training, as torchrun tells them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
