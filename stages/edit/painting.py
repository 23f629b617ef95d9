"""The face of each frame painted anew, by any system's painter, and kept for a run that goes on after a kill."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.files import atomic_file
from models.painting import Painter, Unpainted
from stages.align import warp
from stages.edit.shots import Places

KEPT_FRAMES = 100  # painted between two moments at which a killed run can go on: four seconds


class Painted(NamedTuple):
    """One face, in the aligned crop of a frame."""

    face: np.ndarray  # (S, S, 3) uint8, painted inside the box
    real: np.ndarray  # (S, S, 3) uint8, as it was
    box: np.ndarray  # (4,) int16, x0 y0 x1 y1, half open
    transform_23: np.ndarray  # float32, source pixels to aligned pixels
    shot: int  # its number


@dataclass(frozen=True)
class Shown:
    """One frame as the film shows it."""

    run: int  # number of the run that it is in; a frame without a face is alone
    index: int  # in the film
    source: int  # in the source
    frame: np.ndarray  # (H, W, 3) uint8


def painted(
    frames: Iterable[tuple[int, np.ndarray]], places: Places, heard_N: np.ndarray, painter: Painter, folder: Path
) -> Iterator[tuple[np.ndarray, Painted | None]]:
    """For each of the N frames of the film, the source's frame and its painted face; None where there is no face to paint.

    frames: index in the source, and the frame. heard_N: of painter.windows. folder: keeps the paint of finished stretches; a
    painter begins each of them anew from the face before, so that a film is the same however often its run broke off.
    In memory are as many of the source's frames as the painter reads ahead, the paint of one stretch, and each shot's identity.
    """
    found_T, cropped = places.found, Cropper(places, heard_N, painter.size)
    source_before, face_before = -2, np.empty(0, np.uint8)
    shown = runs(frames, places)
    for start in range(0, len(heard_N), KEPT_FRAMES):
        kept = folder / f"{start:08d}.npz"
        known = kept.exists()
        paint = put_back(kept) if known else painter.paint
        patches: list[np.ndarray] = []
        for _, run in groupby(islice(shown, min(KEPT_FRAMES, len(heard_N) - start)), lambda one: one.run):
            first = next(run)
            if not found_T[first.source]:
                yield first.frame, None
                continue
            follows = neighbours(first.source, source_before, places)
            waiting: deque[tuple[Shown, Unpainted]] = deque()
            for face in paint(handed(chain([first], run), cropped, waiting), face_before if follows else None):
                one, unpainted = waiting.popleft()
                x0, y0, x1, y1 = unpainted.box
                patches.append(face[y0:y1, x0:x1].copy())
                source_before, face_before = one.source, face
                transform_23, shot = places.transforms[one.source], int(places.shots[one.source])
                yield one.frame, Painted(face, unpainted.real, unpainted.box, transform_23, shot)
            if waiting:
                raise RuntimeError(f"{type(painter)} was handed {len(waiting)} frames that it did not paint")
        if not known:
            with atomic_file(kept) as file:
                np.savez_compressed(file, *patches)


def runs(frames: Iterable[tuple[int, np.ndarray]], places: Places) -> Iterator[Shown]:
    """The film's frames: in one run are those with a face, of one shot, each a neighbour in time of the one before."""
    found_T, run, before = places.found, 0, -2
    for index, (source, frame) in enumerate(frames):
        run += not (found_T[source] and neighbours(source, before, places) and found_T[before])
        yield Shown(run, index, source, frame)
        before = source


def neighbours(source: int, before: int, places: Places) -> bool:
    """Whether two frames of the source, or one and itself, follow each other in one shot."""
    return abs(source - before) <= 1 and places.shots[source] == places.shots[before]


class Cropper:
    """Cuts the faces out for a painter. The identity frame is the shot's first one with a face, as it was filmed."""

    def __init__(self, places: Places, heard_N: np.ndarray, size: int):
        self._places, self._heard_N, self._size = places, heard_N, size
        self._identities: dict[int, np.ndarray] = {}  # of each shot

    def __call__(self, one: Shown) -> Unpainted:
        places, source = self._places, one.source
        real = warp(one.frame, places.transforms[source], self._size)
        identity = self._identities.setdefault(places.shots[source], real)
        return Unpainted(one.index, real, identity, places.boxes[source], places.landmarks[source], self._heard_N[one.index])


def handed(run: Iterable[Shown], cropped: Cropper, waiting: deque[tuple[Shown, Unpainted]]) -> Iterator[Unpainted]:
    """What a painter reads of a run. waiting: takes each frame as it is read, until its face is painted."""
    for one in run:
        unpainted = cropped(one)
        waiting.append((one, unpainted))
        yield unpainted


def put_back(kept: Path) -> Callable[[Iterable[Unpainted], np.ndarray | None], Iterator[np.ndarray]]:
    """Paints a stretch as it was painted: each patch of a file that an earlier run left goes into its box."""
    with np.load(kept) as arrays:
        patches = iter([arrays[f"arr_{index}"] for index in range(len(arrays.files))])

    def paint(frames: Iterable[Unpainted], before: np.ndarray | None) -> Iterator[np.ndarray]:
        for frame in frames:
            face, (x0, y0, x1, y1) = frame.real.copy(), frame.box
            face[y0:y1, x0:x1] = next(patches)
            yield face

    return paint
