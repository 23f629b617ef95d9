"""Shards to clips in training, through webdataset, which every system shares."""

from collections.abc import Iterable, Iterator
from itertools import count

import numpy as np
import webdataset

from data.shardset import Clip, ShardEntry, ShardSet


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
