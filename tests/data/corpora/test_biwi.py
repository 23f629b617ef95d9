"""BIWI in small: from the archives as delivered, and from processed files, to clips."""

import gzip
import io
import pickle
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.corpora import Refused, biwi
from data.corpora.biwi import clips, prepare
from data.corpora.scans import UnusableScans
from data.manifest import Manifest, WrongManifest, manifest, splits
from data.shardset import Clip, json_object
from tests.miniatures.biwi import (
    FACES,
    MISSING,
    POINTS,
    motion,
    obj,
    tar,
    template,
    tgz,
    triangles,
    vl,
    wav,
    write_biwi,
    write_processed,
)

ALL = [f"{sex}{number}" for sex, last in (("F", 8), ("M", 6)) for number in range(1, last + 1)]


def small(points: int = 12, **settings: str) -> Manifest:
    return replace(manifest("biwi"), settings=manifest("biwi").settings | {"vertices": points} | settings)


def found(raw: Path, **settings) -> tuple[dict[str, dict], dict[str, Refused]]:
    all_of_them = list(clips(raw, small(**settings)))
    good = {clip.key: json_object(clip.members["json"]) for clip in all_of_them if isinstance(clip, Clip)}
    bad = {refused.key: refused for refused in all_of_them if isinstance(refused, Refused)}
    assert len(good) + len(bad) == len(all_of_them)
    return good, bad


def test_archives_become_clips_and_what_is_broken_is_named(tmp_path):
    raw = write_biwi(tmp_path)
    prepare(raw)
    good, bad = found(raw, takes="*")
    assert {key: refused.reason for key, refused in bad.items()} == dict.fromkeys(("F2/01", "F3/01", "M1/01"), "frames missing")
    assert "frames, numbered 1 to 20" in bad["F2/01"].detail
    assert sorted(good) == ["F2/e01", "F2/e02", "F2/e33", "F2/e37", "F3/e01", "F3/e33", "F3/e37", "M1/e33", "M1/e37"]
    about = good["M1/e37"]
    assert (about["motion_fps"], about["keep_every"], about["topology"], about["sentence"]) == (25, 1, "biwi", 37)
    assert (about["emotion"], about["gender"], about["stored_as"], about["scaling"]) == (
        "emotional",
        "male",
        "millimetres",
        "metres",
    )
    stored = np.load(about["beside"]["vertices"]["path"])
    assert stored.dtype == np.float32
    assert np.array_equal(stored, motion("M1", "e37", 12, 20).reshape(20, 36))
    assert np.allclose(np.load(about["beside"]["template"]["path"]), template("M1", 12), atol=1e-4)
    assert np.array_equal(np.load(raw / "faces.npy"), triangles(12))
    assert Path(about["path"]).read_bytes() == wav(20 / 25 + 0.02)


def test_the_papers_use_the_emotional_takes_alone(tmp_path):
    raw = write_biwi(tmp_path, speakers=["F2"], broken=False)
    prepare(raw)
    assert sorted(found(raw)[0]) == ["F2/e01", "F2/e02", "F2/e33", "F2/e37"]
    assert sorted(found(raw, takes="*")[0])[0] == "F2/01"


@pytest.mark.parametrize(
    ("setting", "scaling"),
    [("none", "metres"), ("metres", "metres"), ("codetalker", "codetalker"), ("facexhubert", "facexhubert")],
)
def test_the_scaling_is_the_manifest_s(tmp_path, setting, scaling):
    raw = write_biwi(tmp_path, speakers=["F2"], takes=["e01"], broken=False)
    prepare(raw)
    about = found(raw, scaling=setting)[0]["F2/e01"]
    assert (about["stored_as"], about["scaling"]) == ("millimetres", scaling)
    assert ("faces" in about["beside"]) == (scaling == "codetalker")


def test_codetalker_s_files_are_taken_as_they_are(tmp_path):
    raw = write_processed(tmp_path)
    prepare(raw)
    good, bad = found(raw)
    assert not bad
    assert len(good) == 9
    assert {(about["stored_as"], about["scaling"]) for about in good.values()} == {("codetalker", "codetalker")}
    _, bad = found(raw, scaling="metres")
    assert {refused.reason for refused in bad.values()} == {"other scaling"}


def test_facexhubert_s_files_are_known_by_their_extent_and_their_numbers(tmp_path):
    for name in ("vertices_npy", "wav"):
        (tmp_path / name).mkdir()
    neutral = template("F2", 12)
    middle, extent = neutral.mean(axis=0), np.ptp(neutral, axis=0)
    for number, take in (("01", "01"), ("41", "e01"), ("80", "e40")):
        np.save(tmp_path / "vertices_npy" / f"F2_{number}.npy", ((motion("F2", take, 12, 20) - middle) / extent).reshape(20, -1))
        (tmp_path / "wav" / f"F2_{number}.wav").write_bytes(wav(0.8))
    (tmp_path / "templates.pkl").write_bytes(pickle.dumps({"F2": (neutral - middle) / extent}))
    prepare(tmp_path)
    good, _ = found(tmp_path, takes="*")
    assert {key: (about["scaling"], about["emotion"], about["sentence"]) for key, about in good.items()} == {
        "F2/01": ("facexhubert", "neutral", 1),
        "F2/e01": ("facexhubert", "emotional", 1),
        "F2/e40": ("facexhubert", "emotional", 40),
    }


def test_a_scaling_that_nobody_knows_is_refused(tmp_path):
    raw = write_processed(tmp_path, speakers=["F2"], takes=["e01"])
    (raw / "templates.pkl").write_bytes(pickle.dumps({"F2": 7 * np.ones((12, 1)) * [1.0, 2, 3]}))
    prepare(raw)
    assert found(raw)[1]["F2/e01"].reason == "unknown scaling"
    with pytest.raises(WrongManifest, match="scaling"):
        found(raw, scaling="furlongs")


def archive_with(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return info, data


def frames(take: str = "e01", count: int = 3, points: int = 12) -> dict[str, bytes]:
    return {f"frame_{i:03d}.vl": vl(frame) for i, frame in enumerate(motion("F2", take, points, count), start=1)}


HOSTILE = {
    "a link for a take": (member("faces/F2/e01.tar", kind=tarfile.SYMTYPE), "unsafe file in an archive"),
    "a hard link for a sound": (member("audio/F2_e01_cut.wav", kind=tarfile.LNKTYPE), "unsafe file in an archive"),
    "a device for a take": (member("faces/F2/e01.tar", kind=tarfile.CHRTYPE), "unsafe file in an archive"),
    "a take that climbs out": (member("../../faces/F2/e01.tar", tar(frames())), "unsafe file in an archive"),
    "a take at the root": (member("/faces/F2/e01.tar", tar(frames())), "unsafe file in an archive"),
    "frames that climb out": (
        member("faces/F2/e01.tar", tar({f"../../{name}": data for name, data in frames().items()})),
        "unsafe file in an archive",
    ),
    "a take that is no tar": (member("faces/F2/e01.tar", b"x" * 2000), "unreadable frames"),
    "an empty take": (member("faces/F2/e01.tar", tar({})), "no motion"),
    "a frame that claims many vertices": (
        member("faces/F2/e01.tar", tar({"frame_001.vl": b"\xff\xff\xff\xff" + b"0" * 144})),
        "unreadable frames",
    ),
    "a frame too large": (member("faces/F2/e01.tar", tar({"frame_001.vl": bytes((1 << 20) + 1)})), "too large a file"),
    "frames of two meshes": (
        member("faces/F2/e01.tar", tar(frames() | {"frame_002.vl": vl(np.zeros((13, 3)))})),
        "wrong number of vertices",
    ),
    "a frame twice": (member("faces/F2/e01.tar", tar(frames() | {"again_003.vl": vl(np.zeros((12, 3)))})), "too many frames"),
    "a frame that is no number": (
        member("faces/F2/e01.tar", tar(frames() | {"frame_002.vl": vl(np.full((12, 3), np.nan))})),
        "motion that is not finite",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_members_are_refused_by_name_and_the_rest_goes_on(tmp_path, what):
    raw = tmp_path / "raw"
    raw.mkdir()
    bad, reason = HOSTILE[what]
    good = member("faces/F2/e02.tar", tar(frames("e02")))
    (raw / "faces01.tgz").write_bytes(archive_with(bad, good, member("faces/F2/new\nline.tar", b"x")))
    rest = {"audio/F2_e02_cut.wav": wav(0.12), "rigid_scans/F2.obj": obj(template("F2", 12), triangles(12))}
    (raw / "rest.tgz").write_bytes(tgz(rest))
    prepare(raw)
    clips_found, refused = found(raw)
    assert list(clips_found) == ["F2/e02"]
    assert refused["F2/e01"].reason == reason
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}


def test_frames_may_stand_in_the_archive_itself(tmp_path):
    members = {f"faces/F2/{take}/{name}": data for take in ("e01", "e02") for name, data in frames(take).items()}
    members["faces/F2/e01/._frame_001.vl"] = b"left by a Mac"
    members["faces/F2.obj"] = obj(template("F2", 12), triangles(12))
    (tmp_path / "faces01.tgz").write_bytes(tgz(members))
    (tmp_path / "rest.tgz").write_bytes(tgz({f"audio/F2_{take}_cut.wav": wav(0.12) for take in ("e01", "e02")}))
    prepare(tmp_path)
    assert sorted(found(tmp_path)[0]) == ["F2/e01", "F2/e02"]


def test_a_truncated_archive_never_passes_for_a_whole_one(tmp_path):
    whole = write_biwi(tmp_path / "whole", speakers=["F2"], takes=["e01", "e02"], broken=False)
    data = (whole / "faces01.tgz").read_bytes()
    for end in np.linspace(1, len(data) - 1, 40).astype(int):
        raw = tmp_path / f"cut{end}"
        raw.mkdir()
        (raw / "faces01.tgz").write_bytes(data[:end])
        with pytest.raises(UnusableScans, match=r"faces01\.tgz is damaged after"):
            prepare(raw)
        assert not any(path.suffix == ".tmp" for path in raw.rglob("*"))
    (raw / "faces01.tgz").write_bytes(data)  # the whole copy that the message asks for
    (raw / "rest.tgz").write_bytes((whole / "rest.tgz").read_bytes())
    prepare(raw)
    assert sorted(found(raw)[0]) == ["F2/e01", "F2/e02"]


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(biwi, "MOST_UNPACKED", (100, 1 << 20))
    (tmp_path / "faces01.tgz").write_bytes(tgz({f"junk{i}": bytes(1 << 20) for i in range(8)}))
    with pytest.raises(UnusableScans, match="unpacks to more than"):
        prepare(tmp_path)


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    raw = write_biwi(tmp_path, speakers=["F2"], broken=False)
    made: list[Path] = []
    write_array = biwi.write_array

    def dying(path: Path, array: np.ndarray) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        write_array(path, array)

    with monkeypatch.context() as patch:
        patch.setattr(biwi, "write_array", dying)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw)
    times = {path: path.stat().st_mtime_ns for path in made}
    prepare(raw)
    assert {path: path.stat().st_mtime_ns for path in made} == times
    assert len(found(raw, takes="*")[0]) == 5


def test_the_split_is_the_papers():
    missing = {"F1_e20", "F3_e02", "F3_e03", "M2_e20", *(f"M1_e{number:02d}" for number in range(1, 21))}  # CodeTalker issue 63
    assert set(MISSING) <= missing
    takes = [f"{emotion}{number:02d}" for emotion in ("", "e") for number in range(1, 41)]
    keys = [f"{speaker}/{take}" for speaker in ALL for take in takes if f"{speaker}_{take}" not in missing]
    assert sum("/e" in key for key in keys) == 536  # as CodeTalker issue 20 counts
    split_of = splits("biwi").divide([(key, 1.0) for key in keys])
    assert Counter(split for split in split_of.values() if split != "excluded") == {"train": 190, "val": 24, "test": 56}
    seen = {key.partition("/")[0] for key, split in split_of.items() if split == "train"}
    assert sum(split == "test" and key.partition("/")[0] in seen for key, split in split_of.items()) == 24
    assert all("/e" in key for key, split in split_of.items() if split != "excluded")


def test_a_miniature_of_full_size_is_biwi_s(tmp_path):
    raw = write_biwi(tmp_path, speakers=["F2"], takes=["e01"], points=POINTS, frames=3, broken=False)
    prepare(raw)
    good, _ = found(raw, points=23_370, scaling="codetalker")
    assert np.load(good["F2/e01"]["beside"]["vertices"]["path"]).shape == (3, 70_110)
    assert np.load(raw / "faces.npy").shape == (FACES, 3) == (46_068, 3)
    assert len(vl(template("F2", POINTS))) == 280_444
