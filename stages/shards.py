"""All columns of a clip together, divided into train, val and test by the committed lists: what every system trains on."""

from dataclasses import dataclass
from pathlib import Path

from data.files import in_place
from data.manifest import EXCLUDED, SPLITS, manifest, splits
from data.shardset import Clip, Index, LeftOut, ShardEntry, ShardSet, json_object, write_index, write_shard
from stages.catalogue import read_catalogue
from stages.engine import JoinedSource
from stages.params import output, parts, section

COLUMNS = ("align", "landmarks", "masks", "meshes", "parsing", "spectrograms", "speech")
NOT_CARRIED = ("source_landmarks.npy",)  # `landmarks.npy` is the same in aligned pixels


@dataclass(frozen=True)
class ShardParams:
    """`shards` in params.yaml."""

    clips_per_shard: int  # clips in one shard of the training data


class NothingToTrainOn(ValueError):
    """No clip came through all stages."""


def joined(corpus: str) -> list[JoinedSource]:
    """Each part of the corpus with all its columns; a column that does not apply to the corpus is not among them."""
    sources = []
    for part in parts():
        sets = [ShardSet(output(column, f"{corpus}/{part}")) for column in COLUMNS]
        if applying := [shard_set for shard_set in sets if shard_set.index.clips_in]:
            sources.append(JoinedSource(applying))
    return sources


def split_of_clips(corpus: str) -> dict[str, str]:
    """The split of every clip in the catalogue. Raises WrongManifest for one that the lists don't place."""
    sources = [(clip.key, json_object(clip.members["json"])) for clip in read_catalogue(corpus).clips]
    lengths = [(key, source["end"] - source["start"] if source["end"] else 1.0) for key, source in sources]
    return splits(manifest(corpus).split).divide(lengths)


def divide(sources: list[JoinedSource], split_of: dict[str, str], out: Path, params: ShardParams) -> None:
    """Write `out/train`, `out/val` and `out/test`; each index accounts for every clip of its list that the corpus held."""
    for split in SPLITS:
        (out / split).mkdir(parents=True)
    pending: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    entries: dict[str, list[ShardEntry]] = {split: [] for split in SPLITS}

    def flush(split: str) -> None:
        if pending[split]:
            name = f"{len(entries[split]):05d}.tar"
            entries[split].append(write_shard(out / split / name, pending[split]))
            pending[split] = []

    left_out: dict[str, LeftOut] = {}
    for source in sources:
        left_out |= source.left_out
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
        of_split = {key: why for key, why in left_out.items() if split_of.get(key) == split}
        write_index(out / split, Index.of(entries[split], of_split))


def run(corpus: str) -> None:
    sources = joined(corpus)
    if not any(source.shards for source in sources):
        raise NothingToTrainOn(f"{corpus}: no clip came through all stages; `talkingface verify {corpus}` says why")
    with in_place(output("shards", corpus)) as out:
        divide(sources, split_of_clips(corpus), out, section("shards", ShardParams))
