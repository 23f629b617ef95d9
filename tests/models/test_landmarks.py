"""The 68 landmarks that GeneFace's stages exchange: there and back, and what does not fit is named."""

from pathlib import Path

import numpy as np
import pytest

from data.mesh import LANDMARKS_68, POINTS
from data.shardset import Clip, npy_bytes
from models.landmarks import BROWS, CANONICAL_P3, EYES, MOUTH, VALUES, motion_of, points_of, read_utterance

MEDIA = Path(__file__).parents[3] / "shared" / "media"
CANONICAL = MEDIA / "flame" / "mediapipe_canonical_face_model.obj"


def faces(frames=6, seed=0):
    """(T, 478, 3) metres."""
    return np.random.default_rng(seed).normal(0, 0.05, (frames, POINTS, 3)).astype(np.float32)


def made_clip(**changes):
    members = {"vertices.npy": faces(), "speech.npy": np.zeros((12, 4), np.float16), **changes}
    return Clip("anna/clip", {name: npy_bytes(array) for name, array in members.items() if array is not None})


def test_motion_there_and_back():
    vertices = faces()
    motion = motion_of(vertices)
    assert motion.shape == (6, VALUES) == (6, 204) and motion.dtype == np.float32
    points = points_of(motion)
    assert points.shape == (6, 68, 3) and points.dtype == np.float32
    assert np.abs(points - vertices[:, LANDMARKS_68]).max() < 1e-6  # metres


def test_the_canonical_face_does_not_move_and_a_centimetre_is_one():
    vertices = np.zeros((2, POINTS, 3), np.float32)
    vertices[:, LANDMARKS_68] = CANONICAL_P3 / 100
    assert np.abs(motion_of(vertices)).max() < 1e-5
    vertices[1, 152, 1] -= 0.01  # the chin, landmark 8 of the 68
    moved = motion_of(vertices)[1]
    assert np.flatnonzero(np.abs(moved) > 1e-4).tolist() == [3 * 8 + 1] and moved[3 * 8 + 1] == pytest.approx(-1, abs=1e-5)
    assert np.abs(points_of(np.zeros((1, VALUES), np.float32))[0] - CANONICAL_P3 / 100).max() < 1e-7


@pytest.mark.parametrize(("part", "first", "last"), [(BROWS, 17, 27), (EYES, 36, 48), (MOUTH, 48, 68)])
def test_a_part_is_the_numbers_of_its_points(part, first, last):
    still, moving = faces(), faces()
    moving[:, LANDMARKS_68[first:last]] += 0.01
    moved = motion_of(moving) - motion_of(still)
    assert part.stop - part.start == 3 * (last - first)
    assert np.allclose(moved[:, part], 1, atol=1e-4)
    assert np.abs(np.delete(moved, np.r_[part], axis=1)).max() < 1e-4


def test_an_utterance_is_read_with_its_sound():
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float16)
    utterance = read_utterance(made_clip(**{"speech.npy": rows}), "speech", 4)
    assert utterance.key == "anna/clip" and np.array_equal(utterance.motion, motion_of(faces()))
    assert utterance.speech.dtype == np.float32 and np.array_equal(utterance.speech, rows.astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vertices.npy": None, "speech.npy": None, "json": np.zeros(1)},
            r"has no vertices.npy and no speech.npy: run the stage",
        ),
        ({"vertices.npy": faces()[:, :468]}, r"\(6, 468, 3\).*MediaPipe's 478 points: name a corpus of videos"),
        ({"vertices.npy": faces()[0]}, r"vertices.npy has the shape \(478, 3\)"),
        ({"speech.npy": np.zeros((12, 5))}, r"speech.npy has the shape \(12, 5\), not \(12, 4\): set audio_width"),
        ({"speech.npy": np.zeros((10, 4))}, r"speech.npy has the shape \(10, 4\), not \(12, 4\): run its stage again"),
        ({"speech.npy": np.full((12, 4), np.nan)}, "speech.npy that is not finite"),
    ],
)
def test_what_does_not_fit_names_the_clip(changes, message):
    with pytest.raises(ValueError, match=f"clip anna/clip.*{message}"):
        read_utterance(made_clip(**changes), "speech", 4)


@pytest.mark.skipif(not CANONICAL.exists(), reason="no canonical face beside the repository (../shared/media)")
def test_the_table_is_mediapipe_s_canonical_face():
    lines = (line.split() for line in CANONICAL.read_text().splitlines() if line.startswith("v "))
    canonical = np.array([[float(word) for word in line[1:]] for line in lines])
    assert np.abs(canonical[list(LANDMARKS_68)] - CANONICAL_P3).max() < 0.006  # it has two decimals
