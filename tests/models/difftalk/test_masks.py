from typing import get_args

import numpy as np
import pytest
from skimage.draw import polygon2mask

from data.mesh import LANDMARKS_68
from models.difftalk.masks import JAW, Shape, hidden, masks_of, pixel_mask

BOX = np.array([2, 3, 6, 8], np.int16)
# The lower half of a face in 12 x 12 pixels: down the right of the jaw, along its bottom, up its left, and the base of the nose.
CONTOUR = [(1, 4), (1, 5), (1, 7), (1, 9), (2, 9), (4, 9), (5, 9), (6, 9), (8, 9), (10, 9), (10, 7), (10, 5), (10, 4), (5, 4)]


def landmarks():
    points = np.full((68, 2), -5.0, np.float32)
    points[list(JAW)] = CONTOUR
    points[30], points[33] = (6.4, 2.4), (5, 4)  # tip and base of the nose
    return points


def rectangle(x0, y0, x1, y1, size=12):
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    "shape, expected",
    [
        ("box", rectangle(2, 3, 6, 8)),
        ("nose_tip", rectangle(0, 2, 12, 12)),
        ("nose_base", rectangle(0, 4, 12, 12)),
        ("jaw", rectangle(1, 4, 11, 10)),  # the outline belongs to it
    ],
)
def test_each_shape(shape, expected):
    mask = pixel_mask(shape, 12, BOX, landmarks())
    assert mask.dtype == bool and np.array_equal(mask, expected)


def test_the_jaw_is_the_polygon_of_its_points():
    """As scikit-image fills it, but for pixels on the outline.

    Pillow moves the corners to whole pixels, by up to the root of 2, and draws lines between those, to half a pixel.
    """
    random = np.random.default_rng(0)
    for _ in range(20):
        angles = np.linspace(0, np.pi, 13) + random.uniform(-0.1, 0.1, 13)
        points = landmarks()
        points[list(JAW[:-1])] = 30 + random.uniform(15, 25) * np.stack([-np.cos(angles), np.sin(angles)], axis=1)
        points[33] = random.uniform(25, 35, 2)
        ours = pixel_mask("jaw", 64, BOX, points)
        theirs = polygon2mask((64, 64), points[list(JAW)][:, ::-1])
        assert ours.sum() > 300
        for y, x in np.argwhere(ours != theirs):
            ends = points[list(JAW)].astype(float), np.roll(points[list(JAW)], -1, axis=0).astype(float)
            along = ends[1] - ends[0]
            at = np.clip((((x, y) - ends[0]) * along).sum(1) / (along**2).sum(1), 0, 1)[:, None]
            assert np.linalg.norm(ends[0] + at * along - (x, y), axis=1).min() <= 2**0.5 + 0.5


@pytest.mark.parametrize("shape", get_args(Shape))
@pytest.mark.parametrize("beyond", [(-40, 0), (40, 0), (0, -40), (0, 40), (5, 5), (-5, -5)])
def test_landmarks_outside_the_frame_are_no_matter(shape, beyond):
    box = BOX + np.array([*beyond, *beyond], np.int16)
    mask = pixel_mask(shape, 12, box, landmarks() + np.array(beyond, np.float32))
    assert mask.shape == (12, 12) and mask.dtype == bool
    # What there is of a shape moves with the landmarks.
    large = pixel_mask(shape, 112, box + 50, landmarks() + np.array(beyond, np.float32) + 50)
    if shape in ("box", "jaw"):
        assert np.array_equal(mask, large[50:62, 50:62])
    else:
        assert np.array_equal(mask[:, 0], large[50:62, 0]) and (mask == mask[:, :1]).all()


def test_a_clip_s_masks_are_those_of_its_frames():
    random = np.random.default_rng(0)
    points = random.uniform(0, 12, (3, 478, 3)).astype(np.float32)
    boxes = np.array([BOX, BOX + 1, BOX + 2], np.int16)
    for shape in get_args(Shape):
        masks = masks_of(shape, 12, boxes, points)
        assert masks.shape == (3, 12, 12)
        for mask, box, landmarks_478 in zip(masks, boxes, points, strict=True):
            assert np.array_equal(mask, pixel_mask(shape, 12, box, landmarks_478[list(LANDMARKS_68), :2]))


def test_hidden_is_black_inside_and_as_it_was_outside():
    frames = np.random.default_rng(0).integers(1, 256, (2, 12, 12, 3), np.uint8)
    before = frames.copy()
    masks = np.stack([rectangle(2, 3, 6, 8), rectangle(0, 4, 12, 12)])
    made = hidden(frames, masks)
    assert made.dtype == np.uint8 and not made[masks].any()
    assert np.array_equal(made[~masks], frames[~masks]) and np.array_equal(frames, before)


def test_another_shape_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no such mask: 'mouth'.*jaw"):
        pixel_mask("mouth", 12, BOX, landmarks())
