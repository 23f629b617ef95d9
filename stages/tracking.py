"""MediaPipe's face mesh, followed through a clip.

MediaPipe 0.10.21 is the last wheel that ships its models; `refine_landmarks` gives the 468 mesh points and 10 iris points.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import mediapipe
import numpy as np

from stages.faces import POINTS


@cache
def face_mesh() -> mediapipe.solutions.face_mesh.FaceMesh:
    """This process's detector: built once, because building takes longer than a hundred frames."""
    # Two faces are looked for so that a second one is noticed; one is all that is used.
    return mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=2, refine_landmarks=True)


@contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """MediaPipe's native part greets each start of its graph with warnings that no setting silences; Python's errors pass."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class FaceTracker:
    """Follows one face through one clip's frames.

    Tracking is faster and steadier than detecting anew, but remembers: each clip starts from a reset detector, so that its
    points do not depend on which clip the same worker saw before.
    """

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.frames_with_two = 0

    def see(self, frame: np.ndarray) -> None:
        """Find the face in the next `(H, W, 3)` uint8 RGB frame."""
        height, width = frame.shape[:2]
        if self.points:
            faces = face_mesh().process(frame).multi_face_landmarks or []
        else:
            with native_stderr_hidden():
                face_mesh().reset()
                faces = face_mesh().process(frame).multi_face_landmarks or []
        self.frames_with_two += len(faces) > 1
        if not faces:
            self.points.append(np.full((POINTS, 3), np.nan, np.float32))
            return
        points = np.array([(p.x, p.y, p.z) for p in faces[0].landmark], np.float32)
        # MediaPipe gives shares of the image; depth is in the scale of x. Pixel centres are whole numbers here.
        self.points.append(points * np.array((width, height, width), np.float32) - np.array((0.5, 0.5, 0), np.float32))

    def landmarks(self) -> np.ndarray:
        """`(T, 478, 3)` float32, pixels of the frames seen (z in the same scale); NaN where no face was found."""
        return np.stack(self.points)
