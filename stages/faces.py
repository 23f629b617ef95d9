"""Sequences of a face's points: in which frames it was seen, what is done where it was not, and how open its mouth is."""

import numpy as np

from data.mesh import LOWER_LIP, MOUTH_LEFT, MOUTH_RIGHT, UPPER_LIP


def seen(landmarks_TP3: np.ndarray) -> np.ndarray:
    """`(T,)` bool: in which frames a face was found."""
    return ~np.isnan(landmarks_TP3[:, 0, 0])


def longest_gap(found_T: np.ndarray) -> int:
    """Frames of the longest run without a face."""
    edges = np.flatnonzero(np.concatenate(([True], found_T, [True])))
    return int(np.diff(edges).max()) - 1


def fill_gaps(values: np.ndarray, found_T: np.ndarray) -> np.ndarray:
    """`(T, …)` with the frames that are not `found_T` interpolated linearly between their neighbours; held at both ends."""
    if found_T.all():
        return values
    times = np.arange(len(values))
    flat = values.reshape(len(values), -1)
    filled = np.stack([np.interp(times, times[found_T], column[found_T]) for column in flat.T], axis=1)
    return filled.reshape(values.shape).astype(values.dtype)


def smooth(values: np.ndarray, frames: int) -> np.ndarray:
    """`(T, …)` averaged over `frames` frames (an odd number), centred; the ends are held."""
    half = frames // 2
    padded = np.pad(values, ((half, half), *[(0, 0)] * (values.ndim - 1)), mode="edge")
    return np.mean([padded[i : i + len(values)] for i in range(2 * half + 1)], axis=0)


def carried(landmarks_TP3: np.ndarray, transforms_T23: np.ndarray) -> np.ndarray:
    """`(T, P, 3)` the points where the similarity transforms put them; depth is scaled alike."""
    xy_TP2 = landmarks_TP3[..., :2] @ transforms_T23[:, :, :2].transpose(0, 2, 1) + transforms_T23[:, None, :, 2]
    scale_T11 = np.hypot(transforms_T23[:, 0, 0], transforms_T23[:, 1, 0])[:, None, None]
    return np.concatenate((xy_TP2, landmarks_TP3[..., 2:] * scale_T11), axis=-1).astype(np.float32)


def mouth_opening(landmarks_TP3: np.ndarray) -> np.ndarray:
    """`(T,)` height of the inner mouth over its width; 0 is closed."""
    height = np.linalg.norm(landmarks_TP3[:, UPPER_LIP, :2] - landmarks_TP3[:, LOWER_LIP, :2], axis=-1)
    width = np.linalg.norm(landmarks_TP3[:, MOUTH_RIGHT, :2] - landmarks_TP3[:, MOUTH_LEFT, :2], axis=-1)
    return height / width
