"""The division into train, val and test accounts for every clip."""

import pytest

from data.shardset import Clip, Index, LeftOut, ShardSet, write_index, write_shard
from stages.engine import JoinedSource
from stages.shards import NotInSplits, ShardParams, divide


@pytest.fixture
def source(tmp_path) -> JoinedSource:
    """Six clips in two shards, one of them left out upstream."""
    folder = tmp_path / "source"
    folder.mkdir()
    clips = [Clip(f"a/{i}", {"txt": str(i).encode()}) for i in range(5)]
    entries = [write_shard(folder / "00000.tar", clips[:3]), write_shard(folder / "00001.tar", clips[3:])]
    write_index(folder, Index.of(entries, {"a/5": LeftOut("filtered", "align", "no face", "")}))
    return JoinedSource([ShardSet(folder)])


def test_each_clip_goes_where_its_list_says(source, tmp_path):
    splits = {"train": ["a/0", "a/2", "a/4"], "val": ["a/1"], "test": ["a/3", "a/5"]}
    divide(source, splits, tmp_path / "out", ShardParams(clips_per_shard=2))
    sets = {split: ShardSet(tmp_path / "out" / split) for split in splits}
    assert {split: list(shards.keys) for split, shards in sets.items()} == {
        "train": ["a/0", "a/2", "a/4"],
        "val": ["a/1"],
        "test": ["a/3"],
    }
    assert [len(shard.keys) for shard in sets["train"].index.shards] == [2, 1]
    assert [clip.members["txt"] for clip in sets["train"].clips()] == [b"0", b"2", b"4"]
    assert (sets["test"].index.clips_in, sets["test"].index.filtered) == (2, 1)


def test_a_clip_in_no_list_is_an_error_that_names_it(source, tmp_path):
    with pytest.raises(NotInSplits, match=r"a/5 .*data/splits"):
        divide(source, {"train": [f"a/{i}" for i in range(5)]}, tmp_path / "out", ShardParams(2))


def test_a_clip_known_to_be_bad_is_in_no_set(source, tmp_path):
    splits = {"train": ["a/0"], "val": ["a/1"], "test": ["a/2"], "excluded": ["a/3", "a/4", "a/5"]}
    divide(source, splits, tmp_path / "out", ShardParams(2))
    assert {key for split in ("train", "val", "test") for key in ShardSet(tmp_path / "out" / split).keys} == {
        "a/0",
        "a/1",
        "a/2",
    }
