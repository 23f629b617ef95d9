"""What this house knows about faces: which of MediaPipe's 478 points is what, and what is done where no face was found."""

import numpy as np

POINTS = 478
RIGHT_SIDE, LEFT_SIDE = 234, 454  # face contour at ear level, on the image's left and right
UPPER_LIP, LOWER_LIP = 13, 14  # inner lip, middle
MOUTH_RIGHT, MOUTH_LEFT = 78, 308  # inner corners of the mouth


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


def mouth_opening(landmarks_TP3: np.ndarray) -> np.ndarray:
    """`(T,)` height of the inner mouth over its width; 0 is closed."""
    height = np.linalg.norm(landmarks_TP3[:, UPPER_LIP, :2] - landmarks_TP3[:, LOWER_LIP, :2], axis=-1)
    width = np.linalg.norm(landmarks_TP3[:, MOUTH_RIGHT, :2] - landmarks_TP3[:, MOUTH_LEFT, :2], axis=-1)
    return height / width
