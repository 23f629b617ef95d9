import numpy as np
import pytest

from models.landmarks import MOUTH, VALUES
from tests.models.motion.bench import judged, mouth


def test_a_mouth_is_told_in_millimetres_and_without_its_mean():
    motion = np.zeros((3, VALUES))
    motion[:, MOUTH] = 5 + np.array([-0.2, 0, 0.2])[:, None]  # centimetres
    motion[:, 0] = 7  # no mouth
    assert np.allclose(mouth(motion), np.array([-2, 0, 2])[:, None, None])


def test_scores_of_draws_whose_errors_are_known():
    real = np.zeros((2, 20, 3))
    real[1] = 1
    draws = [real + np.array(aside) for aside in ((3, 0, 0), (0, 4, 0))]
    scores = judged(real, draws)
    assert (scores.one, scores.best, scores.diversity, scores.energy, scores.movement) == pytest.approx((3.5, 3, 5, 1, 1))
    assert scores.mean == pytest.approx(2.5)  # of (1.5, 2, 0)
    assert judged(real, [real, real]) == pytest.approx((0, 0, 0, 0, 0, 1))
