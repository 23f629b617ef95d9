"""Parsing of a portrait, looked at through what a person who looks at it would say."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.corpora import source_clip
from data.media.video import decode_frames
from data.mesh import CHIN, FACE_OVAL
from data.shardset import Clip, npy_array
from stages.align import align_clip
from stages.landmarks import find_landmarks
from stages.parsing import BACKGROUND, HEAD, NECK, TORSO, crumbs, label, neck, parse, slivers, without_person
from tests.media import talking
from tests.stages.params import ALIGN, LANDMARKS, PARSING

MEDIA = Path(__file__).parents[3] / "shared" / "media"
REAL = [*MEDIA.glob("person/*uncrop*.mp4")]


def portrait(path: Path, end: float | None = None) -> Clip:
    clip = source_clip("someone/portrait", path.parent, path.name, 0.0, end, crop="portrait")
    members = dict(align_clip(clip, ALIGN))
    return Clip(clip.key, members | find_landmarks(Clip(clip.key, members), LANDMARKS))


@pytest.fixture(scope="module")
def talker(tmp_path_factory) -> Clip:
    return portrait(talking(tmp_path_factory.mktemp("talker") / "talker.mp4", seconds=1))


@pytest.fixture(scope="module")
def column(talker) -> dict[str, bytes]:
    return parse(talker, PARSING)


def labels_of(column: dict[str, bytes]) -> np.ndarray:
    return np.load(io.BytesIO(column["parsing.npz"]), allow_pickle=False)["labels"]


def test_the_face_is_head_what_is_under_the_chin_is_not_and_corners_are_background(talker, column):
    labels, points = labels_of(column), npy_array(talker.members["landmarks.npy"])[..., :2]
    assert labels.shape == (25, 512, 512)
    assert labels.dtype == np.uint8
    for labels_HW, points_P2 in zip(labels, points, strict=True):
        inside = cv2.fillPoly(np.zeros((512, 512), np.uint8), [np.rint(points_P2[list(FACE_OVAL)]).astype(np.int32)], 1) > 0
        assert (labels_HW[inside] == HEAD).all()
        x, y = np.rint(points_P2[CHIN]).astype(int)
        assert labels_HW[y + 12, x] in (NECK, TORSO)
        assert (labels_HW[500:, x - 60 : x + 60] != BACKGROUND).mean() > 0.9
    shares = [(labels == each).mean() for each in (BACKGROUND, TORSO, HEAD, NECK)]
    assert all(share > 0.005 for share in shares)
    assert 0.15 < shares[HEAD] < 0.5
    assert (labels[:, :, :20] == HEAD).mean() < 0.02


def test_the_torso_is_as_filmed_and_goes_on_beneath_the_head(talker, column):
    labels, torso = labels_of(column), np.load(io.BytesIO(column["torso.npz"]), allow_pickle=False)["torso"]
    assert torso.shape == (25, 512, 512, 4)
    assert torso.dtype == np.uint8
    opaque = torso[..., 3] == 255
    assert opaque[(labels == TORSO) | (labels == NECK)].all()
    assert not torso[~opaque].any()
    assert not opaque[labels == BACKGROUND].any()
    frames = decode_frames(talker.members["mp4"])
    assert (torso[..., :3][labels == TORSO] == frames[labels == TORSO]).mean() > 0.99
    assert 0.02 < opaque[labels == HEAD].mean() < 0.3


def test_labels_hardly_flicker(column):
    labels = labels_of(column)
    assert (labels[1:] != labels[:-1]).mean() < 0.02


def test_a_frame_s_labels_do_not_depend_on_what_was_seen_before(talker, column):
    frames, points = decode_frames(talker.members["mp4"]), npy_array(talker.members["landmarks.npy"])[..., :2]
    assert np.array_equal(label(frames[13], points[13], PARSING), labels_of(column)[13])
    assert parse(talker, PARSING) == column


def test_a_beard_between_jaw_and_neck_is_neck_and_a_shirt_is_not():
    angles = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    points = np.zeros((478, 2))
    points[list(FACE_OVAL)] = 128 + np.stack([50 * np.sin(angles), -70 * np.cos(angles)], axis=-1)
    y, x = np.mgrid[:256, :256]
    labels = np.where(((x - 128) / 50) ** 2 + ((y - 128) / 70) ** 2 < 1, HEAD, BACKGROUND)
    column, shirt = abs(x - 128) < 25, y > 225
    labels[(labels == BACKGROUND) & ((column & (y > 128)) | (shirt & (abs(x - 128) < 100)))] = TORSO
    frame = np.random.default_rng(0).integers(-6, 7, (256, 256, 1)) + np.array([200, 140, 110])
    frame[shirt] = (40, 60, 160)
    chin = np.argmax((labels == TORSO) & column, axis=0)
    frame[(y < chin + 9) & (labels == TORSO)] = (12, 11, 10)
    found = neck(frame.astype(np.uint8), labels.astype(np.uint8), points, 2.5)
    assert found[(labels == TORSO) & column & ~shirt].mean() > 0.99
    assert not found[shirt].any()


def test_crumbs_are_what_is_cut_off_from_the_torso():
    labels = np.full((64, 64), BACKGROUND, np.uint8)
    labels[20:40, 20:40], labels[50:, 10:50], labels[30:34, 42:44] = HEAD, TORSO, TORSO
    assert np.array_equal(np.argwhere(crumbs(labels)), np.argwhere((labels == TORSO) & (np.arange(64)[:, None] < 50)))


def test_a_sliver_of_cheek_beside_the_jaw_is_no_torso_and_a_shoulder_is():
    y, x = np.mgrid[:512, :512]
    face, cheek = (x - 256) ** 2 + (y - 200) ** 2 < 100**2, (x - 248) ** 2 + (y - 210) ** 2 < 100**2
    labels = np.where(face, HEAD, np.where((cheek & (x < 256)) | (y > 280), TORSO, BACKGROUND)).astype(np.uint8)
    found = slivers(labels)
    assert found[cheek & ~face & (x < 256) & (y < 260)].mean() > 0.95
    assert found[y > 300].sum() == 0
    assert found[(labels == TORSO) & (y > 285)].mean() < 0.01
    assert not found[labels != TORSO].any()


def test_the_background_is_the_median_of_what_is_seen_and_the_rest_is_filled_in():
    truth = np.random.default_rng(0).integers(60, 200, (96, 96, 3)).astype(np.uint8)
    truth = cv2.GaussianBlur(truth, (0, 0), 5)
    seen = []
    for step in range(9):
        frame, labels = truth.copy(), np.zeros((96, 96), np.uint8)
        frame[40:80, 10 + 5 * step : 30 + 5 * step], labels[40:80, 10 + 5 * step : 30 + 5 * step] = 250, TORSO
        frame[10:20, 45:50], labels[10:20, 45:50] = 250, HEAD  # never leaves
        if step == 4:
            frame[60:, 60:] = 0  # a shadow passes
        seen.append((frame, labels))
    found = without_person(seen, margin=1)
    free = np.ones((96, 96), bool)
    free[8:22, 43:52] = False
    assert (found[free] == truth[free]).all()
    assert np.abs(found.astype(int) - truth).max() < 40


@pytest.mark.skipif(not REAL, reason="no real portrait beside the repository (../shared/media)")
def test_a_president_in_a_dark_suit():
    clip = portrait(REAL[0], end=1.0)
    labels = labels_of(parse(clip, PARSING))
    shares = [(labels == each).mean() for each in (BACKGROUND, TORSO, HEAD, NECK)]
    assert np.allclose(shares, (0.50, 0.17, 0.30, 0.03), atol=0.04)  # as seen by eye
    frames = decode_frames(clip.members["mp4"])
    suit, skin = frames[labels == TORSO].mean(axis=0), frames[labels == NECK].mean(axis=0)
    assert skin[0] - skin[2] > 15 > suit[0] - suit[2]  # skin is reddish, suit and shirt are not
