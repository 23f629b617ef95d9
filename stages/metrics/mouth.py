"""Does the generated mouth open and close with the real one?"""

import cv2
import numpy as np

from stages.faces import mouth_opening
from stages.tracking import FaceTracker


def opening_correlation(real_THW3: np.ndarray, fake_THW3: np.ndarray) -> float:
    """Pearson correlation over time of the mouth's opening (height over width of the inner lips), −1 to 1.

    Both videos go through the same detector, at twice their size because it is trained on larger faces. Frames in which
    either shows no face do not count; NaN when a mouth never moves or fewer than three frames are left.
    """
    real_T, fake_T = (mouth_opening(track(frames)) for frames in (real_THW3, fake_THW3))
    both_T = ~np.isnan(real_T) & ~np.isnan(fake_T)
    if both_T.sum() < 3 or real_T[both_T].std() == 0 or fake_T[both_T].std() == 0:
        return float("nan")
    return float(np.corrcoef(real_T[both_T], fake_T[both_T])[0, 1])


def track(frames_THW3: np.ndarray) -> np.ndarray:
    """`(T, 478, 3)` landmarks of aligned frames, NaN where no face is seen."""
    tracker = FaceTracker()
    for frame in frames_THW3:
        tracker.see(cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    return tracker.landmarks()
