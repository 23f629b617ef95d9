"""Shards to clips and examples in training, through webdataset, which every system shares."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import webdataset
from torch.utils.data import IterableDataset, get_worker_info

from data.shardset import Clip, ShardEntry, ShardSet

Decoded = TypeVar("Decoded")
Example = TypeVar("Example", covariant=True)


def stream(shards: ShardSet, entries: Iterable[ShardEntry]) -> Iterator[Clip]:
    """The clips of these shards, one in memory at a time.

    webdataset reads a truncated tar in silence, so each shard is checked against the index first. Raises DamagedShard.
    """

    def urls() -> Iterator[dict[str, str]]:
        yield from ({"url": str(shards.verified(entry))} for entry in entries)

    for sample in webdataset.DataPipeline(urls, webdataset.tarfile_to_samples()):
        yield Clip(sample["__key__"], {suffix: data for suffix, data in sample.items() if not suffix.startswith("__")})


def endless_order(shards: ShardSet, seed: int, share: int, shares: int) -> Iterator[ShardEntry]:
    """One share of the shards, in a new order each time round; where there are fewer shards than shares, some share one."""
    entries = shards.index.shards
    for epoch in count():
        order = np.random.default_rng((seed, epoch)).permutation(len(entries))
        for index in order[share % len(entries) :: shares]:
            yield entries[index]


class DrawnExamples(IterableDataset[Example], ABC, Generic[Decoded, Example]):
    """Examples without end, each of the shard set as likely as any other.

    They are drawn from a buffer of decoded clips. If the whole set fits, each clip is decoded once; otherwise, after each
    `per_clip` examples, the next clip takes the place of another. Shards are divided over ranks and loader processes, anew
    each time round; where there are too few, some processes share one. The order depends on the seed, the rank and the number
    of processes alone. Raises DamagedShard, and ValueError for a set without clips.

    buffer_clips: decoded clips that each loader process holds. Under torchrun each rank has its own share.
    """

    def __init__(self, shards: Path, seed: int, buffer_clips: int, per_clip: int):
        self.shards = ShardSet(shards)
        self.seed, self.buffer_clips, self.per_clip = seed, buffer_clips, per_clip
        self.rank, self.ranks = rank_and_ranks()
        if not self.shards.keys:
            raise ValueError(f"{shards} holds no clip: see left_out in its index.json for the reasons")

    @abstractmethod
    def decode(self, clip: Clip) -> Decoded:
        """A clip in memory. ValueError, naming it, if its members do not fit."""

    @abstractmethod
    def count(self, clip: Decoded) -> int:
        """How many examples it has; one without any is passed over."""

    @abstractmethod
    def draw(self, clip: Decoded, random: np.random.Generator) -> Example:
        """One of them."""

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        share, shares = self.rank * workers + index, self.ranks * workers
        random = np.random.default_rng((self.seed, share))

        streaming = len(self.shards.keys) > self.buffer_clips
        entries = endless_order(self.shards, self.seed, share, shares) if streaming else self.shards.index.shards
        decoded = (self.decode(clip) for clip in stream(self.shards, entries))
        usable = (clip for clip in decoded if self.count(clip))
        buffer = list(islice(usable, self.buffer_clips))
        while True:
            examples = np.array([self.count(clip) for clip in buffer])
            for chosen in random.choice(len(buffer), self.per_clip, p=examples / examples.sum()):
                yield self.draw(buffer[chosen], random)
            if streaming:
                buffer[random.integers(len(buffer))] = next(usable)


def rank_and_ranks() -> tuple[int, int]:
    """Of this process among those of one training, as torchrun tells them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
