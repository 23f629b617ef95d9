"""A painted face back in its frame: in the colour of what surrounds it, with a soft seam, and nothing else touched."""

import cv2
import numpy as np

from stages.edit.painting import Painted
from stages.judges.frames import paste_back, seam_weights

# Share of a frame's offset of colour that its shot's takes on: an average over about a second. Each frame's own, which swings
# with what the jaw bares, doubled the flicker of the painted mouth (two GRID clips, HDTF, Obama; an early network).
NEW_SHARE = 0.04


class Paster:
    """Pastes the faces of a film, in its order, and knows how far the colours of the current shot's paint are off.

    seam: aligned pixels over which a painted face fades into the real one, inside the box.
    """

    def __init__(self, seam: int):
        self._seam = seam
        self._shot = -1
        self._offset_3 = np.zeros(3)

    def paste(self, source: np.ndarray, painted: Painted | None) -> np.ndarray:
        """The source's frame `(H, W, 3)` uint8 with the painted face; the same array where there is none."""
        if painted is None:
            return source
        size = len(painted.face)
        weight = seam_weights(painted.box[None], size, self._seam)[0]
        face = self._matched(painted, weight)
        x0, y0, x1, y1 = around(painted.transform_23, size, *source.shape[:2])
        if x0 >= x1 or y0 >= y1:
            return source
        shifted_23 = painted.transform_23.astype(np.float64)
        shifted_23[:, 2] += shifted_23[:, :2] @ (x0, y0)
        result = source.copy()
        result[y0:y1, x0:x1] = paste_back(source[y0:y1, x0:x1], face, weight, shifted_23)
        return result

    def _matched(self, painted: Painted, weight: np.ndarray) -> np.ndarray:
        """The painted face in the colours of the real one: near the seam by what is off there, else as in the shot so far."""
        band = ((weight > 0) & (weight < 1)).astype(np.float32)
        difference = painted.real.astype(np.float32) - painted.face
        median_3 = np.median(difference[band > 0], axis=0)
        new = painted.shot != self._shot
        self._shot, self._offset_3 = painted.shot, median_3 if new else self._offset_3 + NEW_SHARE * (median_3 - self._offset_3)
        # The mean of what remains to correct in the seam nearby, less and less towards the middle.
        remaining = blurred((difference - self._offset_3).astype(np.float32) * band[..., None], self._seam)
        nearness = blurred(band, self._seam)[..., None]
        remaining /= np.maximum(nearness, nearness.max() / 2)
        return np.rint(painted.face + self._offset_3 + remaining).clip(0, 255).astype(np.uint8)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def around(transform_23: np.ndarray, size: int, height: int, width: int) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1, half open, of the source's pixels in which the aligned crop lies."""
    corners_42 = np.array([(-1, -1), (size, -1), (size, size), (-1, size)])
    corners_42 = (corners_42 - transform_23[:, 2]) @ np.linalg.inv(transform_23[:, :2]).T
    low, high = np.floor(corners_42.min(axis=0)).astype(int), np.ceil(corners_42.max(axis=0)).astype(int) + 1
    return max(0, low[0]), max(0, low[1]), min(width, high[0]), min(height, high[1])
