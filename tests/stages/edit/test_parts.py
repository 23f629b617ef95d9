"""What the editor is made of: shots and faces, the order of frames, what a painter is asked, what is pasted."""

import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

import stages.edit.film as film
import stages.edit.painting as painting
from data.media.video import frames_at
from data.mesh import LANDMARKS_68
from stages.align import Crop, warp
from stages.edit.film import played
from stages.edit.painting import Painted, painted
from stages.edit.pasting import Paster
from stages.edit.shots import Face, Places, find_places
from stages.faces import carried
from stages.judges.frames import paste_back, seam_weights
from stages.metrics.image import box_mask
from stages.tracking import FaceTracker
from tests.media import astronaut, talking
from tests.stages.edit.making import Mirror
from tests.stages.params import ALIGN, MASKS

CROP, STILL = ALIGN.crops["face"], ALIGN.crops["square"]
SEAM = 4


def places_of(frames: list[np.ndarray], face: Face = "largest", crop: Crop = CROP) -> Places:
    return find_places(frames, face, crop, MASKS)


def centres(places: Places) -> np.ndarray:
    """`(T, 2)` x and y of the crop's middle in the source."""
    middle = np.full(2, (CROP.size - 1) / 2)
    return np.array([np.linalg.solve(one[:, :2], middle - one[:, 2]) for one in places.transforms[places.found]])


@pytest.fixture(scope="module")
def talk() -> list[np.ndarray]:
    return [astronaut(index / 25, shift=4 * np.sin(index / 5)) for index in range(12)]


@pytest.fixture(scope="module")
def places(talk) -> Places:
    return places_of(talk)


def test_one_shot_is_one_shot(places):
    assert places.found.all()
    assert not places.shots.any()
    assert (places.boxes[:, 3] == CROP.size).all()


@pytest.mark.parametrize("face, low, high", [("left", 0, 320), ("right", 320, 640)])
def test_the_chosen_one_of_two_faces(face, low, high):
    both = [astronaut(index / 25, faces=2) for index in range(6)]
    found = places_of(both, face)
    assert found.found.sum() >= 5  # the second face may need a frame to be noticed
    assert ((centres(found)[:, 0] > low) & (centres(found)[:, 0] < high)).all()


def test_the_largest_face_for_the_longest_time(talk):
    small = np.concatenate(
        [talk[0], cv2.copyMakeBorder(cv2.resize(talk[0], (256, 288)), 0, 72, 0, 0, cv2.BORDER_REPLICATE)], axis=1
    )
    assert (centres(places_of([small] * 5))[:, 0] < 320).all()
    assert (centres(places_of([small] * 5, "right"))[:, 0] > 320).any()


def test_a_cut_and_a_zoom_begin_shots(talk):
    mirrored = [frame[:, ::-1] for frame in talk]
    two = places_of([*talk, *mirrored])
    assert two.shots.tolist() == [0] * 12 + [1] * 12
    assert two.found.all()
    # No smoothing over the cut: each shot's transforms are what they are alone.
    assert np.array_equal(two.transforms[:12], places_of(talk).transforms)
    assert np.array_equal(two.transforms[12:], places_of(mirrored).transforms)
    closer = [np.repeat(np.repeat(frame[40:220, 80:240], 2, axis=0), 2, axis=1) for frame in talk]
    assert places_of([*talk, *closer]).shots.tolist() == [0] * 12 + [1] * 12


def test_places_are_kept_as_they_are(places, tmp_path):
    places.write(tmp_path / "places.npz")
    again = Places.read(tmp_path / "places.npz")
    for name in ("shots", "transforms", "boxes", "landmarks"):
        assert np.array_equal(getattr(again, name), getattr(places, name), equal_nan=True)


@pytest.mark.parametrize("crop", [CROP, STILL])
def test_landmarks_are_the_detector_s_in_the_crop(talk, crop):
    tracker, found = FaceTracker(), places_of(talk, crop=crop)
    for frame in talk:
        tracker.see(frame)
    expected = carried(tracker.landmarks(), found.transforms)[:, LANDMARKS_68, :2]
    assert found.landmarks.dtype == np.float32
    assert np.abs(found.landmarks - expected).max() < 1e-3
    assert not np.isnan(found.landmarks).any()


def test_a_still_crop_has_one_transform_in_each_shot(talk):
    blank = np.zeros_like(talk[0])
    mirrored = [frame[:, ::-1] for frame in talk]
    two = places_of([*talk[:6], blank, *talk[6:], *mirrored], crop=STILL)
    assert two.shots.tolist() == [0] * 13 + [1] * 12 or two.shots.tolist() == [0] * 6 + [1] + [2] * 6 + [3] * 12
    for shot in np.unique(two.shots[two.found]):
        transforms = two.transforms[two.found & (two.shots == shot)]
        assert (transforms == transforms[0]).all()
        assert transforms[0, 0, 1] == transforms[0, 1, 0] == 0, "it does not turn with the head"
    # The face moves in it, and the box with the face.
    moved = two.landmarks[two.shots == two.shots[-1], 30, 0]
    assert np.ptp(moved) > 5
    assert np.ptp(two.boxes[two.shots == two.shots[-1], 0]) > 3


def test_a_face_that_leaves_a_still_crop_is_not_painted():
    frames = [astronaut(0.0, shift=-0.08 * index**2) for index in range(40)]
    found = places_of(frames, crop=STILL)
    assert not found.shots.any()
    assert found.found[:25].all()
    assert not found.found[-2:].any()
    assert np.isnan(found.landmarks[-2:]).all()
    assert (found.landmarks[found.found].mean(axis=1) >= 0).all()


class Asked:
    """A painter that paints its number and remembers what it was asked."""

    size = CROP.size

    def __init__(self):
        self.frames, self.before, self.runs = {}, {}, []

    def paint(self, frames, before):
        self.runs.append([])
        for frame in frames:
            self.runs[-1].append(frame.index)
            self.frames[frame.index], self.before[frame.index] = frame, before
            before, (x0, y0, x1, y1) = frame.real.copy(), frame.box
            before[y0:y1, x0:x1] = frame.index
            yield before


def test_identity_and_runs_start_anew_in_each_shot(talk, tmp_path):
    blank = [np.zeros_like(talk[0])] * 3
    frames = [*talk[:4], *blank, *talk[4:6], *(frame[:, ::-1] for frame in talk[:3])]
    found = places_of(frames)
    assert found.found.tolist() == [True] * 4 + [False] * 3 + [True] * 5
    order = [*range(12), 10, 9]  # and two frames back again
    painter, heard = Asked(), np.arange(14, dtype=np.float32)
    made = list(painted(((index, frames[index]) for index in order), found, heard, painter, tmp_path))
    assert [one is None for _, one in made] == [False] * 4 + [True] * 3 + [False] * 7
    assert painter.runs == [[0, 1, 2, 3], [7, 8], [9, 10, 11, 12, 13]]
    real = {index: warp(frames[index], found.transforms[index], CROP.size) for index in order if found.found[index]}
    for index, frame in painter.frames.items():
        source = order[index]
        first = 0 if source < 4 else 7 if source < 9 else 9
        assert np.array_equal(frame.real, real[source])
        assert np.array_equal(frame.identity, real[first])
        assert (painter.before[index] is None) == (index in (0, 7, 9))
        assert frame.heard == index
        assert np.array_equal(frame.box, found.boxes[source])
        assert np.array_equal(frame.landmarks, found.landmarks[source])
    # Read back from the disk it is the same.
    again = list(painted(((index, frames[index]) for index in order), found, heard, Asked(), tmp_path))
    assert all(one is None or np.array_equal(one.face, other.face) for (_, one), (_, other) in zip(made, again, strict=True))


def test_one_frame_without_a_face_where_the_film_turns_back_does_not_end_the_shot(talk, tmp_path):
    frames = [*talk[:3], np.zeros_like(talk[0])]
    order, painter = [0, 1, 2, 3, 2, 1], Asked()
    made = list(painted(((i, frames[i]) for i in order), places_of(frames), np.zeros(6, np.float32), painter, tmp_path))
    assert painter.runs == [[0, 1, 2], [4, 5]]
    assert np.array_equal(painter.before[4], made[2][1].face)


@pytest.fixture(scope="module")
def scenes(talk) -> tuple[list[np.ndarray], Places, list[int]]:
    """Two shots and a stretch without a face, their places, and the order in which they are shown: forth, back and forth."""
    frames = [*talk[:8], *[np.zeros_like(talk[0])] * 20, *talk[8:], *(frame[:, ::-1] for frame in talk)]
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1), *range(len(frames))]
    return frames, places_of(frames), order


def film_of(scenes, batch_size: int, folder: Path, count: int | None = None) -> list:
    """The first `count` frames of the film by a painter that reads a batch ahead."""
    frames, found, order = scenes
    painter, heard = Mirror(folder, "", 1, batch_size, 0), np.linspace(0, 100, len(order), dtype=np.float32)
    made = painted(((source, frames[source]) for source in order), found, heard, painter, folder)
    return [one for one, _ in zip(made, range(count or len(order)), strict=False)]


def same(one: list, other: list) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        a is b and (p is q or (np.array_equal(p.face, q.face) and np.array_equal(p.real, q.real) and p.shot == q.shot))
        for (a, p), (b, q) in pairs
    )


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_a_painter_that_reads_ahead_paints_each_frame_s_own_face(scenes, tmp_path, monkeypatch, batch_size):
    monkeypatch.setattr(painting, "KEPT_FRAMES", 30)
    for name in ("one", "ahead"):
        (tmp_path / name).mkdir()
    frames, found, order = scenes
    ahead = film_of(scenes, batch_size, tmp_path / "ahead")
    assert same(ahead, film_of(scenes, 1, tmp_path / "one"))
    assert len(ahead) == len(order)
    for source, (frame, one) in zip(order, ahead, strict=True):
        assert frame is frames[source]
        assert (one is not None) == found.found[source]
        if one is not None:
            x0, y0, x1, y1 = found.boxes[source]
            changed = (one.face != warp(frame, found.transforms[source], CROP.size)).any(axis=-1)
            assert changed[y0:y1, x0:x1].mean() > 0.5
            changed[y0:y1, x0:x1] = False
            assert not changed.any()


def test_a_stretch_is_the_same_wherever_the_film_broke_off(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(painting, "KEPT_FRAMES", 30)
    (tmp_path / "whole").mkdir()
    whole = film_of(scenes, 7, tmp_path / "whole")
    for count in (29, 31, 64, 95):
        (folder := tmp_path / str(count)).mkdir()
        assert same(film_of(scenes, 7, folder, count), whole[:count])
        assert same(film_of(scenes, 7, folder), whole)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_no_more_frames_are_held_than_the_painter_reads_ahead(scenes, tmp_path, batch_size):
    frames, found, order = scenes
    alive, most = weakref.WeakSet(), 0

    class Frame(np.ndarray):
        __hash__ = object.__hash__

    def told():
        for source in order:
            frame = frames[source].copy().view(Frame)
            alive.add(frame)
            yield source, frame

    painter = Mirror(tmp_path, "", 1, batch_size, 0)
    for _ in painted(told(), found, np.zeros(len(order), np.float32), painter, tmp_path):
        most = max(most, len(alive))
    assert most <= batch_size + 3


def test_a_painter_that_leaves_frames_unpainted_is_found_out(talk, places, tmp_path):
    class Lazy(Asked):
        def paint(self, frames, before):
            *_, last = frames
            yield last.real

    with pytest.raises(RuntimeError, match="11 frames that it did not paint"):
        list(painted(enumerate(talk), places, np.zeros(12, np.float32), Lazy(), tmp_path))


@pytest.mark.parametrize("shift", [0, -150])  # the second face is cut by the picture's edge
def test_outside_of_the_mask_no_pixel_changes(talk, places, shift):
    transform_23 = places.transforms[0].copy()
    transform_23[:, 2] -= transform_23[:, :2] @ (shift, 0)
    source, box = np.roll(talk[0], shift, axis=1), places.boxes[0]
    random = np.random.default_rng(0)
    real = warp(source, transform_23, CROP.size)
    face = np.where(box_mask(box[None], CROP.size, CROP.size)[0][..., None], random.integers(0, 256, real.shape, np.uint8), real)
    result = Paster(SEAM).paste(source, Painted(face, real, box, transform_23, 0))
    y, x = np.mgrid[: source.shape[0], : source.shape[1]]
    aligned_HW2 = np.stack((x, y), axis=-1) @ transform_23[:, :2].T + transform_23[:, 2]
    x0, y0, x1, y1 = box
    outside = ((aligned_HW2 < (x0 - 1.1, y0 - 1.1)) | (aligned_HW2 > (x1 + 0.1, y1 + 0.1))).any(axis=-1)
    assert np.array_equal(result[outside], source[outside])
    inside = ((aligned_HW2 > (x0 + SEAM, y0 + SEAM)) & (aligned_HW2 < (x1 - SEAM, y1 - SEAM))).all(axis=-1)
    assert (result[inside] != source[inside]).mean() > 0.9
    assert Paster(SEAM).paste(source, None) is source


def test_pasting_a_part_is_pasting_the_whole(talk, places):
    real = warp(talk[3], places.transforms[3], CROP.size)
    weight = seam_weights(places.boxes[3][None], CROP.size, SEAM)[0]
    whole = paste_back(talk[3], real, weight, places.transforms[3])
    part = Paster(SEAM).paste(talk[3], Painted(real, real, places.boxes[3], places.transforms[3], 0))
    assert np.abs(whole.astype(int) - part).max() <= 5  # OpenCV rounds positions to 1/32 pixel


def test_a_face_of_another_brightness_is_brought_to_its_surroundings(talk, places):
    real = warp(talk[3], places.transforms[3], CROP.size)
    darker = np.rint(real.astype(float).clip(30, 225) - (20, 10, 5)).astype(np.uint8)
    same, matched = (
        Paster(SEAM).paste(talk[3], Painted(face, real, places.boxes[3], places.transforms[3], 0)).astype(int)
        for face in (real.clip(30, 225), darker)
    )
    assert np.abs(matched - same).max() <= 2


def test_the_seam_is_no_edge_and_the_middle_does_not_flicker(talk, places):
    """A face whose colour is off by another amount in each frame, more so on its left."""
    paster, random = Paster(SEAM), np.random.default_rng(0)
    slope_W1 = np.linspace(12, 0, CROP.size)[:, None]
    edges, levels = [], []
    for box, transform_23 in zip(places.boxes, places.transforms, strict=True):
        real = warp(talk[0], transform_23, CROP.size)
        face = np.rint(real + slope_W1 + random.normal(8, 3)).clip(0, 255).astype(np.uint8)
        face = np.where(box_mask(box[None], CROP.size, CROP.size)[0][..., None], face, real)
        result = warp(paster.paste(talk[0], Painted(face, real, box, transform_23, 0)), transform_23, CROP.size).astype(float)
        x0, y0, x1, _ = box
        across = [
            np.abs(picture[y0:, x0 - 1] - picture[y0:, x0]).mean() + np.abs(picture[y0 - 1, x0:x1] - picture[y0, x0:x1]).mean()
            for picture in (result, real.astype(float))
        ]
        edges.append(across[0] / across[1])
        levels.append((result - real)[y0 + 15 : -15, x0 + 15 : x1 - 15].mean())
    assert 0.9 < np.mean(edges) < 1.1
    assert np.abs(np.diff(levels)).mean() < 1.5 * 3  # no more than it did


def test_forth_and_back_again(tmp_path, monkeypatch):
    path = talking(tmp_path / "talker.mp4", seconds=0.4, fps=30)
    forth = list(frames_at(path, 25))
    assert len(forth) == 10
    monkeypatch.setattr(film, "BACKWARDS_BYTES", 3 * forth[0].nbytes)
    for length, expected in (
        ("loop", [*range(10), *range(8, 0, -1), *range(10)]),
        ("hold", [*range(10), *[9] * 18]),
    ):
        shown = [next_one for next_one, _ in zip(played(path, 10, 25, length), range(28), strict=False)]
        assert [index for index, _ in shown] == expected
        assert all(np.array_equal(frame, forth[index]) for index, frame in shown)
    assert [index for (index, _), _ in zip(played(path, 1, 25, "loop"), range(3), strict=False)] == [0, 0, 0]
    assert [index for (index, _), _ in zip(played(path, 2, 25, "loop"), range(5), strict=False)] == [0, 1, 0, 1, 0]
