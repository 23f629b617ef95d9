"""The first look at a video: where its shots begin, which face is edited, and where in each frame that face is."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from data.files import atomic_file
from data.mesh import LANDMARKS_68, POINTS, STABLE_POINTS
from stages.align import Crop, fit
from stages.faces import carried, seen, smooth
from stages.masks import MaskParams, lower_face_boxes
from stages.tracking import FaceTracker, Track

Face = Literal["largest", "left", "right"]  # of two in one picture, as the viewer sees it; largest for the longest time

# The points that are kept, of 478: the stable ones and both sides of the face are among them. A minute of them takes 1 MB for
# each face in sight while a shot lasts, and 0.8 MB of the chosen face for good; all 478 would take 9 MB.
KEPT = LANDMARKS_68
STABLE = [KEPT.index(point) for point in STABLE_POINTS]
OUTER_CORNERS = STABLE[1:3]  # of the eyes

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
    landmarks: np.ndarray  # (T, 68, 2) float32, aligned pixels, in the order of data.mesh.LANDMARKS_68; NaN likewise

    def __len__(self) -> int:
        return len(self.shots)

    @property
    def found(self) -> np.ndarray:
        """`(T,)` bool: in which frames there is a face to paint."""
        return ~np.isnan(self.transforms[:, 0, 0])

    def write(self, path: Path) -> None:
        with atomic_file(path) as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def read(cls, path: Path) -> "Places":
        with np.load(path) as arrays:
            return cls(*(arrays[field.name] for field in fields(cls)))

    @classmethod
    def joined(cls, shots: Sequence["Places"]) -> "Places":
        """Places one after another, each of whose shots are counted from 0."""
        counts = [1 + one.shots.max(initial=-1) for one in shots]
        firsts = np.cumsum([0, *counts[:-1]])
        numbers = [one.shots + first for one, first in zip(shots, firsts, strict=True)]
        others = [np.concatenate([getattr(one, field.name) for one in shots]) for field in fields(cls)[1:]]
        return cls(np.concatenate(numbers).astype(np.int32), *others)


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
                track.points[-1] = track.points[-1][KEPT, :2]
    return Places.joined([*shots, places_of(tracker, face, crop, masks)])


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
    """The places in the frames that one tracker saw; its tracks hold x and y of the points KEPT."""
    points_TK2 = chosen_points(tracker, face)
    found_T, shot_T = seen(points_TK2), np.cumsum(jumps(points_TK2)).astype(np.int32)
    transform_T23 = transforms(points_TK2[:, STABLE].astype(np.float64), found_T, shot_T, crop)
    box_T4 = np.zeros((tracker.frames, 4), np.int16)
    mesh_1P2 = np.zeros((1, POINTS, 2), np.float32)
    for index in np.flatnonzero(found_T):
        aligned_K2 = mesh_1P2[0, KEPT] = carried(points_TK2[index][None], transform_T23[index][None])[0]
        x0, y0, x1, y1 = lower_face_boxes(mesh_1P2, crop.size)[0]
        middle_2 = aligned_K2.mean(axis=0)  # which may have left a still crop
        inside = ((middle_2 >= 0) & (middle_2 <= crop.size)).all()
        # A face in profile hides the half of the mouth that the network knows.
        if inside and x1 - x0 >= masks.min_width and y1 - y0 >= masks.min_height:
            points_TK2[index], box_T4[index] = aligned_K2, (x0, y0, x1, y1)
        else:
            points_TK2[index] = transform_T23[index] = np.nan
    return Places(shot_T, transform_T23, box_T4, points_TK2)


def transforms(stable_T52: np.ndarray, found_T: np.ndarray, shot_T: np.ndarray, crop: Crop) -> np.ndarray:
    """`(T, 2, 3)` float32, source pixels to aligned pixels, where a face was found, and NaN elsewhere.

    A crop that moves follows the stable points, averaged over `crop.smoothing` frames; a still one has a single transform in
    each shot, to where they are there in the median.
    """
    transform_T23 = np.full((len(shot_T), 2, 3), np.nan, np.float32)
    if crop.smoothing == 0:
        for shot in np.unique(shot_T[found_T]):
            of_shot_T = found_T & (shot_T == shot)
            transform_T23[of_shot_T] = fit(np.median(stable_T52[of_shot_T], axis=0), crop)
        return transform_T23
    edges = np.flatnonzero(np.diff(found_T, prepend=False, append=False) | np.diff(shot_T, prepend=-1, append=-1).astype(bool))
    for start, end in pairwise(edges):
        if found_T[start]:
            transform_T23[start:end] = [fit(stable_52, crop) for stable_52 in smooth(stable_T52[start:end], crop.smoothing)]
    return transform_T23


def chosen_points(tracker: FaceTracker, face: Face) -> np.ndarray:
    """`(T, K, 2)` float32 points KEPT of the chosen face, source pixels; NaN where it was not seen.

    A face that was away for long is another track when it is back, so the choice is made among tracks that are seen together,
    and all that were never seen beside the chosen ones are taken to be the same face.
    """
    points_TK2 = np.full((tracker.frames, len(KEPT), 2), np.nan, np.float32)
    left = sorted(tracker.tracks, key=lambda track: -track.area(None))
    while left:
        rivals = [left[0], *(track for track in left[1:] if together(left[0], track))][:2]
        if face == "largest":
            chosen = rivals[0]
        else:
            chosen = (min if face == "left" else max)(rivals, key=lambda track: np.mean([x for x, _ in track.centres]))
        for frame, points in zip(chosen.frames, chosen.points, strict=True):
            if np.isnan(points_TK2[frame, 0, 0]):
                points_TK2[frame] = points
        left = [track for track in left if track is not chosen and not together(chosen, track)]
    return points_TK2


def together(one: Track, other: Track) -> bool:
    """Whether two tracks are two faces in one picture."""
    shared = len(set(one.frames) & set(other.frames))
    return shared > SHARED * min(len(one.frames), len(other.frames))


def jumps(points_TK2: np.ndarray) -> np.ndarray:
    """`(T,)` bool: the face is seen here and in the frame before, and did not get from there to here by moving."""
    centre_T2 = points_TK2[:, STABLE].mean(axis=1)
    right_T2, left_T2 = points_TK2[:, OUTER_CORNERS[0]], points_TK2[:, OUTER_CORNERS[1]]
    width_T = np.linalg.norm(left_T2 - right_T2, axis=1).clip(1e-3)
    moved = np.linalg.norm(np.diff(centre_T2, axis=0), axis=1) / width_T[:-1]
    scaled = np.exp(np.abs(np.diff(np.log(width_T))))
    return np.concatenate(([False], (moved > JUMP) | (scaled > SCALE_JUMP)))[: len(points_TK2)]
