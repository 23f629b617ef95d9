"""What every pixel of a portrait is: background, torso, head or neck; the background as it is without the person; and the
torso as it goes on beneath the head.

GeneFace parses with BiSeNet (19 classes, of which it keeps these), GeneFace++ with MediaPipe's multi-class model; neither
comes in a package. MediaPipe 0.10.21 ships a person mask, and the landmarks tell the face's contour. From these two:

* head: the person above the jaw's contour, which is drawn on from the jaw's corners to both sides: face, ears, hair. Hair that
  falls below the jaw counts as torso.
* neck: the person below the jaw, between its corners, of the colour of the face's skin, that begins at the head; and what is
  between the two, as a beard or the shadow of the chin.
* torso: the rest of the person, but for crumbs that these cut off from it, which are neck or head, whichever they touch, and
  slivers along the head, which are head.
"""

import io
from dataclasses import dataclass
from functools import cache

import cv2
import mediapipe
import numpy as np

from data.media.video import each_frame
from data.mesh import CHIN, FACE_OVAL, FOREHEAD, LEFT_SIDE, RIGHT_SIDE
from data.npz import npz_writer
from data.shardset import Clip, Column, ShardSet, json_object, npy_array
from stages.columns import leave_empty, make_column
from stages.params import output, section
from stages.torso import scaled, torso_picture
from stages.tracking import native_stderr_hidden

BACKGROUND, TORSO, HEAD, NECK = range(4)

# The lower contour of the face, from the left corner of the jaw by the chin to the right one.
JAW = FACE_OVAL[FACE_OVAL.index(288) : FACE_OVAL.index(58) + 1]

NEAR = 2  # pixels to each side, of a picture of 512: a neighbourhood
BEARD = 24  # such pixels between head and neck, at most
EDGE = 8  # such pixels along the picture's edges: a torso that ends there is cut off by the picture, not by the head
SLIVER = 5  # half the width, in such pixels, below which a part of torso along the head is a piece of cheek
LOGARITHM = np.log(np.arange(256, dtype=np.float32) + 8)
DARKEST = 0.2  # of the face's brightness that a shaded neck still has


@dataclass(frozen=True)
class ParsingParams:
    """`parsing` in params.yaml."""

    crops: list[str]  # the crops whose pictures are parsed; others have no torso
    person: float  # probability above which a pixel is the person's
    hair: float  # how far hair reaches to the sides of the face, in widths of the face
    skin: float  # how far the neck's colour may be from the face's, in standard deviations of the face's
    margin: int  # pixels around the person, of a picture of 512, that do not count as background seen
    moments: int  # frames, spread over the clip, from which the background is taken


def parse(clip: Clip, params: ParsingParams) -> Column:
    """One clip's `parsing.npz`, whose `labels` are (T, H, W) uint8, its `background.png`, RGB, and its `torso.npz`, whose
    `torso` is (T, H, W, 4) uint8 RGBA, not premultiplied.
    """
    landmarks_TP3 = npy_array(clip.members["landmarks.npy"])
    moments = set(np.linspace(0, len(landmarks_TP3) - 1, min(params.moments, len(landmarks_TP3))).round().astype(int).tolist())
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    count, size = len(landmarks_TP3), json_object(clip.members["json"])["size"]
    parsing, torso = io.BytesIO(), io.BytesIO()
    with (
        npz_writer(parsing, "labels", (count, size, size)) as add_labels,
        npz_writer(torso, "torso", (count, size, size, 4)) as add_torso,
    ):
        for index, frame in enumerate(each_frame(clip.members["mp4"])):
            labels_HW = label(frame, landmarks_TP3[index, :, :2], params)
            add_labels(labels_HW)
            add_torso(torso_picture(frame, labels_HW == HEAD, labels_HW == TORSO, labels_HW == NECK))
            if index in moments:
                seen.append((frame, labels_HW))
    background = cv2.cvtColor(without_person(seen, scaled(params.margin, size)), cv2.COLOR_RGB2BGR)
    return {
        "parsing.npz": parsing.getvalue(),
        "background.png": cv2.imencode(".png", background)[1].tobytes(),
        "torso.npz": torso.getvalue(),
    }


def label(frame: np.ndarray, points_P2: np.ndarray, params: ParsingParams) -> np.ndarray:
    """`(H, W)` uint8 labels of one `(H, W, 3)` RGB frame whose landmarks are `points`, pixels."""
    person = (person_mask(frame) > params.person).astype(np.uint8)
    above = filled(above_jaw(points_P2, params.hair), frame.shape)
    face = filled(points_P2[list(FACE_OVAL)], frame.shape)
    labels = np.where(person, np.where(above, HEAD, TORSO), BACKGROUND).astype(np.uint8)
    labels[face > 0] = HEAD
    labels[neck(frame, labels, points_P2, params.skin)] = NECK
    labels[crumbs(labels) | slivers(labels)] = HEAD
    return labels


@cache
def segmenter() -> mediapipe.solutions.selfie_segmentation.SelfieSegmentation:
    """This process's model: the general one, 256² inside."""
    with native_stderr_hidden():
        return mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)


def person_mask(frame: np.ndarray) -> np.ndarray:
    """`(H, W)` float32: the probability that a pixel is a person's."""
    return segmenter().process(frame).segmentation_mask


def above_jaw(points_P2: np.ndarray, hair: float) -> np.ndarray:
    """A polygon: what is above the jaw, and not farther from the face than hair reaches."""
    jaw = points_P2[list(JAW)]
    across, up = points_P2[LEFT_SIDE] - points_P2[RIGHT_SIDE], points_P2[FOREHEAD] - points_P2[CHIN]
    # From the head's own axes, so that the line tilts with the head; its height is no limit, for hair has none.
    left, right, top = jaw[0] + hair * across, jaw[-1] - hair * across, 2 * up
    return np.concatenate((jaw, [right, right + top, left + top, left]))


def neck(frame: np.ndarray, labels: np.ndarray, points_P2: np.ndarray, deviations: float) -> np.ndarray:
    """`(H, W)` bool: the skin below the jaw that begins there, what is between the two, and the crumbs of torso beside it."""
    jaw, up = points_P2[list(JAW)], points_P2[FOREHEAD] - points_P2[CHIN]
    below = filled(np.array([jaw[0], jaw[-1], jaw[-1] - up, jaw[0] - up]), labels.shape) > 0
    candidate = below & (labels == TORSO)
    face_N3 = LOGARITHM[frame[filled(points_P2[list(FACE_OVAL)], labels.shape) > 0]]
    pixels_N3 = LOGARITHM[frame[candidate]]
    # In the shadow that the chin throws, red, green and blue fall alike: their ratios stay. Black has any ratio.
    ratios_N2 = face_N3[:, :2] - face_N3[:, 1:]
    distance_N2 = (pixels_N3[:, :2] - pixels_N3[:, 1:] - ratios_N2.mean(axis=0)) / (ratios_N2.std(axis=0) + 1e-3)
    bright_N = pixels_N3[:, 1] > face_N3[:, 1].mean() + np.log(DARKEST)
    skin = np.zeros_like(labels)
    skin[candidate] = bright_N & ((distance_N2**2).sum(axis=1) < deviations**2)
    near = around(scaled(NEAR, len(labels)))
    skin = cv2.morphologyEx(cv2.morphologyEx(skin, cv2.MORPH_CLOSE, near), cv2.MORPH_OPEN, near) & candidate
    found = joined(skin, cv2.dilate((labels == HEAD).astype(np.uint8), around(scaled(BEARD, len(labels)))))
    under_head, over_neck = np.logical_or.accumulate(labels == HEAD), np.logical_or.accumulate(found[::-1])[::-1]
    found |= candidate & under_head & over_neck
    cut_off = crumbs(np.where(found, NECK, labels)).astype(np.uint8)
    return found | joined(cut_off, cv2.dilate(found.astype(np.uint8), near))


def crumbs(labels: np.ndarray) -> np.ndarray:
    """`(H, W)` bool: pieces of torso that head and neck cut off from the picture's lower and side edges."""
    torso, edge = (labels == TORSO).astype(np.uint8), np.ones(labels.shape, np.uint8)
    width = scaled(EDGE, len(labels))
    edge[:-width, width:-width] = 0
    return (torso > 0) & ~joined(torso, edge)


def slivers(labels: np.ndarray) -> np.ndarray:
    """`(H, W)` bool: thin pieces of torso along the head, such as a cheek that the contour of the landmarks cuts off."""
    torso = (labels == TORSO).astype(np.uint8)
    thin = torso & ~cv2.morphologyEx(torso, cv2.MORPH_OPEN, around(scaled(SLIVER, len(labels))))
    return joined(thin, cv2.dilate((labels == HEAD).astype(np.uint8), around(1)))


def around(pixels: int) -> np.ndarray:
    """The neighbourhood of a pixel: so many to each side of it."""
    return np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)


def joined(mask: np.ndarray, to: np.ndarray) -> np.ndarray:
    """`(H, W)` bool: the pieces of `mask` that have a pixel in `to`."""
    count, pieces = cv2.connectedComponents(mask)
    touches = np.zeros(count, bool)
    touches[pieces[to > 0]] = True
    touches[0] = False
    return touches[pieces]


def filled(polygon_N2: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`(H, W)` uint8: 1 inside of a polygon of pixels."""
    return cv2.fillPoly(np.zeros(shape[:2], np.uint8), [np.rint(polygon_N2).astype(np.int32)], (1,))


def without_person(seen: list[tuple[np.ndarray, np.ndarray]], margin: int) -> np.ndarray:
    """`(H, W, 3)` uint8: each pixel's median over the frames that show background there, with a margin around the person.

    What no frame shows is painted in from its surroundings.
    """
    frames_NHW3 = np.stack([frame for frame, _ in seen])
    free_NHW = np.stack([cv2.dilate((labels != BACKGROUND).astype(np.uint8), around(margin)) == 0 for _, labels in seen])
    counts_HW = free_NHW.sum(axis=0)
    background = np.zeros(frames_NHW3.shape[1:], np.uint8)
    for y in range(len(background)):  # row by row: the sorted copy of all frames would be twice as large as they are
        row_NW3 = np.where(free_NHW[:, y, :, None], frames_NHW3[:, y].astype(np.uint16), 256)
        row_NW3.sort(axis=0)
        middle_1W1 = np.maximum(counts_HW[y] - 1, 0)[None, :, None] // 2
        background[y] = np.take_along_axis(row_NW3, np.broadcast_to(middle_1W1, (1, *row_NW3.shape[1:])), axis=0)[0] & 255
    return cv2.inpaint(background, (counts_HW == 0).astype(np.uint8), 3, cv2.INPAINT_TELEA)


def run(part: str) -> None:
    first = next(ShardSet(output("align", part)).clips(), None)
    crop = json_object(first.members["json"]).get("crop") if first else None
    if crop not in section("parsing", ParsingParams).crops:
        leave_empty("parsing", part)
        return
    make_column("parsing", parse, ParsingParams, part, reads=["align", "landmarks"], needs="landmarks.npy")
