"""What of a frame is hidden from the network and painted, in pixels: one definition for training and generation.

The release blackens three different shapes: from the tip of the nose down in training ("nose_tip"), from its base in inference
("nose_base"), and for sampling a polygon of the jaw ("jaw"). "box" is the column `mask`, which the other system paints and all
are scored on.
"""

from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from data.mesh import LANDMARKS_68

Shape = Literal["box", "nose_tip", "nose_base", "jaw"]

# Among the 68 landmarks.
ROWS_FROM = {"nose_tip": 30, "nose_base": 33}
JAW = (*range(2, 15), 33)


def pixel_mask(shape: Shape, size: int, box_4: np.ndarray, landmarks_68x2: np.ndarray) -> np.ndarray:
    """`(size, size)` bool, true where the frame is painted.

    box: x0 y0 x1 y1, half open. landmarks: 68 points in pixels, as data.mesh.LANDMARKS_68 orders them.
    """
    if shape == "box":
        rows, columns = np.ogrid[:size, :size]
        x0, y0, x1, y1 = box_4
        return (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    if shape == "jaw":
        picture = Image.new("1", (size, size))
        ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in landmarks_68x2[list(JAW)]], fill=1)
        return np.array(picture)
    if shape not in get_args(Shape):
        raise ValueError(f"no such mask: {shape!r} of {get_args(Shape)}")
    first = np.clip(np.rint(landmarks_68x2[ROWS_FROM[shape], 1]), 0, size)
    return np.repeat(np.arange(size)[:, None] >= first, size, axis=1)


def masks_of(shape: Shape, size: int, boxes_T4: np.ndarray, landmarks_TP3: np.ndarray) -> np.ndarray:
    """`(T, size, size)` bool masks of a clip's frames, of its columns `mask` and `landmarks`."""
    points_T68x2 = landmarks_TP3[:, LANDMARKS_68, :2]
    return np.stack([pixel_mask(shape, size, box_4, points) for box_4, points in zip(boxes_T4, points_T68x2, strict=True)])


def hidden(frames_THW3: np.ndarray, masks_THW: np.ndarray) -> np.ndarray:
    """The uint8 frames, black where they are painted: before normalisation, as released."""
    return np.where(masks_THW[..., None], np.uint8(0), frames_THW3)
