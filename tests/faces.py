"""A talking face as MediaPipe's mesh, made by code: the astronaut's points, whose lower lip and chin move."""

from functools import cache

import numpy as np

from data.mesh import CHIN, FOREHEAD, LOWER_LIP, UPPER_LIP
from stages.tracking import FaceTracker
from tests.media import astronaut

HEIGHT = 0.17  # metres from forehead to chin


@cache
def face() -> np.ndarray:
    """`(478, 3)` float32: the neutral face, metres, x to the person's left, y up, z towards the viewer."""
    tracker = FaceTracker()
    tracker.see(astronaut(0.0))
    points_P3 = tracker.landmarks()[0] * (1, -1, -1)
    centred_P3 = points_P3 - points_P3.mean(axis=0)
    return (centred_P3 * HEIGHT / (points_P3[FOREHEAD, 1] - points_P3[CHIN, 1])).astype(np.float32)


def talk(opening_T: np.ndarray) -> np.ndarray:
    """`(T, 478, 3)` float32: what is below the lips' seam is pulled down by so many metres."""
    template_P3 = face()
    seam = template_P3[[UPPER_LIP, LOWER_LIP], 1].mean()
    pulled_P = np.where((template_P3[:, 1] < seam) & (np.abs(template_P3[:, 0]) < 0.04), 1.0, 0.0)
    motion_TP3 = np.repeat(template_P3[None], len(opening_T), axis=0)
    motion_TP3[..., 1] -= opening_T[:, None] * pulled_P
    return motion_TP3.astype(np.float32)
