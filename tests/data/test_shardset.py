"""A shard set gives back what was written, the same bytes every time, and never a damaged clip."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data.shardset import (
    Clip,
    DamagedShard,
    Index,
    LeftOut,
    ShardSet,
    json_bytes,
    json_object,
    npy_array,
    npy_bytes,
    write_index,
    write_shard,
)

CLIPS = [
    Clip(key, {"mp4": key.encode() * 100, "mask.npy": npy_bytes(np.full((3, 4), number, np.int16))})
    for number, key in enumerate(["s1/bbaf2n", "s1/bbaf3s", "s10/lwbz9s", "s2/bbal6n"])
]
LEFT_OUT = {
    "s1/dark": LeftOut("filtered", "align", "no face", "in 12 of 75 frames"),
    "s2/torn": LeftOut("failed", "align", "InvalidDataError", "truncated"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four clips in two shards; two clips left out."""
    shards = [write_shard(tmp_path / f"0000{n}.tar", CLIPS[2 * n : 2 * n + 2]) for n in range(2)]
    write_index(tmp_path, Index.of(shards, LEFT_OUT))
    return tmp_path


def rewrite_index(folder: Path, **changes: object) -> None:
    path = folder / "index.json"
    path.write_bytes(json_bytes(json_object(path.read_bytes()) | changes))


def test_gives_back_what_was_written(folder):
    shard_set = ShardSet(folder)
    assert list(shard_set.clips()) == CLIPS
    assert shard_set.keys == tuple(clip.key for clip in CLIPS)
    assert shard_set.index.columns == ("mask.npy", "mp4")
    assert shard_set.index.left_out == LEFT_OUT
    assert shard_set.index.counts() == {"in": 6, "out": 4, "filtered": 1, "failed": 1}
    shard_set.verify()


def test_webdataset_reads_the_same_clips(folder):
    samples = webdataset.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False)
    assert [Clip(s["__key__"], {c: s[c] for c in ("mp4", "mask.npy")}) for s in samples] == CLIPS


def test_webdataset_would_write_the_same_bytes(folder, tmp_path):
    with webdataset.TarWriter(str(tmp_path / "theirs"), user="", group="", mtime=0, encoder=False) as tar:
        for clip in CLIPS[:2]:
            tar.write({"__key__": clip.key, **clip.members})
    assert (tmp_path / "theirs").read_bytes() == (folder / "00000.tar").read_bytes()


def test_same_bytes_on_another_day_under_another_umask(folder, tmp_path_factory, monkeypatch):
    again = tmp_path_factory.mktemp("again") / "00000.tar"
    a_year_later = time.time() + 365 * 86400
    monkeypatch.setattr(time, "time", lambda: a_year_later)
    before = os.umask(0o077)
    try:
        entry = write_shard(again, CLIPS[:2])
    finally:
        os.umask(before)
    assert again.read_bytes() == (folder / "00000.tar").read_bytes()
    assert entry == ShardSet(folder).index.shards[0]


def test_every_truncation_is_found_and_named(folder):
    whole = (folder / "00001.tar").read_bytes()
    for size in range(0, len(whole), 512):
        (folder / "00001.tar").write_bytes(whole[:size])
        given = []
        with pytest.raises(DamagedShard, match=r"00001\.tar is \d+ bytes long.*s(10/lwbz9s|2/bbal6n).*Next step"):
            for clip in ShardSet(folder).clips():
                given.append(clip)
        assert given == CLIPS[:2], "the shard before it is given, nothing of the damaged one"


def test_truncation_names_the_first_clip_that_is_lost(folder):
    path = folder / "00001.tar"
    offset_of_second = path.read_bytes().index(b"s2/bbal6n.mask.npy")
    os.truncate(path, offset_of_second + 512)
    with pytest.raises(DamagedShard, match="s2/bbal6n and what follows it are lost"):
        ShardSet(folder).verify()


@pytest.mark.parametrize("position", [0, 300, 600, 2000, -1])
def test_one_flipped_bit_is_found(folder, position):
    content = bytearray((folder / "00000.tar").read_bytes())
    content[position] ^= 1
    (folder / "00000.tar").write_bytes(content)
    with pytest.raises(DamagedShard, match=r"00000\.tar has other bytes.*s1/bbaf2n"):
        next(ShardSet(folder).clips())


def test_extra_bytes_are_found(folder):
    with open(folder / "00000.tar", "ab") as file:
        file.write(bytes(512))
    with pytest.raises(DamagedShard, match=r"00000\.tar is 10752 bytes long, not 10240"):
        next(ShardSet(folder).clips())


def test_missing_and_unlisted_shards_are_found(folder):
    os.rename(folder / "00001.tar", folder / "00002.tar")
    with pytest.raises(DamagedShard, match=r"00001\.tar is missing"):
        ShardSet(folder)
    (folder / "00001.tar").write_bytes((folder / "00002.tar").read_bytes())
    with pytest.raises(DamagedShard, match=r"00002\.tar is not in the index"):
        ShardSet(folder)


def test_another_clip_than_the_index_says_is_found(folder):
    entry = write_shard(folder / "00000.tar", [replace(CLIPS[0], key="s1/aaaaaa"), CLIPS[1]])
    first, second = json_object((folder / "index.json").read_bytes())["shards"]
    rewrite_index(folder, shards=[first | {"bytes": entry.bytes, "sha256": entry.sha256}, second])
    with pytest.raises(DamagedShard, match=r"s1/aaaaaa\.mask\.npy where the index has s1/bbaf2n"):
        next(ShardSet(folder).clips())


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": {"in": 7, "out": 4, "filtered": 1, "failed": 1}},
        {"counts": {"in": 6, "out": 4, "filtered": 2, "failed": 0}},
        {"left_out": {}},
        {"shards": []},
        {"columns": ["mp4"]},
        {"left_out": {CLIPS[0].key: {"state": "failed", "stage": "align", "reason": "twice", "detail": ""}}},
    ],
)
def test_an_index_that_contradicts_itself_is_refused(folder, changes):
    rewrite_index(folder, **changes)
    with pytest.raises(DamagedShard, match=r"index\.json cannot be used"):
        ShardSet(folder)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"columns": ['])
def test_a_folder_without_a_whole_index_is_no_shard_set(folder, content):
    (folder / "index.json").unlink()
    if content is not None:
        (folder / "index.json").write_bytes(content)
    with pytest.raises(DamagedShard, match=r"index\.json cannot be used"):
        ShardSet(folder)


UNSAFE_KEYS = ["/s1/a", "../a", "s1/..", "s1/a.b", "s1\\a", "s1/a\n", "__s1__/a", "s1", "s1/", "s1/a/b", "s1/é", ""]


@pytest.mark.parametrize("key", UNSAFE_KEYS)
def test_unsafe_keys_are_refused_on_writing(key):
    with pytest.raises(ValueError, match="unsafe clip key"):
        Clip(key, {"mp4": b""})


@pytest.mark.parametrize("key", UNSAFE_KEYS)
def test_unsafe_keys_are_refused_on_reading(folder, key):
    first, second = json_object((folder / "index.json").read_bytes())["shards"]
    rewrite_index(folder, shards=[first | {"keys": [key, first["keys"][1]]}, second])
    with pytest.raises(DamagedShard, match="unsafe clip key"):
        ShardSet(folder)


def test_unsafe_shard_names_are_refused(folder):
    first, second = json_object((folder / "index.json").read_bytes())["shards"]
    rewrite_index(folder, shards=[first | {"name": "../00000.tar"}, second])
    with pytest.raises(DamagedShard, match="unsafe shard name"):
        ShardSet(folder)


@pytest.mark.parametrize("suffix", ["", ".mp4", "../mp4", "MP4", "_meta", "mask..npy", "a/b", "__key__"])
def test_unsafe_suffixes_are_refused(suffix):
    with pytest.raises(ValueError, match="unsafe member suffix"):
        Clip("s1/a", {suffix: b""})


def test_the_longest_names_fit_in_a_tar(tmp_path):
    clip = Clip("s" * 80 + "/" + "n" * 75, {"x" * 24: b"data"})
    write_index(tmp_path, Index.of([write_shard(tmp_path / "00000.tar", [clip])], {}))
    assert list(ShardSet(tmp_path).clips()) == [clip]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="s1/bbaf2n comes after s1/bbaf3s"):
        write_shard(tmp_path / "00000.tar", [CLIPS[1], CLIPS[0]])
    with pytest.raises(ValueError, match="comes after"):
        write_shard(tmp_path / "00000.tar", [CLIPS[0], CLIPS[0]])
    with pytest.raises(ValueError, match=r"s1/bbaf3s has \['mp4'\], not"):
        write_shard(tmp_path / "00000.tar", [CLIPS[0], Clip("s1/bbaf3s", {"mp4": b""})])
    assert list(tmp_path.iterdir()) == []


def test_arrays_keep_shape_type_and_bytes():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert npy_bytes(np.asfortranarray(array)) == npy_bytes(array)
    back = npy_array(npy_bytes(array))
    assert back.dtype == np.float32 and np.array_equal(back, array)
    with pytest.raises(ValueError):
        npy_bytes(np.array([object()]))


def test_json_is_sorted_strict_and_an_object():
    assert json_bytes({"b": 1, "a": "é"}) == json_bytes({"a": "é", "b": 1})
    assert json_object(json_bytes({"a": "é"})) == {"a": "é"}
    with pytest.raises(ValueError):
        json_bytes({"a": float("nan")})
    with pytest.raises(ValueError):
        json_object(b"[1]")
