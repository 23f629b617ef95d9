"""The first look at a video: where its shots begin, which face is edited, and where in each frame that face is."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from data.files import atomic_file
from data.mesh import LEFT_SIDE, POINTS, RIGHT_SIDE, STABLE_POINTS
from stages.align import Crop, fit
from stages.faces import carried, seen, smooth
from stages.masks import MaskParams, lower_face_boxes
from stages.tracking import FaceTracker, Track

Face = Literal["largest", "left", "right"]  # of two in one picture, as the viewer sees it; largest for the longest time

# The points that a place needs, of 478: all of them would be 10 MB for each minute and face.
KEPT = (*STABLE_POINTS, RIGHT_SIDE, LEFT_SIDE)
STABLE = slice(0, len(STABLE_POINTS))
OUTER_CORNERS = (1, 2)  # of the eyes, among KEPT

# A cut: the picture, shrunk to THUMBNAIL pixels, changes by CUT_LEVEL of 255 on average, and CUT_RATIO times as much as at any
# of the RECENT frames before. From one GRID speaker to another, before one backdrop, it changes by 10 to 50; within a shot of
# ten real clips by 9.7 at most, and, where by more than 3, by 2.3 times as much as before.
THUMBNAIL = 32
CUT_LEVEL = 8.0
CUT_RATIO = 3.0
RECENT = 5

# A cut that the picture does not show: in one frame the face moves by JUMP of the distance between its outer eye corners, or
# grows or shrinks by the factor SCALE_JUMP.
JUMP = 0.5
SCALE_JUMP = 1.25

SHARED = 0.1  # of the shorter track's frames: tracks that share more of them are two people, and not one found twice


@dataclass(frozen=True)
class Places:
    """Where the edited face is in each of T source frames."""

    shots: np.ndarray  # (T,) int32, the number of the frame's shot
    transforms: np.ndarray  # (T, 2, 3) float32, source pixels to aligned pixels; NaN where no face is to be painted
    boxes: np.ndarray  # (T, 4) int16, x0 y0 x1 y1 of the part to paint, half open, aligned pixels

    def __len__(self) -> int:
        return len(self.shots)

    @property
    def found(self) -> np.ndarray:
        """`(T,)` bool: in which frames there is a face to paint."""
        return ~np.isnan(self.transforms[:, 0, 0])

    def write(self, path: Path) -> None:
        with atomic_file(path) as file:
            np.savez(file, shots=self.shots, transforms=self.transforms, boxes=self.boxes)

    @classmethod
    def read(cls, path: Path) -> "Places":
        with np.load(path) as arrays:
            return cls(arrays["shots"], arrays["transforms"], arrays["boxes"])


def find_places(frames: Iterable[np.ndarray], face: Face, crop: Crop, masks: MaskParams) -> Places:
    """The places of the face in a video's frames, each `(H, W, 3)` uint8 RGB; one frame is in memory at a time."""
    cuts, tracker = Cuts(), FaceTracker()
    shots: list[Places] = []
    for frame in frames:
        if cuts.begins(frame) and tracker.frames:
            shots.append(places_of(tracker, face, crop, masks))
            tracker = FaceTracker()
        tracker.see(frame)
        for track in tracker.tracks:
            if track.frames[-1] == tracker.frames - 1:
                track.points[-1] = track.points[-1][list(KEPT)]
    shots.append(places_of(tracker, face, crop, masks))
    numbers, before = [], 0
    for shot in shots:  # each counts from 0
        numbers.append(shot.shots + before)
        before = numbers[-1][-1] + 1 if len(shot) else before
    return Places(
        np.concatenate(numbers),
        np.concatenate([shot.transforms for shot in shots]),
        np.concatenate([shot.boxes for shot in shots]),
    )


class Cuts:
    """Tells at which frames the picture is another one."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)

    def begins(self, frame: np.ndarray) -> bool:
        """Whether a shot begins with this frame, the one after the last that was asked about."""
        small = cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, small
        if before is None:
            return True
        change = float(np.abs(small - before).mean())
        cut = change > CUT_LEVEL and change > CUT_RATIO * max(self._recent, default=0.0)
        self._recent.clear() if cut else self._recent.append(change)
        return cut


def places_of(tracker: FaceTracker, face: Face, crop: Crop, masks: MaskParams) -> Places:
    """The places in the frames that one tracker saw; its tracks hold the points KEPT."""
    points_TK3 = chosen_points(tracker, face)
    shot_T = np.cumsum(jumps(points_TK3)).astype(np.int32)
    transform_T23 = np.full((tracker.frames, 2, 3), np.nan, np.float32)
    box_T4 = np.zeros((tracker.frames, 4), np.int16)
    found_T = seen(points_TK3)
    edges = np.flatnonzero(np.diff(found_T, prepend=False, append=False) | np.diff(shot_T, prepend=-1, append=-1).astype(bool))
    landmarks_1P3 = np.zeros((1, POINTS, 3), np.float32)
    for start, end in pairwise(edges):
        if not found_T[start]:
            continue
        smoothed_T52 = smooth(points_TK3[start:end, STABLE, :2].astype(np.float64), crop.smoothing)
        for index, stable_52 in enumerate(smoothed_T52, start):
            transform_23 = fit(stable_52, crop)
            landmarks_1P3[0, KEPT] = points_TK3[index]
            x0, y0, x1, y1 = lower_face_boxes(carried(landmarks_1P3, transform_23[None]), crop.size)[0]
            # A face in profile hides the half of the mouth that the network knows.
            if x1 - x0 >= masks.min_width and y1 - y0 >= masks.min_height:
                transform_T23[index], box_T4[index] = transform_23, (x0, y0, x1, y1)
    return Places(shot_T, transform_T23, box_T4)


def chosen_points(tracker: FaceTracker, face: Face) -> np.ndarray:
    """`(T, K, 3)` float32 points KEPT of the chosen face; NaN where it was not seen.

    A face that was away for long is another track when it is back, so the choice is made among tracks that are seen together,
    and all that were never seen beside the chosen ones are taken to be the same face.
    """
    points_TK3 = np.full((tracker.frames, len(KEPT), 3), np.nan, np.float32)
    left = sorted(tracker.tracks, key=lambda track: -track.area(None))
    while left:
        rivals = [left[0], *(track for track in left[1:] if together(left[0], track))][:2]
        if face == "largest":
            chosen = rivals[0]
        else:
            chosen = (min if face == "left" else max)(rivals, key=lambda track: np.mean([x for x, _ in track.centres]))
        for frame, points in zip(chosen.frames, chosen.points, strict=True):
            if np.isnan(points_TK3[frame, 0, 0]):
                points_TK3[frame] = points
        left = [track for track in left if track is not chosen and not together(chosen, track)]
    return points_TK3


def together(one: Track, other: Track) -> bool:
    """Whether two tracks are two faces in one picture."""
    shared = len(set(one.frames) & set(other.frames))
    return shared > SHARED * min(len(one.frames), len(other.frames))


def jumps(points_TK3: np.ndarray) -> np.ndarray:
    """`(T,)` bool: the face is seen here and in the frame before, and did not get from there to here by moving."""
    centre_T2 = points_TK3[:, STABLE, :2].mean(axis=1)
    right_T2, left_T2 = points_TK3[:, OUTER_CORNERS[0], :2], points_TK3[:, OUTER_CORNERS[1], :2]
    width_T = np.linalg.norm(left_T2 - right_T2, axis=1).clip(1e-3)
    moved = np.linalg.norm(np.diff(centre_T2, axis=0), axis=1) / width_T[:-1]
    scaled = np.exp(np.abs(np.diff(np.log(width_T))))
    return np.concatenate(([False], (moved > JUMP) | (scaled > SCALE_JUMP)))[: len(points_TK3)]
