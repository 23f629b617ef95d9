"""What the editor is made of: shots and faces, the order of frames, what the network is asked, what is pasted."""

import cv2
import numpy as np
import pytest
import torch

import stages.edit.film as film
from data.media.video import frames_at
from models.video_editing.config import PRESETS
from stages.align import warp
from stages.edit.film import played
from stages.edit.painting import Painted, painted
from stages.edit.pasting import Paster
from stages.edit.shots import Face, Places, find_places
from stages.judges.frames import paste_back, seam_weights
from stages.metrics.image import box_mask
from tests.media import astronaut, talking
from tests.stages.params import ALIGN, MASKS

CROP = ALIGN.crops["face"]
SEAM = 4


def places_of(frames: list[np.ndarray], face: Face = "largest") -> Places:
    return find_places(frames, face, CROP, MASKS)


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
    for name in ("shots", "transforms", "boxes"):
        assert np.array_equal(getattr(again, name), getattr(places, name), equal_nan=name == "transforms")


class Asked:
    """A painter that paints its number and remembers what it was asked."""

    config = PRESETS["sample"]

    def __init__(self):
        self.examples = {}

    def paint(self, index, example):
        self.examples[index] = example
        face, (x0, y0, x1, y1) = example.frame.numpy().copy(), example.box
        face[y0:y1, x0:x1] = index
        return face


def test_identity_and_previous_frames_start_anew_in_each_shot(talk, tmp_path):
    blank = [np.zeros_like(talk[0])] * 3
    frames = [*talk[:4], *blank, *talk[4:6], *(frame[:, ::-1] for frame in talk[:3])]
    found = places_of(frames)
    assert found.found.tolist() == [True] * 4 + [False] * 3 + [True] * 5
    order = [*range(12), 10, 9]  # and two frames back again
    painter, windows = Asked(), np.arange(14, dtype=np.float32)[:, None].repeat(1024, axis=1)
    made = list(painted(((index, frames[index]) for index in order), found, windows, painter, tmp_path))
    assert [one is None for _, one in made] == [False] * 4 + [True] * 3 + [False] * 7
    real = {index: warp(frames[index], found.transforms[index], CROP.size) for index in order if found.found[index]}
    before = {0: None, 1: 0, 2: 1, 3: 2, 7: None, 8: 7, 9: None, 10: 9, 11: 10, 12: 11, 13: 12}
    assert set(painter.examples) == set(before)
    for index, example in painter.examples.items():
        source = order[index]
        first = 0 if source < 4 else 7 if source < 9 else 9
        assert np.array_equal(example.frame, real[source])
        assert np.array_equal(example.identity, real[first])
        expected = real[first] if before[index] is None else made[before[index]][1].face
        assert np.array_equal(example.previous, expected)
        assert torch.equal(example.audio, torch.full((1024,), float(index)))
        assert np.array_equal(example.box, found.boxes[source])
    # Read back from the disk it is the same.
    again = list(painted(((index, frames[index]) for index in order), found, windows, Asked(), tmp_path))
    assert all(one is None or np.array_equal(one.face, other.face) for (_, one), (_, other) in zip(made, again, strict=True))


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
