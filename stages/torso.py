"""Torso and neck of a frame as they go on beneath the head: what its head is rendered over, and what a torso is trained to be.

As AD-NeRF and GeneFace prepare them (release): each column of a picture goes on upward from where the head hides it, in the
colour that it has there, a little darker with every pixel. Lengths are in pixels of the release's pictures; others are scaled.

The release dilates the neck, so that no slit stays open between it and the head; here the columns reach across the slit, and
what is background stays it.
"""

import cv2
import numpy as np

RELEASE = 512  # height of the release's pictures
TORSO_REACH = 9  # by which a column of torso goes on beneath the head
NECK_REACH = 53  # and one of neck, from where its colour is taken
PUSH = 4  # below the neck's edge is where its colour is taken: skin, not chin
SLIT = 3  # between neck and head, at most
FADING = 0.98  # of the colour with each pixel upward
BLUR = 2  # to each side of a pixel of painted neck is what it is averaged over: else its columns are stripes


def torso_picture(frame: np.ndarray, head: np.ndarray, torso: np.ndarray, neck: np.ndarray) -> np.ndarray:
    """`(H, W, 4)` uint8 RGBA of an `(H, W, 3)` uint8 RGB frame and the `(H, W)` bool masks of its parts.

    Opaque where there is torso or neck, or where one is painted beneath the head; elsewhere all zero.
    """
    height = len(frame)
    colours, person, fading = frame.copy(), head | torso | neck, FADING ** (RELEASE / height)

    edge_W = upper_edge(torso)
    under_torso = person & above(edge_W, scaled(TORSO_REACH, height), torso.shape) & touching(head, edge_W, 1)
    paint(colours, under_torso, edge_W, fading)

    edge_W = upper_edge(neck)
    start_W = pushed_down(edge_W, neck, scaled(PUSH, height))
    under_neck = person & above(start_W, scaled(NECK_REACH, height), neck.shape) & touching(head, edge_W, scaled(SLIT, height))
    paint(colours, under_neck, start_W, fading)

    opaque = torso | neck | under_torso | under_neck
    colours[under_neck] = averaged(colours, opaque, scaled(BLUR, height))[under_neck]
    return np.dstack((colours, np.full(opaque.shape, 255, np.uint8))) * opaque[..., None]


def scaled(pixels: int, height: int) -> int:
    """What so many pixels of the release's pictures are in one of another height: at least one."""
    return max(1, round(pixels * height / RELEASE))


def upper_edge(mask: np.ndarray) -> np.ndarray:
    """`(W,)` int: the upmost row of each column of a mask, H where a column has none."""
    return np.where(mask.any(axis=0), mask.argmax(axis=0), len(mask))


def above(start_W: np.ndarray, length: int, shape: tuple[int, ...]) -> np.ndarray:
    """`(H, W)` bool: in each column the `length` pixels above `start`."""
    distance_HW = start_W - np.arange(shape[0])[:, None]
    return (distance_HW > 0) & (distance_HW <= length)


def touching(head: np.ndarray, edge_W: np.ndarray, slit: int) -> np.ndarray:
    """`(W,)` bool: the columns that have an edge, and head no farther than `slit` pixels above it."""
    return (edge_W < len(head)) & (head & above(edge_W, slit, head.shape)).any(axis=0)


def pushed_down(edge_W: np.ndarray, mask: np.ndarray, pixels: int) -> np.ndarray:
    """`(W,)` int: rows that many pixels lower, or as far as the mask goes on without a gap."""
    start_W, across = edge_W, np.arange(len(edge_W))
    for _ in range(pixels):
        lower_W = np.minimum(start_W + 1, len(mask) - 1)
        start_W = np.where(mask[lower_W, across], lower_W, start_W)
    return start_W


def paint(colours: np.ndarray, mask: np.ndarray, start_W: np.ndarray, fading: float) -> None:
    """Give the pixels of a mask, in place, the colour of their column's `start`, faded with the distance from it."""
    y, x = np.nonzero(mask)
    colours[y, x] = np.rint(colours[start_W[x], x] * fading ** (start_W[x] - y)[:, None])


def averaged(colours: np.ndarray, opaque: np.ndarray, radius: int) -> np.ndarray:
    """`(H, W, 3)` uint8: the mean of the opaque pixels in a window around each, so that nothing else bleeds in."""
    side = (2 * radius + 1, 2 * radius + 1)
    counts_HW = cv2.boxFilter(opaque.astype(np.float32), -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    sums_HW3 = cv2.boxFilter(
        colours.astype(np.float32) * opaque[..., None], -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return np.rint(sums_HW3 / np.maximum(counts_HW, 1)[..., None]).astype(np.uint8)
