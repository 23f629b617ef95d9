"""Where a stage's clips come from: a corpus cut into shards, or shard sets joined clip by clip."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from data.shardset import Clip, LeftOut, ShardEntry, ShardSet, json_bytes


class SourceShard(Protocol):
    """The clips that become one shard; a stage's output keeps the shards of its source."""

    @property
    def name(self) -> str:
        """Such as "00000.tar"."""

    @property
    def keys(self) -> tuple[str, ...]: ...

    def sha256(self) -> str:
        """Of the content: it changes when any member of any clip does."""

    def clips(self) -> Iterator[Clip]:
        """In the order of the keys, read one by one."""


class Source(Protocol):
    @property
    def shards(self) -> Sequence[SourceShard]: ...

    @property
    def left_out(self) -> Mapping[str, LeftOut]:
        """Clips of the corpus that are gone already."""


class RawSource:
    """Clips of a corpus, sorted by key and cut into shards of `clips_per_shard`. ValueError for a key given twice.

    left_out: clips that the corpus names but that cannot be used.
    part: (i, n) for the i-th of n parts: a run of the shards, so that all parts together are the shards of the whole.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        clips_per_shard: int,
        left_out: Mapping[str, LeftOut] | None = None,
        part: tuple[int, int] = (0, 1),
    ):
        clips = sorted(clips, key=lambda clip: clip.key)
        for earlier, later in pairwise(clips):
            if earlier.key == later.key:
                raise ValueError(f"the corpus has two clips named {later.key}")
        chunks = [clips[start : start + clips_per_shard] for start in range(0, len(clips), clips_per_shard)]
        shards = [_RawShard(f"{number:05d}.tar", chunk) for number, chunk in enumerate(chunks)]
        i, n = part
        self.shards = shards[len(shards) * i // n : len(shards) * (i + 1) // n]
        self.left_out = dict(left_out or {}) if i == 0 else {}


class _RawShard:
    def __init__(self, name: str, clips: list[Clip]):
        self.name = name
        self.keys = tuple(clip.key for clip in clips)
        self._clips = clips

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for clip in self._clips:
            for suffix, data in sorted(clip.members.items()):
                digest.update(json_bytes([clip.key, suffix, hashlib.sha256(data).hexdigest()]))
        return digest.hexdigest()

    def clips(self) -> Iterator[Clip]:
        return iter(self._clips)


class JoinedSource:
    """The clips that all these shard sets have, each with the members of all.

    The first set decides the shards and their order. A clip that one of the sets left out stays left out, for the
    reason given by the first that did. ValueError if two sets have a column in common, account for different clips, or
    are cut differently.
    """

    def __init__(self, sets: Sequence[ShardSet]):
        _check_columns(sets)
        _check_same_corpus(sets)
        self.left_out: dict[str, LeftOut] = {}
        for shard_set in reversed(sets):
            self.left_out |= shard_set.index.left_out
        self.shards = []
        entries = [{shard.name: shard for shard in shard_set.index.shards} for shard_set in sets]
        for name in entries[0]:
            if all(name in of_set for of_set in entries):
                shard = _JoinedShard(name, [(s, of_set[name]) for s, of_set in zip(sets, entries, strict=True)])
                if shard.keys:
                    self.shards.append(shard)


class _JoinedShard:
    def __init__(self, name: str, parts: list[tuple[ShardSet, ShardEntry]]):
        self.name = name
        self.keys = tuple(sorted(set.intersection(*(set(entry.keys) for _, entry in parts))))
        self._parts = parts

    def sha256(self) -> str:
        return hashlib.sha256(json_bytes([entry.sha256 for _, entry in self._parts])).hexdigest()

    def clips(self) -> Iterator[Clip]:
        streams = [shard_set.shard_clips(entry) for shard_set, entry in self._parts]
        for key in self.keys:
            members: dict[str, bytes] = {}
            for stream in streams:
                members |= next(clip for clip in stream if clip.key == key).members
            yield Clip(key, members)


def _check_columns(sets: Sequence[ShardSet]) -> None:
    owner: dict[str, Path] = {}
    for shard_set in sets:
        for column in shard_set.index.columns:
            if column in owner:
                raise ValueError(f"both {owner[column]} and {shard_set.path} have the column {column}: only one may")
            owner[column] = shard_set.path


def _check_same_corpus(sets: Sequence[ShardSet]) -> None:
    first = sets[0]
    shard_of = {key: shard.name for shard in first.index.shards for key in shard.keys}
    corpus = set(first.keys) | set(first.index.left_out)
    for other in sets[1:]:
        strangers = corpus ^ (set(other.keys) | set(other.index.left_out))
        if strangers:
            raise ValueError(
                f"only one of {first.path} and {other.path} accounts for {min(strangers)}: they are not of the same "
                "corpus. Run the stages that write them again."
            )
        for shard in other.index.shards:
            for key in shard.keys:
                if shard_of.get(key, shard.name) != shard.name:
                    raise ValueError(
                        f"{other.path} has {key} in {shard.name}, {first.path} in {shard_of[key]}: the sets are cut "
                        "differently. Run the stages that write them again."
                    )
