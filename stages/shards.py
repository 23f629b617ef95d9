"""All columns of a clip together, divided into train, val and test by the committed lists: what every system trains on."""

from dataclasses import dataclass
from pathlib import Path

from data.files import in_place
from data.manifest import SPLITS, splits
from data.shardset import Clip, Index, ShardSet, write_index, write_shard
from stages.engine import JoinedSource
from stages.params import output, section

COLUMNS = ("align", "landmarks", "masks", "spectrograms")
EXCLUDED = "excluded"  # clips that a list names as known to be bad
NOT_CARRIED = ("source_landmarks.npy",)  # `landmarks.npy` is the same in aligned pixels


@dataclass(frozen=True)
class ShardParams:
    """`shards` in params.yaml."""

    clips_per_shard: int  # clips in one shard of the training data


class NotInSplits(ValueError):
    """The corpus holds a clip that no split list names."""


def divide(source: JoinedSource, lists: dict[str, list[str]], out: Path, params: ShardParams) -> None:
    """Write `out/train`, `out/val` and `out/test`; each index accounts for every clip of its list that the corpus held."""
    split_of = {key: split for split, keys in lists.items() for key in keys}
    keys = {key for shard in source.shards for key in shard.keys} | set(source.left_out)
    if strangers := sorted(keys - set(split_of)):
        raise NotInSplits(
            f"{strangers[0]} (and {len(strangers) - 1} more) is in no list: add it to the corpus's file in data/splits"
        )

    for split in SPLITS:
        (out / split).mkdir(parents=True)
    pending: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    entries: dict[str, list] = {split: [] for split in SPLITS}

    def flush(split: str) -> None:
        if pending[split]:
            name = f"{len(entries[split]):05d}.tar"
            entries[split].append(write_shard(out / split / name, pending[split]))
            pending[split] = []

    for shard in source.shards:
        for clip in shard.clips():
            if (split := split_of[clip.key]) == EXCLUDED:
                continue
            members = {suffix: data for suffix, data in clip.members.items() if suffix not in NOT_CARRIED}
            pending[split].append(Clip(clip.key, members))
            if len(pending[split]) == params.clips_per_shard:
                flush(split)
    for split in SPLITS:
        flush(split)
        left_out = {key: why for key, why in source.left_out.items() if split_of[key] == split}
        write_index(out / split, Index.of(entries[split], left_out))


def run(corpus: str) -> None:
    source = JoinedSource([ShardSet(output(column, corpus)) for column in COLUMNS])
    with in_place(output("shards", corpus)) as out:
        divide(source, splits(corpus), out, section("shards", ShardParams))
