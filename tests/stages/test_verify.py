"""The report of a corpus balances, names every reason, and fails for what the laboratory broke itself."""

import csv
import json

import pytest
import yaml

from data import manifest as committed
from data.shardset import Clip, DamagedShard, Index, LeftOut, json_bytes, write_index, write_shard
from stages import shards, verify
from stages.catalogue import Catalogue, write_catalogue
from stages.verify import BrokenPromise

LISTS = {"train": ["a/*"], "val": ["b/0", "b/1"], "test": ["b/2", "c/*"], "excluded": ["b/3"]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A corpus of 3 × 4 clips in two parts, of which stages have left some out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(committed, "HERE", tmp_path / "data")
    said = {"about": "tiny", "licence": {"name": "CC0"}, "crop": "face", "sources": []}
    said["expect"] = {"clips": 13, "train": 4, "speakers_apart": True}
    for name, value in (("manifests/tiny.yaml", said), ("splits/tiny.yaml", LISTS)):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(value))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"parts": [0, 1], "shards": {"clips_per_shard": 2}}))

    keys = [f"{speaker}/{i}" for speaker in "abc" for i in range(4)]
    refused = {"c/9": LeftOut("filtered", "clips", "known to be bad", "grey picture")}
    sources = [Clip(key, {"json": json_bytes({"start": 0.0, "end": 2.0})}) for key in keys]
    folder = tmp_path / "data/clips/tiny"
    folder.mkdir(parents=True)
    write_catalogue(folder, Catalogue("face", sources, refused))

    def about(key):
        late = 0.05 if key == "a/1" else -0.02
        return json_bytes({"frames": 50, "fps": 25, "frames_without_face": 5, "sound_length_difference_s": late})

    no_face, profile = (LeftOut("filtered", *why, "") for why in (("align", "no face"), ("masks", "face in profile")))
    for part, of_part, first in ((0, keys[:6], refused), (1, keys[6:], {})):
        aligned = [key for key in of_part if key != "a/3"]
        masked = [key for key in aligned if key not in ("b/0", "c/3")]
        lost = first | ({"a/3": no_face} if part == 0 else {})
        for column, some, member in (("align", aligned, "json"), ("masks", masked, "mask.npy")):
            out = tmp_path / "data" / {"align": "aligned"}.get(column, column) / "tiny" / str(part)
            out.mkdir(parents=True)
            clips = [Clip(key, {member: about(key) if member == "json" else b"0"}) for key in some]
            more = {key: profile for key in aligned if key not in masked} if column == "masks" else {}
            write_index(out, Index.of([write_shard(out / "00000.tar", clips)], lost | more))
        for column in shards.COLUMNS:
            if column not in ("align", "masks"):
                out = tmp_path / "data" / column / "tiny" / str(part)
                out.mkdir(parents=True)
                write_index(out, Index.of([], {}))
    shards.run("tiny")
    return tmp_path


def test_the_totals_balance_and_every_reason_is_named(project):
    verify.run("tiny")
    report = json.loads((project / "data/verified/tiny/report.json").read_bytes())
    assert report["clips"] == 13
    assert report["used"] == {"train": 3, "val": 1, "test": 4}
    assert report["excluded"] == 1
    assert {(row["stage"], row["reason"], row["clips"]) for row in report["left_out"]} == {
        ("clips", "known to be bad", 1),
        ("align", "no face", 1),
        ("masks", "face in profile", 2),
    }
    assert report["clips"] == sum(report["used"].values()) + report["excluded"] + sum(row["clips"] for row in report["left_out"])
    assert report["aligned"]["train"] == {
        **{"clips": 3, "hours": round(6 / 3600, 4), "frames": 150},
        **{"frames_without_face": 15, "speakers": 1},
    }
    assert report["sound_minus_pictures_ms"] == {"least": -20, "median": -20, "most": 50}
    assert report["speakers_in_two_splits"] == ["b"]
    assert {row["what"]: (row["expected"], row["found"]) for row in report["expected"]} == {
        "clips": (13, 13),
        "train": (4, 3),
        "speakers_apart": (True, False),
    }
    with (project / "data/verified/tiny/left_out.csv").open() as file:
        assert sum(int(row["clips"]) for row in csv.DictReader(file)) == 4
    with (project / "data/verified/tiny/seconds.csv").open() as file:
        assert sum(int(row["clips"]) for row in csv.DictReader(file)) == 11


def test_a_clip_lost_without_a_reason_fails(project):
    path = project / "data/clips/tiny/clips.json"
    listed = json.loads(path.read_bytes())
    listed["clips"]["c/5"] = {"start": 0.0, "end": 1.0}
    path.write_bytes(json_bytes(listed))
    with pytest.raises(BrokenPromise, match="1 clips are lost without a reason, as c/5"):
        verify.verify("tiny")


def test_a_clip_in_two_sets_fails(project):
    out = project / "data/shards/tiny/val"
    clip = Clip("a/0", {"json": b"{}", "mask.npy": b"0"})
    (out / "00000.tar").unlink()
    write_index(out, Index.of([write_shard(out / "00000.tar", [clip])], {}))
    with pytest.raises(BrokenPromise, match="accounted for twice, as a/0"):
        verify.verify("tiny")


def test_a_damaged_column_fails_by_name(project):
    shard = project / "data/masks/tiny/1/00000.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    with pytest.raises(DamagedShard, match=r"masks/tiny/1/00000\.tar"):
        verify.verify("tiny")
