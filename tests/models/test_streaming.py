"""Shards through webdataset: the same clips as the contract's own reader, checked, divided over ranks, from any step on."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from data.shardset import Clip, DamagedShard, Index, ShardSet, write_index, write_shard
from models.streaming import DrawnExamples, Share, endless_clips, endless_order, spread, stream, training_loader


@pytest.fixture
def shards(tmp_path) -> ShardSet:
    clips = [Clip(f"a/{i}", {"mel.npy": bytes([i] * 99), "mp4": b"film", "json": b"{}"}) for i in range(6)]
    entries = [write_shard(tmp_path / f"{n:05d}.tar", clips[2 * n : 2 * n + 2]) for n in range(3)]
    write_index(tmp_path, Index.of(entries, {}))
    return ShardSet(tmp_path)


class Numbers(DrawnExamples[int, torch.Tensor]):
    """A clip's example is its number, and one that is drawn; clip i has i + 1 examples, but 3 has none."""

    def decode(self, clip: Clip) -> int:
        return clip.members["mel.npy"][0]

    def count(self, clip: int) -> int:
        return 0 if clip == 3 else clip + 1

    def draw(self, clip: int, random: np.random.Generator) -> torch.Tensor:
        return torch.tensor([clip, int(random.integers(1000))])


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
    orders = [endless_order(shards, 0, Share(rank, ranks)) for rank in range(ranks)]
    for _ in range(4):
        shares = [list(islice(orders[rank], max(1, 3 // ranks + (rank < 3 % ranks)))) for rank in range(ranks)]
        names = [entry.name for share in shares for entry in share]
        assert set(names) == {"00000.tar", "00001.tar", "00002.tar"}
        assert ranks > 3 or len(names) == 3


def test_the_order_changes_from_round_to_round(shards):
    order = endless_order(shards, 0, Share(0, 1))
    rounds = {tuple(entry.name for entry in islice(order, 3)) for _ in range(8)}
    assert len(rounds) > 1


@pytest.mark.parametrize("first", [0, 1, 2, 7, 23])
def test_clips_are_read_from_any_one_on(shards, first):
    clips = endless_clips(shards, 0, Share(0, 2), 0)
    expected = [clip.key for clip in islice(clips, first, first + 5)]
    assert [clip.key for clip in islice(endless_clips(shards, 0, Share(0, 2), first), 5)] == expected


def test_examples_are_as_likely_as_each_other(shards):
    seen = Counter(int(number) for number, _ in islice(Numbers(shards.path, 0, 8, 4), 6000))
    assert 3 not in seen and len(seen) == 5
    assert all(abs(seen[clip] - 6000 * (clip + 1) / 17) < 130 for clip in seen)


def test_all_come_when_few_are_in_memory(shards):
    assert {int(number) for number, _ in islice(Numbers(shards.path, 0, 2, 4), 200)} == {0, 1, 2, 4, 5}


@pytest.mark.parametrize("buffer_clips, workers, step", [(2, 0, 1), (2, 0, 11), (8, 0, 4), (2, 3, 4), (8, 2, 11)])
def test_batches_from_a_step_on_are_those_that_would_have_come(shards, buffer_clips, workers, step):
    def batches(step, count):
        return list(islice(training_loader(Numbers(shards.path, 0, buffer_clips, 5), 4, workers, step), count))

    undisturbed, resumed = batches(0, step + 6), batches(step, 6)
    assert all(map(torch.equal, undisturbed[step:], resumed))
    assert not torch.equal(undisturbed[0], undisturbed[1])


def test_ranks_and_loader_processes_draw_what_no_other_draws(shards, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    drawn = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        drawn += [batch.tolist() for batch in islice(training_loader(Numbers(shards.path, 0, 8, 5), 4, 2, 0), 2)]
    assert len({str(batch) for batch in drawn}) == 4


def test_what_was_drawn_before_is_not_read_again(tmp_path):
    """Shards that are gone by are damaged, as nobody would see who does not look at them."""
    entries = [
        write_shard(tmp_path / f"{n:05d}.tar", [Clip(f"a/{n:02d}", {"mel.npy": bytes([10 + n]), "mp4": b"film"})])
        for n in range(30)
    ]
    write_index(tmp_path, Index.of(entries, {}))
    order = [entry.name for entry in islice(endless_order(ShardSet(tmp_path), 0, Share(0, 1)), 30)]
    expected = list(islice(Numbers(tmp_path, 0, 3, 2), 24, 34))
    for name in order[:12]:
        (tmp_path / name).write_bytes(b"damaged")
    assert all(map(torch.equal, islice(training_loader(Numbers(tmp_path, 0, 3, 2), None, 0, 24), 10), expected))
    with pytest.raises(DamagedShard):
        next(iter(training_loader(Numbers(tmp_path, 0, 3, 2), None, 0, 22)))


def test_clips_without_examples_are_an_error(shards):
    class Empty(Numbers):
        def count(self, clip: int) -> int:
            return 0

    with pytest.raises(ValueError, match=r"none of 6 clips of .* has frames enough"):
        next(iter(Empty(shards.path, 0, 8, 1)))


def test_frames_spread():
    assert spread(range(9), 3) == [0, 4, 8] and spread(range(1, 3), 5) == [1, 2]
    assert spread(range(5), 1) == [0] and spread(range(1, 1), 4) == []
