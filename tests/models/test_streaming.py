"""Shards through webdataset: the same clips as the contract's own reader, checked, divided over ranks."""

from itertools import islice

import pytest

from data.shardset import Clip, DamagedShard, Index, ShardSet, write_index, write_shard
from models.streaming import endless_order, stream


@pytest.fixture
def shards(tmp_path) -> ShardSet:
    clips = [Clip(f"a/{i}", {"mel.npy": bytes([i] * 99), "mp4": b"film", "json": b"{}"}) for i in range(6)]
    entries = [write_shard(tmp_path / f"{n:05d}.tar", clips[2 * n : 2 * n + 2]) for n in range(3)]
    write_index(tmp_path, Index.of(entries, {}))
    return ShardSet(tmp_path)


def test_webdataset_gives_the_clips_that_were_written(shards):
    assert list(stream(shards, shards.index.shards)) == list(shards.clips())


def test_a_truncated_shard_raises_before_its_first_clip(shards):
    path = shards.path / "00001.tar"
    path.write_bytes(path.read_bytes()[:-1024])
    read = stream(shards, shards.index.shards)
    assert [next(read).key, next(read).key] == ["a/0", "a/1"]
    with pytest.raises(DamagedShard, match=r"00001\.tar"):
        next(read)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_each_time_round_the_ranks_read_every_shard_once(shards, ranks):
    orders = [endless_order(shards, 0, rank, ranks) for rank in range(ranks)]
    for _ in range(4):
        shares = [list(islice(orders[rank], max(1, 3 // ranks + (rank < 3 % ranks)))) for rank in range(ranks)]
        names = [entry.name for share in shares for entry in share]
        assert set(names) == {"00000.tar", "00001.tar", "00002.tar"}
        assert ranks > 3 or len(names) == 3


def test_the_order_changes_from_round_to_round(shards):
    order = endless_order(shards, 0, 0, 1)
    rounds = {tuple(entry.name for entry in islice(order, 3)) for _ in range(8)}
    assert len(rounds) > 1
