"""MediaPipe's face mesh, followed through a clip.

MediaPipe 0.10.21 is the last wheel that ships its models; `refine_landmarks` gives the 468 mesh points and 10 iris points.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import mediapipe
import numpy as np

from data.mesh import POINTS

Box = tuple[float, float, float, float]  # x, y, width, height in pixels

NEAR = 1.0  # a face whose centre moved by less than this many of its own sizes is the same face
FORGET = 50  # frames after which a face that was lost is another when it is back


@cache
def face_mesh() -> mediapipe.solutions.face_mesh.FaceMesh:
    """This process's detector: built once, because building takes longer than a hundred frames."""
    # Two faces, so that a second one is noticed; for each that is missing the detector proper runs again in every frame.
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


@dataclass
class Track:
    """One face through the frames in which it was seen: its points there, its centre and its size, all in pixels."""

    frames: list[int] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    centres: list[np.ndarray] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)

    def add(self, frame: int, points: np.ndarray) -> None:
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        self.frames.append(frame)
        self.points.append(points)
        self.centres.append((low + high) / 2)
        self.sizes.append(max(1.0, float(np.sqrt(np.prod(high - low)))))

    def area(self, box: Box | None) -> float:
        """Sum of the face's area over the frames in which its centre is in `box`."""
        if box is None:
            return sum(size**2 for size in self.sizes)
        x0, y0, width, height = box
        inside = [x0 <= x <= x0 + width and y0 <= y <= y0 + height for x, y in self.centres]
        return sum(size**2 for size, counts in zip(self.sizes, inside, strict=True) if counts)


class FaceTracker:
    """Follows the faces through one clip's frames, and tells which of them is the clip's: the largest for the longest time.

    Tracking is faster and steadier than detecting anew, but remembers: each clip starts from a reset detector, so that its
    points do not depend on which clip the same worker saw before. The detector gives its faces in any order; who is who is
    told by where each was last.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.frames = 0
        self.frames_with_two = 0

    def see(self, frame: np.ndarray) -> None:
        """Find the faces in the next `(H, W, 3)` uint8 RGB frame."""
        if self.frames:
            found = face_mesh().process(frame).multi_face_landmarks or []
        else:
            with native_stderr_hidden():
                face_mesh().reset()
                found = face_mesh().process(frame).multi_face_landmarks or []
        self.frames_with_two += len(found) > 1
        # MediaPipe gives shares of the image; depth is in the scale of x. Pixel centres are whole numbers here.
        height, width = frame.shape[:2]
        scale, corner = np.array((width, height, width), np.float32), np.array((0.5, 0.5, 0), np.float32)
        faces = [np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32) * scale - corner for face in found]
        self._assign(faces)
        self.frames += 1

    def _assign(self, faces: list[np.ndarray]) -> None:
        """Each face to the track that it continues, the nearest first, or to a new one."""
        alive = [track for track in self.tracks if self.frames - track.frames[-1] <= FORGET]
        centres = [(face[:, :2].min(axis=0) + face[:, :2].max(axis=0)) / 2 for face in faces]
        distances = sorted(
            (float(np.linalg.norm(track.centres[-1] - centre)) / track.sizes[-1], t, f)
            for t, track in enumerate(alive)
            for f, centre in enumerate(centres)
        )
        track_of: dict[int, int] = {}
        for distance, t, f in distances:
            if distance < NEAR and f not in track_of and t not in track_of.values():
                track_of[f] = t
        for f, face in enumerate(faces):
            if f not in track_of:
                self.tracks.append(Track())
            (alive[track_of[f]] if f in track_of else self.tracks[-1]).add(self.frames, face)

    def landmarks(self, box: Box | None = None) -> np.ndarray:
        """`(T, 478, 3)` float32 of the clip's face, pixels of the frames seen (z in the same scale); NaN where it was not seen.

        box: where the face is known to be.
        """
        landmarks_TP3 = np.full((self.frames, POINTS, 3), np.nan, np.float32)
        if self.tracks:
            chosen = max(self.tracks, key=lambda track: track.area(box))
            landmarks_TP3[chosen.frames] = chosen.points
        return landmarks_TP3
