"""Scores of motion, by hand, against torchmetrics and scikit-learn, and by what must follow when a motion is changed."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torchmetrics.functional.multimodal import lip_vertex_error as torchmetrics_lve

from data.media.mesh import CODETALKER, METRES
from data.topology import mediapipe_mesh
from stages.metrics import mesh
from tests.faces import face, talk

LIPS, UPPER = np.array([0, 1]), np.array([2])
REAL = np.array([[(0, 0, 0), (1, 0, 0), (0, 0, 1)], [(0, 0, 0), (1, 0, 0), (0, 0, 3)]], np.float32)
# Off by 5, 2 and 1 in the first frame, and by 4, 3 and 1 in the second.
FAKE = np.array([[(0, 3, 4), (1, 2, 0), (0, 0, 2)], [(4, 0, 0), (1, 0, -3), (0, 0, 2)]], np.float32)
NEUTRAL = np.zeros((3, 3), np.float32)


def test_two_frames_of_three_vertices_by_hand():
    assert mesh.lip_vertex_error(REAL, FAKE, LIPS) == (25 + 16) / 2  # the largest of each frame, then the mean; squared
    assert mesh.largest_lip_error(REAL, FAKE, LIPS) == (5 + 4) / 2
    assert mesh.mean_vertex_error(REAL, FAKE) == pytest.approx((5 + 2 + 1 + 4 + 3 + 1) / 6)
    # |m|² of the third vertex is 1, 9 and 4, 4: their deviations are 4 and 0.
    assert mesh.upper_face_deviation(REAL, FAKE, NEUTRAL, UPPER) == 4
    assert mesh.upper_face_deviation(FAKE, REAL, NEUTRAL, UPPER) == -4


def test_deviation_is_of_squared_norms():
    """Norms 0, 2 and 3, 4: their squares deviate by 2 and 3.5, they themselves by 1 and 0.5, which would be the other sign."""
    real, fake = (np.array([[(0, 0, a)], [(0, 0, b)]], float) for a, b in ((0, 2), (3, 4)))
    assert mesh.upper_face_deviation(real, fake, np.zeros((1, 3)), np.array([0])) == pytest.approx(2 - 3.5)


@pytest.fixture(scope="module")
def motions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real, generated, template: 40 frames of 30 vertices, metres."""
    random = np.random.default_rng(0)
    template = random.normal(0, 0.05, (30, 3))
    real = template + np.cumsum(random.normal(0, 1e-3, (40, 30, 3)), axis=0)
    return real, real + random.normal(0, 2e-3, real.shape), template


def test_lip_vertex_error_is_torchmetrics(motions):
    real, fake, _ = motions
    lips = np.array([3, 7, 8, 20])
    theirs = torchmetrics_lve(torch.from_numpy(fake), torch.from_numpy(real), lips.tolist())
    assert mesh.lip_vertex_error(real, fake, lips) == pytest.approx(float(theirs), rel=1e-9)


def test_scores_change_as_their_definitions_say(motions):
    real, fake, template = motions
    lips, upper = np.arange(6), np.arange(10, 20)
    moved = np.array([0.0, 0.003, 0.004])
    assert mesh.lip_vertex_error(real, real + moved, lips) == pytest.approx(25e-6)
    assert mesh.largest_lip_error(real, real + moved, lips) == pytest.approx(5e-3)
    assert mesh.lip_vertex_error(1e3 * real, 1e3 * fake, lips) == pytest.approx(1e6 * mesh.lip_vertex_error(real, fake, lips))
    assert mesh.mean_vertex_error(1e3 * real, 1e3 * fake) == pytest.approx(1e3 * mesh.mean_vertex_error(real, fake))
    frozen = mesh.upper_face_deviation(real, mesh.still(template, 40), template, upper)
    assert frozen == pytest.approx(((real - template) ** 2).sum(-1)[:, upper].std(axis=0).mean())
    for size in (0.5, 1.5):
        sized = template + size * (real - template)
        assert mesh.upper_face_deviation(real, sized, template, upper) == pytest.approx((1 - size**2) * frozen)


def test_motions_of_other_lengths_are_refused_and_nan_stays_nan(motions):
    real, fake, template = motions
    for other in (fake[:-1], fake[:1]):
        for score in (
            lambda other=other: mesh.lip_vertex_error(real, other, LIPS),
            lambda other=other: mesh.mean_vertex_error(real, other),
            lambda other=other: mesh.upper_face_deviation(real, other, template, UPPER),
        ):
            with pytest.raises(ValueError, match="cut them to the same frames"):
                score()
    broken = fake.copy()
    broken[5, 0, 0] = np.nan
    assert np.isnan(mesh.lip_vertex_error(real, broken, LIPS))
    assert np.isnan(mesh.mean_vertex_error(real, broken))


def test_diversity_is_the_mean_over_pairs(motions):
    real, _, _ = motions
    assert mesh.diversity(np.stack([real, real, real])) == 0
    shifted = np.stack([real, real + np.array((0, 0, 1)), real + np.array((0, 0, 3))])
    assert mesh.diversity(shifted) == pytest.approx((1 + 3 + 2) / 3)
    with pytest.raises(ValueError, match="two motions"):
        mesh.diversity(real[None])


def test_jitter_is_the_second_difference():
    frames = np.arange(10.0)[:, None, None]
    assert mesh.jitter(np.tile(frames * (1.0, 2.0, 3.0), (1, 3, 1)), LIPS) == pytest.approx(0)
    assert mesh.jitter(np.tile(frames**2 * (0.0, 3.0, 4.0), (1, 3, 1)), LIPS) == pytest.approx(10)
    assert np.isnan(mesh.jitter(REAL, LIPS))


def test_a_constant_correlates_with_nothing():
    course = np.sin(np.arange(75.0))
    assert np.full(75, 0.1).std() > 0  # by rounding
    assert np.isnan(mesh.correlation(np.full(75, 0.1), course))
    assert np.isnan(mesh.correlation(course, course * np.nan))
    assert mesh.correlation(course, 3 - course) == pytest.approx(-1)


def test_mouth_opening_is_the_mean_of_the_pairs_and_unknown_without_any():
    motion = np.zeros((2, 4, 3))
    motion[1, 1], motion[1, 3] = (0, -3, 4), (0, -1, 0)
    assert mesh.mouth_opening(motion, np.array([(0, 1), (2, 3)])).tolist() == [0, 3]
    assert np.isnan(mesh.mouth_opening(motion, np.zeros((0, 2), int))).all()


@pytest.mark.parametrize(("rows", "frames"), [(200, 100), (200, 120), (199, 120), (60, 100)])
def test_mel_of_frames_is_the_mean_over_each_frame_s_time(rows, frames):
    mel = np.random.default_rng(1).normal(-40, 10, (rows, 64)).astype(np.float32)
    fine = np.repeat(mel.astype(np.float64), frames, axis=0)  # rows · frames moments: a whole number to each frame
    expected = fine.reshape(frames, rows, 16, 4).mean(axis=(1, 3))
    assert mesh.mel_of_frames(mel, frames, 16) == pytest.approx(expected)
    assert mesh.speech_energy(mel, frames).mean() == pytest.approx(mel.mean())


def test_a_window_hears_five_frames_to_both_sides_and_holds_the_ends():
    mel = np.zeros((40, 64))
    mel[20] = 1
    heard = mesh.windows(mel, 40)
    assert heard.shape == (40, 11 * 32)
    assert np.flatnonzero(heard.any(axis=1)).tolist() == list(range(15, 26))
    mel[0] = 2
    assert (mesh.windows(mel, 40)[0].reshape(11, 32)[:6] == 2).all()


def recordings(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clips whose motion follows two of their bands, two frames late, and is noisy."""
    random = np.random.default_rng(seed)
    clips = []
    for _ in range(count):
        mel = np.repeat(random.normal(-40, 10, (40, 64)), 2, axis=0)
        course = np.roll(mesh.mel_of_frames(mel, 40, 32)[:, [3, 20]], 2, axis=0)
        motion = 1e-4 * course[:, :, None] * (0, 1, 0.3)
        clips.append((mel.astype(np.float32), (motion + random.normal(0, 1e-5, motion.shape)).astype(np.float32)))
    return clips


def test_linear_motion_is_scikit_learn_s_ridge_regression_and_beats_the_mean():
    training, (mel, motion) = recordings(20, seed=2), recordings(1, seed=3)[0]
    predicted = mesh.linear_motion(iter(training)).predict(mel, 40)
    inputs = np.concatenate([mesh.windows(mel, 40) for mel, _ in training])
    targets = np.concatenate([residual.reshape(40, -1) for _, residual in training]).astype(np.float64)
    scaler = StandardScaler().fit(inputs)
    ridge = Ridge(alpha=mesh.RIDGE * len(inputs), solver="cholesky").fit(scaler.transform(inputs), targets)
    assert predicted.reshape(40, -1) == pytest.approx(ridge.predict(scaler.transform(mesh.windows(mel, 40))), rel=1e-6, abs=1e-9)
    mean = mesh.mean_residual(residual for _, residual in training)
    assert mean == pytest.approx(targets.mean(axis=0).reshape(2, 3))
    lips = np.array([0, 1])
    assert mesh.lip_vertex_error(motion, predicted, lips) < 0.6 * mesh.lip_vertex_error(motion, mesh.still(mean, 40), lips)


def test_baselines_of_no_training_clip_are_refused():
    with pytest.raises(ValueError, match="no training clip"):
        mesh.linear_motion([])
    with pytest.raises(ValueError, match="no training clip"):
        mesh.mean_residual([])


def test_a_clip_s_row():
    opening = 0.012 * np.sin(np.arange(50) / 3) ** 2
    mel = np.repeat(-60 + 3000 * opening, 2)[:, None] * np.ones(64)
    real, topology = talk(opening), mediapipe_mesh()
    row = mesh.scores(real, talk(opening / 2), face(), mel, topology, METRES)
    assert row["lve_mm"] == pytest.approx(6 * (np.sin(np.arange(50) / 3) ** 2).mean(), rel=1e-3)
    assert row["lve"] == pytest.approx((0.006**2 * np.sin(np.arange(50) / 3) ** 4).mean(), rel=1e-3)
    assert row["opening_correlation"] == pytest.approx(1, abs=1e-3)
    assert row["energy_correlation"] == pytest.approx(row["energy_correlation_real"], abs=1e-3)
    assert row["energy_correlation_real"] == pytest.approx(1, abs=1e-3)
    assert row["jitter_to_real"] == pytest.approx(0.5, rel=1e-2)
    assert row["opening_mm_real"] - row["opening_mm"] == pytest.approx(row["lve_mm"], rel=0.05)
    assert row["fdd"] == row["fdd_absolute"] == 0  # the upper face is still in both
    frozen = mesh.scores(real, mesh.still(face(), 50), face(), mel, topology, METRES)
    assert np.isnan(frozen["opening_correlation"])
    assert frozen["jitter_to_real"] == 0
    unitless = mesh.scores(real, talk(opening / 2), face(), mel, topology, CODETALKER)
    assert unitless["lve"] == row["lve"]
    assert np.isnan(unitless["lve_mm"])
