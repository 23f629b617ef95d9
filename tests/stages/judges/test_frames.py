"""A generated face goes back where it came from, and nothing else changes."""

import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from stages.align import warp
from stages.evaluate import Sampler, mean_row
from stages.judges.frames import paste_back, paste_inside, seam_weights
from stages.metrics.image import box_mask
from stages.metrics.mouth import LIPS, jitter_ratio, landmark_distance, opening_correlation, scores, track
from tests.media import astronaut, opening

BOXES = np.array([[20, 55, 109, 128]], np.int16)


def test_the_seam_rises_inside_the_mask_and_is_zero_outside():
    weights = seam_weights(BOXES, 128, seam=4)[0]
    inside = box_mask(BOXES, 128, 128)[0]
    assert not weights[~inside].any()
    assert weights[90, 20:26] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert weights[127, 60] == pytest.approx(0.2)  # the crop's own edge is a seam too
    assert weights[80, 60] == 1
    assert (seam_weights(BOXES, 128, seam=0)[0] == inside).all()


def test_pasting_back_is_the_inverse_of_aligning():
    y, x = np.mgrid[:200, :240]
    smooth = np.stack((x, y, 255 - x), -1).astype(np.uint8)
    matrix = SimilarityTransform(scale=0.8, rotation=0.2, translation=(10, -20)).params[:2].astype(np.float32)
    face = warp(smooth, matrix, 128)
    back = paste_back(smooth, face, np.ones((128, 128), np.float32), matrix)
    assert np.abs(back.astype(int) - smooth).max() <= 2
    assert np.array_equal(paste_back(smooth, 255 - face, np.zeros((128, 128), np.float32), matrix), smooth)


def test_pixels_away_from_the_mask_are_the_source_s():
    source = np.random.default_rng(0).integers(0, 255, (200, 240, 3)).astype(np.uint8)
    matrix = np.array([[0.5, 0, 0], [0, 0.5, 0]], np.float32)
    pasted = paste_back(source, np.zeros((128, 128, 3), np.uint8), seam_weights(BOXES, 128, 4)[0], matrix)
    assert np.array_equal(pasted[:108], source[:108])  # the mask begins at row 55 of the crop, 110 of the source
    assert (pasted[130:, 60:200] == 0).all()


def test_the_baselines_change_the_mask_alone():
    frames = np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3)).astype(np.uint8)
    boxes = np.repeat(BOXES, 4, axis=0)
    pasted = paste_inside(frames, frames[:1], boxes)
    inside = box_mask(boxes, 128, 128)
    assert np.array_equal(pasted[~inside], frames[~inside])
    assert np.array_equal(pasted[3, 55:, 20:109], frames[0, 55:, 20:109])


def test_the_mouth_s_correlation_knows_a_moving_mouth_from_another():
    moments = np.arange(30) / 25
    real = np.stack([astronaut(t)[:256, 34:290] for t in moments])[:, ::2, ::2]
    points = track(real)
    assert scores(points, points) == pytest.approx({"mouth_correlation": 1, "jitter_to_real": 1})
    order = np.empty(30, int)  # the widest mouth where the real one is narrowest
    order[np.argsort(-opening(moments))] = np.argsort(opening(moments))
    assert opening_correlation(points, points[order]) < -0.5
    nobody = track(np.zeros_like(real))
    assert np.isnan(list(scores(points, nobody).values())).all()


def test_jitter_is_the_second_difference_of_the_lips():
    time = np.arange(20.0)
    real, fake = np.zeros((2, 20, 478, 3))
    real[:, LIPS, 0], fake[:, LIPS, 0] = 0.5 * time[:, None] ** 2, 1.5 * time[:, None] ** 2 + 7 * time[:, None]
    fake[:, 4] = np.random.default_rng(0).normal(size=(20, 3))  # the nose's tip does what it likes
    assert jitter_ratio(real, fake) == pytest.approx(3)
    fake[5] = np.nan
    assert jitter_ratio(real, fake) == pytest.approx(3)
    assert np.isnan(jitter_ratio(0 * real, real))


def test_the_distance_of_landmarks_is_of_the_mouths_alone_in_hundredths_of_its_width():
    random = np.random.default_rng(0)
    real = random.normal(size=(10, 478, 3))
    real[:, [LIPS[0], LIPS[6]], :2] = [[0, 0], [50, 0]]  # the corners
    shifted = real + np.array([3, -4, 9])  # the whole face elsewhere
    assert landmark_distance(real, shifted) == pytest.approx(0, abs=1e-9)
    fake = shifted.copy()
    signs = np.resize([1, -1], len(LIPS))[:, None]
    fake[:, LIPS, :2] += signs * [3, 4]  # each point 5 off, the middle where it was
    assert landmark_distance(real, fake) == pytest.approx(10)
    assert landmark_distance(7 * real, 7 * fake) == pytest.approx(10), "whatever the picture's size"
    fake[:, 4] = 1e6  # the nose's tip does what it likes
    fake[7:] = np.nan
    real[6] = np.nan
    assert landmark_distance(real, fake) == pytest.approx(10)
    assert np.isnan(landmark_distance(real, np.full_like(real, np.nan)))


def test_an_undefined_score_does_not_hide_the_defined_ones():
    rows = [{"a": 1.0, "b": float("nan")}, {"a": 2.0, "b": 0.5}]
    assert mean_row(rows) == {"a": 1.5, "b": 0.5}
    assert mean_row([{"b": float("nan")}]) == {"b": None}
    assert Sampler("ddim", 25).name == "ddim 25"
