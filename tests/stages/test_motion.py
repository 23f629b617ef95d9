"""Scanned clips to one clock: sound and motion as long as each other, in the scaling that the json names."""

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from data.corpora import biwi, source_clip, vocaset
from data.manifest import manifest
from data.media.audio import wav_samples
from data.media.mesh import read_obj, read_vl, surface
from data.shardset import Clip, Skipped, json_object, npy_array
from stages.motion import MotionParams, align_motion
from tests.miniatures.biwi import motion, template, triangles, vl, write_biwi, write_processed
from tests.miniatures.vocaset import SPEAKERS, write_vocaset

PARAMS = MotionParams(sample_rate=16_000, min_frames=12, max_length_difference_s=0.2)


@pytest.fixture(scope="module")
def voca(tmp_path_factory) -> dict[str, Clip]:
    raw = write_vocaset(tmp_path_factory.mktemp("vocaset"), SPEAKERS[:3], sentences=(1, 21), frames=121)
    vocaset.prepare(raw)
    small = replace(manifest("vocaset"), settings={"vertices": 12})
    return {found.key: found for found in vocaset.clips(raw, small) if isinstance(found, Clip)}


def scanned(folder: Path, frames: np.ndarray, sound: np.ndarray, rate: int, template: np.ndarray, **about) -> Clip:
    """A clip of given vertices and 16-bit samples."""
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes(sound.astype("<i2").tobytes())
    np.save(folder / "vertices.npy", frames)
    np.save(folder / "template.npy", template)
    known = {"motion_fps": 60, "keep_every": 2, "topology": "flame", "stored_as": "metres", "scaling": "metres"} | about
    return source_clip(
        "someone/clip", folder, "sound.wav", beside={"vertices": "vertices.npy", "template": "template.npy"}, **known
    )


def test_a_clip_has_sound_and_motion_of_one_length(voca):
    assert len(voca) == 5
    for clip in voca.values():
        column = align_motion(clip, PARAMS)
        assert not isinstance(column, Skipped), column
        about, vertices = json_object(column["json"]), npy_array(column["vertices.npy"])
        sound, rate = wav_samples(column["wav"])
        assert vertices.shape == (about["frames"], 12, 3)
        assert vertices.dtype == npy_array(column["template.npy"]).dtype == np.float32
        assert npy_array(column["template.npy"]).shape == (12, 3)
        assert (rate, about["fps"], about["vertices"]) == (16_000, 30, 12)
        assert len(sound) == round(about["frames"] * 16_000 / 30)
        assert abs(about["sound_length_difference_s"]) < 0.02
        assert not {"path", "beside"} & set(about)
        assert about["source"] == f"wav/{clip.key.replace('/', '_')}.wav"
        source = json_object(clip.members["json"])
        assert np.array_equal(vertices.reshape(len(vertices), -1), np.load(source["beside"]["vertices"]["path"])[::2])


def test_the_sound_is_the_same_sound_at_16_khz(voca):
    clip = voca[f"{SPEAKERS[0]}/sentence21"]
    sound, _ = wav_samples(align_motion(clip, PARAMS)["wav"])
    with wave.open(json_object(clip.members["json"])["path"]) as file:
        original = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    expected = resample_poly(original, 8, 11)
    length = min(len(sound), len(expected))
    assert np.corrcoef(sound[:length], expected[:length])[0, 1] > 0.99


@pytest.mark.parametrize(("fps", "keep_every"), [(60, 2), (30, 1), (25, 1), (60, 1)])
def test_a_click_stays_on_the_frame_that_moves(tmp_path, fps, keep_every):
    frames, at = np.zeros((4 * fps, 36), np.float32), 3 * fps + 2
    frames[at:, 4] = 1.0
    sound = np.zeros(4 * 22_000)
    sound[at * 22_000 // fps :][:40] = 20_000
    column = align_motion(
        scanned(tmp_path, frames, sound, 22_000, np.zeros((12, 3)), motion_fps=fps, keep_every=keep_every), PARAMS
    )
    moved = int(np.argmax(npy_array(column["vertices.npy"])[:, 1, 1] > 0)) / json_object(column["json"])["fps"]
    heard = int(np.argmax(np.abs(wav_samples(column["wav"])[0]) > 0.1)) / 16_000
    assert moved == pytest.approx(heard, abs=0.002)


@pytest.mark.parametrize("difference", [-0.15, -0.01, 0.15])
def test_the_sound_is_cut_or_padded_to_the_motion(tmp_path, difference):
    sound = 8000 * np.sin(np.arange(round((2 + difference) * 22_000)) / 10)
    column = align_motion(scanned(tmp_path, np.zeros((120, 12, 3)), sound, 22_000, np.zeros((12, 3))), PARAMS)
    samples, _ = wav_samples(column["wav"])
    assert len(samples) == 32_000
    assert json_object(column["json"])["sound_length_difference_s"] == pytest.approx(difference, abs=1e-3)
    silent = round(max(0, -difference) * 16_000)
    assert not samples[32_000 - silent + 20 :].any()
    assert np.abs(samples[31_800 - silent : 32_000 - silent]).max() > 0.2


def bad(what: str, folder: Path) -> Clip:
    frames, sound, neutral = np.zeros((120, 12, 3)), np.ones(44_000), np.zeros((12, 3))
    if what == "sound and motion differ in length":
        sound = sound[:30_000]
    elif what == "too short":
        frames, sound = frames[:20], sound[: 20 * 22_000 // 60]
    elif what == "motion that is not finite":
        frames[10, 3, 1] = np.inf
    elif what == "template of another mesh":
        neutral = np.zeros((13, 3))
    clip = scanned(folder, frames, sound, 22_000, neutral)
    if what == "unreadable file":
        (folder / "vertices.npy").write_bytes(b"\x93NUMPY")
    elif what == "no audio stream":
        (folder / "sound.wav").write_bytes(b"RIFF\x04\0\0\0WAVE")
    return clip


@pytest.mark.parametrize(
    "reason",
    [
        "sound and motion differ in length",
        "too short",
        "motion that is not finite",
        "template of another mesh",
        "unreadable file",
    ],
)
def test_what_cannot_be_used_says_why(tmp_path, reason):
    result = align_motion(bad(reason, tmp_path), PARAMS)
    assert isinstance(result, Skipped)
    assert result.reason == reason


def test_a_file_without_sound_is_skipped(tmp_path):
    result = align_motion(bad("no audio stream", tmp_path), PARAMS)
    assert isinstance(result, Skipped)


def of_biwi(folder: Path, scaling: str) -> dict[str, Clip]:
    biwi.prepare(folder)
    small = replace(manifest("biwi"), settings={"vertices": 12, "scaling": scaling, "takes": "e*"})
    return {found.key: found for found in biwi.clips(folder, small) if isinstance(found, Clip)}


def test_metres_are_a_thousand_millimetres_the_right_way_up(tmp_path):
    clip = of_biwi(write_biwi(tmp_path, ["F2"], ["e01"], broken=False), "none")["F2/e01"]
    column = align_motion(clip, PARAMS)
    expected = motion("F2", "e01", 12, 20) * [0.001, -0.001, -0.001]
    assert np.allclose(npy_array(column["vertices.npy"]), expected, atol=1e-6)
    assert np.allclose(npy_array(column["template.npy"]), template("F2", 12) * [0.001, -0.001, -0.001], atol=1e-6)
    assert json_object(column["json"])["scaling"] == "metres"
    assert json_object(column["json"])["fps"] == 25


def test_codetalker_s_scaling_gives_codetalker_s_files(tmp_path):
    # An oracle of its own: the miniature's processed form goes by rotation matrix and Heron's formula.
    ours = of_biwi(write_biwi(tmp_path / "archives", ["F2"], ["e01"], broken=False), "codetalker")["F2/e01"]
    theirs = of_biwi(write_processed(tmp_path / "processed", ["F2"], ["e01"]), "none")["F2/e01"]
    columns = [align_motion(clip, PARAMS) for clip in (ours, theirs)]
    for member in ("vertices.npy", "template.npy"):
        first, second = (npy_array(column[member]) for column in columns)
        assert np.allclose(first, second, atol=2e-6)
    assert np.allclose(npy_array(columns[0]["vertices.npy"]).mean(axis=1), 0, atol=1e-6)
    assert surface(npy_array(columns[0]["vertices.npy"])[7], triangles(12)) == pytest.approx(1, abs=1e-5)
    assert [json_object(column["json"])["scaling"] for column in columns] == ["codetalker", "codetalker"]


def test_facexhubert_s_scaling_is_the_template_s_extent(tmp_path):
    clip = of_biwi(write_biwi(tmp_path, ["F2"], ["e01"], broken=False), "facexhubert")["F2/e01"]
    column = align_motion(clip, PARAMS)
    neutral = npy_array(column["template.npy"])
    assert np.allclose(neutral.max(axis=0) - neutral.min(axis=0), 1, atol=1e-5)
    assert np.allclose(neutral.mean(axis=0), 0, atol=1e-5)
    original = template("F2", 12)
    for axis in range(3):
        column_axis = original[:, axis]
        expected = (motion("F2", "e01", 12, 20)[..., axis] - column_axis.mean()) / (column_axis.max() - column_axis.min())
        assert np.allclose(npy_array(column["vertices.npy"])[..., axis], expected, atol=1e-5)


def test_vl_frames_are_read_with_either_width_of_their_count():
    vertices = template("F2", 12).astype(np.float32)
    assert np.array_equal(read_vl(vl(vertices)), vertices)
    assert np.array_equal(read_vl(np.uint64(12).tobytes() + vertices.tobytes()), vertices)
    for damaged in (b"", vl(vertices)[:-1], vl(vertices) + b"\0", b"\xff" * 100):
        with pytest.raises(ValueError, match=r"no \.vl frame"):
            read_vl(damaged)


def test_obj_files_are_read_with_polygons_and_texture_coordinates():
    data = b"# a face\nv 0 0 0\nv 1 0 0 1.0\nv 1 1 0\nvn 0 0 1\nv 0 1 0\nf 1/1/1 2//1 3 4\n"
    vertices, faces = read_obj(data)
    assert np.array_equal(vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert np.array_equal(faces, [[0, 1, 2], [0, 2, 3]])
    assert surface(vertices, faces) == pytest.approx(1)
    for damaged in (b"", b"v 1 2\n", b"v 1 2 x\n", b"v 0 0 nan\n", b"v 0 0 0\nf 1 2 3\n", b"v 0 0 0\nf 0 1 1\n"):
        with pytest.raises(ValueError):
            read_obj(damaged)
