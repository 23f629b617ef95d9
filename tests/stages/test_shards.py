"""The division into train, val and test accounts for every clip, whatever the number of parts the work was done in."""

import pytest

from data.shardset import Clip, Index, LeftOut, ShardSet, write_index, write_shard
from stages.engine import JoinedSource, RawSource
from stages.shards import ShardParams, divide

LEFT_OUT = {"a/5": LeftOut("filtered", "align", "no face", "")}
SPLIT_OF = {"a/0": "train", "a/2": "train", "a/4": "train", "a/1": "val", "a/3": "test", "a/5": "test"}


@pytest.fixture
def sources(tmp_path) -> list[JoinedSource]:
    """Six clips in two parts of one shard each, one of them left out upstream."""
    clips = [Clip(f"a/{i}", {"txt": str(i).encode()}) for i in range(5)]
    sets = []
    for number, (of_part, left_out) in enumerate([(clips[:3], LEFT_OUT), (clips[3:], {})]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_index(folder, Index.of([write_shard(folder / f"0000{number}.tar", of_part)], left_out))
        sets.append(JoinedSource([ShardSet(folder)]))
    return sets


def test_each_clip_goes_where_its_list_says(sources, tmp_path):
    divide(sources, SPLIT_OF, tmp_path / "out", ShardParams(clips_per_shard=2))
    sets = {split: ShardSet(tmp_path / "out" / split) for split in ("train", "val", "test")}
    assert {split: list(shards.keys) for split, shards in sets.items()} == {
        "train": ["a/0", "a/2", "a/4"],
        "val": ["a/1"],
        "test": ["a/3"],
    }
    assert [len(shard.keys) for shard in sets["train"].index.shards] == [2, 1]
    assert [clip.members["txt"] for clip in sets["train"].clips()] == [b"0", b"2", b"4"]
    assert (sets["test"].index.clips_in, sets["test"].index.filtered) == (2, 1)


def test_a_clip_that_the_protocol_excludes_is_in_no_set(sources, tmp_path):
    split_of = SPLIT_OF | dict.fromkeys(("a/3", "a/4", "a/5"), "excluded") | {"a/2": "test"}
    divide(sources, split_of, tmp_path / "out", ShardParams(2))
    sets = [ShardSet(tmp_path / "out" / split) for split in ("train", "val", "test")]
    assert [key for shard_set in sets for key in shard_set.keys] == ["a/0", "a/1", "a/2"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_parts_are_disjoint_and_together_the_whole(count):
    clips = [Clip(f"a/{i:02d}", {"json": b"{}"}) for i in range(13)]
    left_out = {"a/99": LeftOut("filtered", "clips", "damaged", "")}
    whole = RawSource(clips, 3, left_out)
    parts = [RawSource(clips, 3, left_out, (number, count)) for number in range(count)]
    assert [(shard.name, shard.sha256()) for part in parts for shard in part.shards] == [
        (shard.name, shard.sha256()) for shard in whole.shards
    ]
    assert [part.left_out for part in parts if part.left_out] == [left_out]
