"""VOCASET in small: from the native pickles, and from FaceFormer's files, to clips."""

import json
import os
import pickle
import shutil
import wave
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.corpora import Refused, scans
from data.corpora.scans import UnusableScans
from data.corpora.vocaset import clips, prepare
from data.manifest import Manifest, manifest, splits
from data.shardset import Clip, json_object
from data.unpickle import UnsafePickle
from tests.miniatures.vocaset import POINTS, SPEAKERS, WITHOUT_MOTION, write_processed, write_vocaset, zip_vocaset

FEW = SPEAKERS[2:5]  # with one that lacks a sentence


def small(points: int = 12) -> Manifest:
    return replace(manifest("vocaset"), settings={"vertices": points})


def found(raw: Path, points: int = 12) -> tuple[dict[str, dict], dict[str, Refused]]:
    all_of_them = list(clips(raw, small(points)))
    good = {clip.key: json_object(clip.members["json"]) for clip in all_of_them if isinstance(clip, Clip)}
    bad = {refused.key: refused for refused in all_of_them if isinstance(refused, Refused)}
    assert len(good) + len(bad) == len(all_of_them)
    return good, bad


def files_of(raw: Path) -> dict[str, bytes]:
    return {str(path.relative_to(raw)): path.read_bytes() for path in sorted(raw.rglob("*")) if path.is_file()}


def test_native_files_become_clips_and_what_is_broken_is_named(tmp_path):
    raw = write_vocaset(tmp_path / "raw", FEW, sentences=(1, 21, 24))
    prepare(raw)
    good, bad = found(raw)
    assert {key: refused.reason for key, refused in bad.items()} == {
        "FaceTalk_170725_00137_TA/sentence21": "row out of range",
        "FaceTalk_170811_03274_TA/sentence24": "no motion",
    }
    assert len(good) == 3 * 3 - 2
    about = good["FaceTalk_170915_00223_TA/sentence24"]
    assert (about["motion_fps"], about["keep_every"], about["scaling"], about["topology"]) == (60, 2, "metres", "flame")
    assert (about["sentence"], about["speaker"]) == (24, "FaceTalk_170915_00223_TA")

    index = pickle.loads((raw / "subj_seq_to_idx.pkl").read_bytes(), encoding="latin1")
    sounds = pickle.loads((raw / "raw_audio_fixed.pkl").read_bytes(), encoding="latin1")
    templates = pickle.loads((raw / "templates.pkl").read_bytes(), encoding="latin1")
    rows = [index["FaceTalk_170915_00223_TA"]["sentence24"][frame] for frame in range(44)]
    motion = np.load(about["beside"]["vertices"]["path"])
    assert motion.dtype == np.float32
    assert np.array_equal(motion, np.load(raw / "data_verts.npy")[rows].reshape(44, 36))
    template = np.load(about["beside"]["template"]["path"])
    assert np.array_equal(template, templates["FaceTalk_170915_00223_TA"].astype(np.float32))
    with wave.open(about["path"]) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (22_000, 1, 2)
        sound = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)
    assert np.array_equal(sound, sounds["FaceTalk_170915_00223_TA"]["sentence24"]["audio"])


@pytest.mark.parametrize(
    ("what", "reason"),
    [("row", "row out of range"), ("sound", "no sound"), ("nan", "motion that is not finite"), ("gap", "frames missing")],
)
def test_a_broken_sentence_costs_itself_alone(tmp_path, what, reason):
    raw = write_vocaset(tmp_path, FEW, sentences=(1, 2), broken={(FEW[0], "sentence01"): what})
    prepare(raw)
    good, bad = found(raw)
    assert {key: refused.reason for key, refused in bad.items()} == {f"{FEW[0]}/sentence01": reason}
    assert len(good) == 5


def test_rows_given_out_many_times_fill_no_disk(tmp_path):
    raw = write_vocaset(tmp_path, FEW, sentences=(1,), broken={})
    index = pickle.loads((raw / "subj_seq_to_idx.pkl").read_bytes(), encoding="latin1")
    for number in range(100):
        index[FEW[0]][f"sentence{number:02d}"] = index[FEW[0]]["sentence01"]
    (raw / "subj_seq_to_idx.pkl").write_bytes(pickle.dumps(index))
    prepare(raw)
    assert len(list((raw / "vertices_npy").iterdir())) <= 3
    assert Counter(refused.reason for refused in found(raw)[1].values())["rows given twice"] > 90


def test_names_that_lead_elsewhere_are_refused(tmp_path):
    raw = write_vocaset(tmp_path / "raw", FEW[:1], sentences=(1,), broken={})
    for name in ("subj_seq_to_idx", "raw_audio_fixed"):
        value = pickle.loads((raw / f"{name}.pkl").read_bytes(), encoding="latin1")
        value["../../out"] = {"sentence01": value[FEW[0]]["sentence01"]}
        value[FEW[0]]["../../out\n"] = value[FEW[0]]["sentence01"]
        (raw / f"{name}.pkl").write_bytes(pickle.dumps(value))
    prepare(raw)
    good, bad = found(raw)
    assert list(good) == [f"{FEW[0]}/sentence01"]
    assert [refused.reason for refused in bad.values()] == ["unsafe name", "unsafe name"]
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}


def test_preparing_again_does_nothing_and_a_changed_source_is_prepared_again(tmp_path):
    raw = write_vocaset(tmp_path, FEW, sentences=(1,))
    prepare(raw)
    before = files_of(raw)
    times = {path: path.stat().st_mtime_ns for path in (raw / "vertices_npy").iterdir()}
    prepare(raw)
    assert files_of(raw) == before
    assert {path: path.stat().st_mtime_ns for path in (raw / "vertices_npy").iterdir()} == times
    rows = np.load(raw / "data_verts.npy")
    np.save(raw / "data_verts.npy", rows + np.float32(1))
    prepare(raw)
    name = f"vertices_npy/{FEW[0]}_sentence01.npy"
    assert files_of(raw)[name] != before[name]


def test_a_killed_run_goes_on_and_ends_with_the_same_files(tmp_path, monkeypatch):
    whole = write_vocaset(tmp_path / "whole", FEW, sentences=(1, 2, 3))
    killed = shutil.copytree(whole, tmp_path / "killed")
    prepare(whole)
    made: list[Path] = []

    def dying(path: Path, array: np.ndarray) -> None:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(path)
        scans.write_array(path, array)

    with monkeypatch.context() as patch:
        patch.setattr("data.corpora.vocaset.write_array", dying)
        with pytest.raises(KeyboardInterrupt):
            prepare(killed)
    times = {path: path.stat().st_mtime_ns for path in made}
    prepare(killed)
    assert files_of(killed) == files_of(whole)
    assert {path: path.stat().st_mtime_ns for path in made} == times  # made once


@pytest.mark.parametrize(("keep_every", "fps", "keep"), [(1, 60, 2), (2, 30, 1)])
def test_faceformer_s_files_are_known_at_60_and_at_30_fps(tmp_path, keep_every, fps, keep):
    native = write_vocaset(tmp_path / "native", FEW, sentences=(1, 24))
    raw = write_processed(tmp_path / "raw", native, keep_every)
    prepare(raw)
    good, bad = found(raw)
    assert {(about["motion_fps"], about["keep_every"]) for about in good.values()} == {(fps, keep)}
    assert len(good) == 5
    assert {key: refused.reason for key, refused in bad.items()} == {"FaceTalk_170811_03274_TA/sentence24": "no motion"}


def test_files_by_hand_that_do_not_belong_are_refused(tmp_path):
    native = write_vocaset(tmp_path / "native", FEW, sentences=(1, 2, 3, 4, 5, 6), broken={})
    raw = write_processed(tmp_path / "raw", native)
    who, other = FEW[0], FEW[1]
    (raw / f"vertices_npy/{who}_sentence01.npy").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    np.save(raw / f"vertices_npy/{who}_sentence02.npy", np.zeros((40, 39), np.float32))
    np.save(raw / f"vertices_npy/{who}_sentence03.npy", np.zeros((90, 36), np.float32))
    np.save(raw / f"vertices_npy/{who}_sentence04.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (raw / f"wav/{who}_sentence05.wav").write_bytes(b"RIFF")
    (raw / f"wav/{who}_sentence06.wav").unlink()
    np.save(raw / "vertices_npy/stray.npy", np.zeros((40, 36), np.float32))
    outside = tmp_path / "outside.npy"
    shutil.copy(raw / f"vertices_npy/{other}_sentence01.npy", outside)
    (raw / f"vertices_npy/{other}_sentence01.npy").unlink()
    os.symlink(outside, raw / f"vertices_npy/{other}_sentence01.npy")
    prepare(raw)
    (raw / f"templates/{FEW[2]}.npy").unlink()
    good, bad = found(raw)
    reasons = {key.partition("/")[2] if key.startswith(who) else key: refused.reason for key, refused in bad.items()}
    assert reasons.pop(next(key for key in reasons if "stray" in key)) == "unsafe name"
    assert reasons == {
        "sentence01": "unreadable file",
        "sentence02": "wrong number of vertices",
        "sentence03": "neither 60 nor 30 fps",
        "sentence04": "unreadable file",
        "sentence05": "unreadable file",
        "sentence06": "no sound",
        f"{other}/sentence01": "unsafe file",
    } | {f"{FEW[2]}/sentence0{number}": "no template" for number in range(1, 7)}
    assert len(good) == 5
    assert json.dumps(reasons)


def test_other_vertices_than_the_manifest_s_are_refused(tmp_path):
    raw = write_vocaset(tmp_path, FEW[:1], sentences=(1,))
    prepare(raw)
    good, bad = found(raw, points=POINTS)
    assert not good
    assert [refused.reason for refused in bad.values()] == ["wrong number of vertices"]


def test_a_half_unpacked_archive_says_what_to_do(tmp_path):
    raw = write_vocaset(tmp_path, FEW[:1], sentences=(1,))
    (raw / "raw_audio_fixed.pkl").unlink()
    with pytest.raises(UnusableScans, match=r"lacks raw_audio_fixed\.pkl.*unpack"):
        prepare(raw)


def test_a_cut_off_array_and_a_hostile_pickle_stop_the_preparation_by_name(tmp_path):
    raw = write_vocaset(tmp_path, FEW[:1], sentences=(1,))
    data = (raw / "data_verts.npy").read_bytes()
    (raw / "data_verts.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnusableScans, match=r"data_verts\.npy is damaged"):
        prepare(raw)
    (raw / "data_verts.npy").write_bytes(data)
    (raw / "subj_seq_to_idx.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UnsafePickle, match=r"subj_seq_to_idx\.pkl asks for os\.system"):
        prepare(raw)


def test_the_archive_has_its_files_at_its_top(tmp_path):
    archive = zip_vocaset(write_vocaset(tmp_path / "files", FEW[:1], sentences=(1,)), tmp_path / "trainingdata.zip")
    shutil.unpack_archive(archive, tmp_path / "raw")
    prepare(tmp_path / "raw")
    assert len(found(tmp_path / "raw")[0]) == 1


def test_the_split_is_the_papers(tmp_path):
    everything = {(speaker, f"sentence{number:02d}") for speaker in SPEAKERS for number in range(1, 41)}
    keys = ["/".join(clip) for clip in sorted(everything - set(WITHOUT_MOTION))]
    assert len(keys) == 478
    split_of = splits("vocaset").divide([(key, 1.0) for key in keys])
    counts = Counter(split_of.values())
    assert counts == {"train": 319, "val": 40, "test": 39, "excluded": 80}  # of the 319, FaceFormer has sound for 314
    speakers = {split: {key.partition("/")[0] for key in keys if split_of[key] == split} for split in ("train", "val", "test")}
    assert not speakers["train"] & speakers["val"] | speakers["train"] & speakers["test"] | speakers["val"] & speakers["test"]
    assert list(dict.fromkeys(pattern.partition("/")[0] for pattern in splits("vocaset").lists["train"])) == SPEAKERS[:8]


def test_a_miniature_of_full_size_is_flame_s(tmp_path):
    raw = write_vocaset(tmp_path, FEW[:1], sentences=(1,), points=POINTS, frames=6, broken={})
    prepare(raw)
    good, _ = found(raw, points=5023)
    assert np.load(good[f"{FEW[0]}/sentence01"]["beside"]["vertices"]["path"]).shape == (7, 15_069)
