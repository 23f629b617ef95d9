"""The 68 landmarks of a face that moves, without the head that carries it: what GeneFace's stages tell each other.

S  rows of audio, 50 a second: 2T     T  frames, 25 a second     D  numbers in a row of audio     X  204 numbers: 68 points x 3

Published, they are the displacement from the mean face of a morphable model (BFM, licensed), ten times its units: centimetres
(`idexp_lm3d`). Ours are the displacement from MediaPipe's canonical face, in centimetres too: weights trained on the one do not
serve the other. As there, what a face is stands in them beside what it does: to part the two is what PostNet is for.
"""

from typing import NamedTuple

import numpy as np

from data.mesh import LANDMARKS_68, POINTS
from data.shardset import Clip, npy_array
from models.hearing import Audio, check_members, heard_rows

VALUES = 3 * len(LANDMARKS_68)  # X
BROWS, EYES, MOUTH = slice(3 * 17, 3 * 27), slice(3 * 36, 3 * 48), slice(3 * 48, 3 * 68)
UPPER = slice(BROWS.start, MOUTH.start)  # brows, nose and eyes
CENTIMETRES = 100.0  # in a metre

# Where the 68 points are in MediaPipe's canonical face model (Apache-2.0): centimetres, in the head frame of the column
# `vertices`: x to the person's left, y up, z out of the face.
CANONICAL_P3 = np.array(
    [
        # jaw
        *((-7.74, 2.36, -2.01), (-7.66, 0.67, -2.44), (-7.54, -1.05, -2.43), (-6.72, -4.79, -1.75)),
        *((-5.94, -6.22, -0.63), (-5.09, -7.18, 0.71), (-3.21, -8.53, 2.80), (-2.31, -8.97, 3.61)),
        *((0.00, -9.40, 4.26), (2.31, -8.97, 3.61), (3.21, -8.53, 2.80), (5.09, -7.18, 0.71)),
        *((5.94, -6.22, -0.63), (6.72, -4.79, -1.75), (7.54, -1.05, -2.43), (7.66, 0.67, -2.44)),
        *((7.74, 2.36, -2.01),),
        # brows
        *((-5.72, 4.25, 2.83), (-4.99, 4.80, 3.75), (-3.99, 5.11, 4.47), (-2.76, 5.10, 5.02)),
        *((-1.40, 5.01, 5.32), (1.40, 5.01, 5.32), (2.76, 5.10, 5.02), (3.99, 5.11, 4.47)),
        *((4.99, 4.80, 3.75), (5.72, 4.25, 2.83)),
        # nose
        *((0.00, 3.27, 5.24), (0.00, 1.73, 6.32), (0.00, 1.06, 6.77), (0.00, -0.46, 7.59)),
        *((-1.04, -1.46, 5.66), (-0.60, -2.01, 5.87), (0.00, -2.09, 6.06), (0.60, -2.01, 5.87)),
        *((1.04, -1.46, 5.66),),
        # eyes
        *((-4.45, 2.66, 3.17), (-3.67, 2.93, 3.72), (-2.72, 2.96, 3.87), (-1.86, 2.59, 3.76)),
        *((-2.72, 2.32, 3.78), (-3.67, 2.36, 3.64), (1.86, 2.59, 3.76), (2.72, 2.96, 3.87)),
        *((3.67, 2.93, 3.72), (4.45, 2.66, 3.17), (3.67, 2.36, 3.64), (2.72, 2.32, 3.78)),
        # outer lips
        *((-2.46, -4.34, 4.28), (-1.91, -3.80, 5.03), (-0.71, -3.33, 5.88), (0.00, -3.41, 5.98)),
        *((0.71, -3.33, 5.88), (1.91, -3.80, 5.03), (2.46, -4.34, 4.28), (1.84, -4.83, 4.82)),
        *((0.70, -5.29, 5.45), (0.00, -5.37, 5.54), (-0.70, -5.29, 5.45), (-1.84, -4.83, 4.82)),
        # inner lips
        *((-2.15, -4.28, 4.04), (-0.53, -3.99, 5.14), (0.00, -3.99, 5.22), (0.53, -3.99, 5.14)),
        *((2.15, -4.28, 4.04), (0.58, -4.52, 5.34), (0.00, -4.54, 5.40), (-0.58, -4.52, 5.34)),
    ],
    np.float32,
)


class Utterance(NamedTuple):
    """A clip in memory."""

    key: str
    speech: np.ndarray  # (2T, D) float32 rows of the column that is heard
    motion: np.ndarray  # (T, X) float32, centimetres


def read_utterance(clip: Clip, audio: Audio, width: int) -> Utterance:
    """The clip's sound and motion. ValueError, naming it, if its members do not fit each other or the network's width."""
    check_members(clip, ("vertices.npy", f"{audio}.npy"))
    vertices_TP3 = npy_array(clip.members["vertices.npy"])
    if vertices_TP3.shape[1:] != (POINTS, 3):
        raise ValueError(
            f"clip {clip.key}: vertices.npy has the shape {vertices_TP3.shape}, not that of MediaPipe's {POINTS} points: "
            "name a corpus of videos, not of scans"
        )
    return Utterance(clip.key, heard_rows(clip, audio, width, len(vertices_TP3)), motion_of(vertices_TP3))


def motion_of(vertices_TP3: np.ndarray) -> np.ndarray:
    """`(T, X)` float32 centimetres of MediaPipe's 478 points, `(T, 478, 3)` metres in the head frame."""
    moved_TP3 = CENTIMETRES * vertices_TP3[:, LANDMARKS_68] - CANONICAL_P3
    return moved_TP3.reshape(-1, VALUES).astype(np.float32)


def points_of(motion_TX: np.ndarray) -> np.ndarray:
    """`(T, 68, 3)` float32 metres in the head frame: the inverse of `motion_of`."""
    return (motion_TX.reshape(-1, *CANONICAL_P3.shape) + CANONICAL_P3) / np.float32(CENTIMETRES)
