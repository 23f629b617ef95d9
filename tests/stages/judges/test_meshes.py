"""What a mesh system makes is scored beside motions that need no training, and shown beside the real one."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest

from data.media.audio import wav_bytes
from data.media.mesh import CODETALKER
from data.shardset import Clip, json_bytes, npy_array, npy_bytes
from stages.evaluate import mean_row
from stages.judges import meshes
from stages.rendering import RenderParams
from tests.faces import face, talk

FRAMES, FPS, RATE = 20, 25, 16_000
NOWHERE = Path("nowhere")  # MediaPipe's tables are not in the corpus's folder
RENDER = RenderParams(seam=0, mesh_size=128, crf=23, sheet_columns=4)


def clip(name: str, seed: int, **about: object) -> Clip:
    """A mouth that opens up to 15 mm where the sound is loud."""
    random = np.random.default_rng(seed)
    loudness_T = np.convolve(random.uniform(size=FRAMES + 4), np.ones(5) / 5, "valid")
    mel_M = np.repeat(-60 + 50 * loudness_T, 2)
    mel_MB = mel_M[:, None] + random.normal(scale=0.5, size=(2 * FRAMES, 256))
    sound = 0.3 * np.interp(np.arange(FRAMES * RATE // FPS) / RATE * FPS, np.arange(FRAMES), loudness_T)
    members = {
        "json": json_bytes({"fps": FPS, "frames": FRAMES, **about}),
        "wav": wav_bytes((sound * np.sin(np.arange(len(sound)) * 0.1)).astype(np.float32), RATE),
        "mel.npy": npy_bytes(mel_MB.astype(np.float32)),
        "vertices.npy": npy_bytes(talk(0.015 * loudness_T)),
        "template.npy": npy_bytes(face()),
    }
    return Clip(f"anna/{name}", members)


def real(one: Clip) -> np.ndarray:
    return npy_array(one.members["vertices.npy"])


@pytest.fixture(scope="module")
def held_out() -> list[Clip]:
    return [clip("a", 10), clip("b", 11)]


@pytest.fixture(scope="module")
def baselines(held_out) -> dict[str, dict]:
    made = meshes.baselines(held_out, [clip(str(seed), seed) for seed in range(4)])
    return {
        name: mean_row([meshes.scores(*pair, NOWHERE) for pair in zip(held_out, fakes, strict=True)])
        for name, fakes in made.items()
    }


def test_each_baseline_knows_more_than_the_one_before(baselines):
    lve = [baselines[name]["lve"] for name in ("template", "mean_motion", "linear_regression")]
    assert lve[0] > 2 * lve[1] > 4 * lve[2] > 0
    assert baselines["template"]["opening_correlation"] is None
    assert baselines["linear_regression"]["opening_correlation"] > 0.9


def test_a_row_names_the_lips_and_keeps_small_scores(held_out, baselines):
    row = baselines["linear_regression"]
    assert row["regions"] == "mediapipe478-v1"
    assert 0 < row["lve"] < 1e-4  # squared metres, of which four decimals would leave nothing
    exact = np.mean([meshes.scores(one, real(one) + np.float32([0, 0.002, 0]), NOWHERE)["lve"] for one in held_out])
    assert mean_row([{"lve": float(exact)}])["lve"] == pytest.approx(4e-6, rel=1e-3)


def test_two_noises_differ_in_millimetres_where_there_are_any(held_out):
    one = held_out[0]
    assert meshes.difference(one, real(one), real(one) + np.float32([0.003, 0, 0.004])) == pytest.approx(5, rel=1e-3)
    unitless = clip("c", 1, scaling=CODETALKER)
    assert meshes.difference(unitless, real(one), real(one) + np.float32([0.003, 0, 0.004])) == pytest.approx(5e-3, rel=1e-3)


def test_what_the_report_says_follows_from_the_scores(held_out, baselines):
    perfect = mean_row([meshes.scores(one, real(one), NOWHERE) for one in held_out])
    told = meshes.told({"own": perfect, "baselines": baselines})
    assert "LVE is 0.00 of template's" in told
    assert "opens with the real one by r = 1.00" in told
    still = meshes.told({"own": baselines["template"], "baselines": baselines})
    assert "1.00 of template's" in still
    assert "r =" not in still  # a mouth that never moves correlates with nothing


def test_the_film_shows_real_and_generated_with_the_sound(held_out):
    one = held_out[0]
    film, sheet = meshes.film(one, np.repeat(face()[None], FRAMES, axis=0), NOWHERE, RENDER)
    with av.open(io.BytesIO(film)) as opened:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in opened.decode(video=0)]
    with av.open(io.BytesIO(film)) as opened:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in opened.decode(audio=0)])
    assert len(frames) == FRAMES
    assert abs(len(sound) / RATE - FRAMES / FPS) < 0.1
    assert np.abs(sound).max() > 0.02
    left, middle, right = np.split(frames[FRAMES // 2][:128], 3, axis=1)
    assert np.abs(left - middle)[:40].mean() < 2  # the brow is still in both
    assert np.abs(left - middle)[64:].max() > 60  # one mouth is open
    assert np.abs(right - middle)[64:].max() > 60  # where it is wrong it has another colour
    assert sheet.size[0] == 4 * 64


def test_the_samplers_sheet_has_a_row_for_each(held_out):
    motions = {name: [real(one) for one in held_out] for name in ("ddim 2", "ddim 50")}
    three = meshes.sheet(held_out, motions, NOWHERE).size[1]
    one = meshes.sheet(held_out, {"ddim 2": motions["ddim 2"]}, NOWHERE).size[1]
    assert three * 2 == one * 3


def test_the_scores_can_be_kept_as_json(baselines):
    assert json.loads(json.dumps(baselines)) == baselines
