"""Does the generated mouth open and close with the real one, and as steadily?"""

import cv2
import numpy as np

from data.mesh import LANDMARKS_68
from stages.faces import mouth_opening
from stages.tracking import FaceTracker

LIPS = LANDMARKS_68[48:]
CORNERS = 0, 6  # of the mouth, among these 20


def track(frames_THW3: np.ndarray) -> np.ndarray:
    """`(T, 478, 3)` landmarks of aligned frames, NaN where no face is seen.

    At twice their size, because the detector is trained on larger faces.
    """
    tracker = FaceTracker()
    for frame in frames_THW3:
        tracker.see(cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    return tracker.landmarks()


def scores(real_TP3: np.ndarray, fake_TP3: np.ndarray) -> dict[str, float]:
    """Of landmarks that `track` found in two videos: both rows of this module."""
    return {"mouth_correlation": opening_correlation(real_TP3, fake_TP3), "jitter_to_real": jitter_ratio(real_TP3, fake_TP3)}


def opening_correlation(real_TP3: np.ndarray, fake_TP3: np.ndarray) -> float:
    """Pearson correlation over time of the mouth's opening (height over width of the inner lips), −1 to 1.

    Frames in which either shows no face do not count; NaN when a mouth never moves or fewer than three frames are left.
    """
    real_T, fake_T = mouth_opening(real_TP3), mouth_opening(fake_TP3)
    both_T = ~np.isnan(real_T) & ~np.isnan(fake_T)
    if both_T.sum() < 3 or real_T[both_T].std() == 0 or fake_T[both_T].std() == 0:
        return float("nan")
    return float(np.corrcoef(real_T[both_T], fake_T[both_T])[0, 1])


def landmark_distance(real_TP3: np.ndarray, fake_TP3: np.ndarray) -> float:
    """The mean distance of the mouth's 20 points, each mouth's middle taken off, in hundredths of the real mouth's mean width.

    RAD-NeRF's meter, which has pixels. Frames in which either shows no face do not count; NaN where none is left.
    """
    real, fake = (points[:, LIPS, :2].astype(np.float64) for points in (real_TP3, fake_TP3))
    both_T = ~np.isnan(real[:, 0, 0]) & ~np.isnan(fake[:, 0, 0])
    if not both_T.any():
        return float("nan")
    real, fake = (points[both_T] - points[both_T].mean(axis=1, keepdims=True) for points in (real, fake))
    width = np.linalg.norm(real[:, CORNERS[0]] - real[:, CORNERS[1]], axis=-1).mean()
    return float(100 * np.linalg.norm(fake - real, axis=-1).mean() / width)


def jitter_ratio(real_TP3: np.ndarray, fake_TP3: np.ndarray) -> float:
    """The mean size of the lip points' second difference over that of the real ones: 1 is as steady, more is more nervous.

    NaN when fewer than three frames in a row show a face, or the real lips stand still.
    """
    real, fake = (
        np.linalg.norm(np.diff(points[:, LIPS, :2].astype(np.float64), n=2, axis=0), axis=-1) for points in (real_TP3, fake_TP3)
    )
    both_T = ~np.isnan(real[:, 0]) & ~np.isnan(fake[:, 0])
    return float(fake[both_T].mean() / real[both_T].mean()) if both_T.any() and real[both_T].any() else float("nan")
