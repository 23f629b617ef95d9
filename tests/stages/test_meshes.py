"""Meshes without head pose: from faces turned by known poses, and from real ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.corpora import source_clip
from data.mesh import FACE_OVAL, LANDMARKS_68, LOWER_LIP, POINTS, UPPER_LIP
from data.shardset import Clip, json_bytes, json_object, npy_array, npy_bytes
from stages.align import align_clip
from stages.faces import mouth_opening
from stages.landmarks import find_landmarks
from stages.meshes import CANONICAL_R3, RIGID_POINTS, find_mesh, without_pose
from stages.tracking import FaceTracker
from tests.media import astronaut, opening, talking
from tests.stages.params import ALIGN, LANDMARKS, MESHES

MEDIA = Path(__file__).parents[3] / "shared" / "media"
CANONICAL = MEDIA / "flame" / "mediapipe_canonical_face_model.obj"
SIZE = 512
FOCAL, CENTRE = MESHES.focal["portrait"] * SIZE, (SIZE - 1) / 2

# Where each of the 68 points is in a mirrored picture.
MIRRORED_68 = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
]


def head(seed: int = 0) -> np.ndarray:
    """`(478, 3)` metres: a head whose rigid points are the canonical ones, and whose others are anywhere about them."""
    points = np.random.default_rng(seed).normal((0, -0.02, 0.03), (0.04, 0.04, 0.02), (POINTS, 3))
    points[RIGID_POINTS] = CANONICAL_R3
    points[UPPER_LIP], points[LOWER_LIP] = (0, -0.04, 0.052), (0, -0.0401, 0.052)
    return points


def turned(yaw: np.ndarray, pitch: np.ndarray, away: np.ndarray) -> np.ndarray:
    """`(T, 4, 4)` camera-from-head: radians to the head's left and down, metres from the camera."""
    pose = np.tile(np.eye(4), (len(yaw), 1, 1))
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    about_y = np.array([[np.cos(yaw), zero, np.sin(yaw)], [zero, one, zero], [-np.sin(yaw), zero, np.cos(yaw)]])
    about_x = np.array([[one, zero, zero], [zero, np.cos(pitch), -np.sin(pitch)], [zero, np.sin(pitch), np.cos(pitch)]])
    pose[:, :3, :3] = np.diag((1, -1, -1)) @ about_y.transpose(2, 0, 1) @ about_x.transpose(2, 0, 1)
    pose[:, 0, 3], pose[:, 1, 3], pose[:, 2, 3] = 0.02 * np.sin(yaw), 0.01, away
    return pose


def in_camera(vertices: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return vertices @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]


def landmarks_of(vertices: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Pixels as MediaPipe gives them: x and y as seen, depth in the scale of x, from the depth of the head's origin."""
    camera = in_camera(vertices, pose)
    away = pose[:, None, 2:3, 3]
    return np.concatenate((camera[..., :2] / camera[..., 2:] * FOCAL + CENTRE, (camera[..., 2:] - away) / away * FOCAL), axis=-1)


TIME = np.arange(60) / 25
POSES = turned(0.4 * np.sin(3 * TIME), 0.2 * np.sin(5 * TIME), 1 + 0.1 * np.sin(2 * TIME))


def test_known_poses_and_the_still_face_under_them_are_found_again():
    vertices, pose = without_pose(landmarks_of(head()[None], POSES), FOCAL, CENTRE)
    assert np.abs(vertices - head()).max() < 1e-4  # metres
    assert np.abs(pose - POSES).max() < 1e-3


def test_a_speaker_unlike_the_canonical_face_stays_still_too():
    other = head()
    other[RIGID_POINTS] *= (0.9, 1.1, 1.05)
    other[RIGID_POINTS] += np.random.default_rng(1).normal(0, 0.002, (len(RIGID_POINTS), 3))
    vertices, pose = without_pose(landmarks_of(other[None], POSES), FOCAL, CENTRE)
    assert np.ptp(vertices, axis=0).max() < 0.001
    assert (
        np.abs(
            in_camera(vertices, pose)[..., :2] / in_camera(vertices, pose)[..., 2:] * FOCAL
            + CENTRE
            - landmarks_of(other[None], POSES)[..., :2]
        ).max()
        < 1e-6
    )


def test_a_jaw_that_moves_moves_the_mesh_alone():
    moving = np.tile(head(), (60, 1, 1))
    jaw = [LOWER_LIP, 152, 17]
    moving[:, jaw, 1] -= 0.015 * opening(TIME)[:, None]
    vertices, pose = without_pose(landmarks_of(moving, POSES), FOCAL, CENTRE)
    assert np.abs(vertices - moving).max() < 1e-4
    assert np.abs(pose - POSES).max() < 1e-3


def test_the_template_is_the_face_with_its_mouth_closed():
    moving = np.tile(head(), (60, 1, 1))
    moving[:, LOWER_LIP, 1] -= 0.015 * opening(TIME)
    column = find_mesh(made_clip(landmarks_of(moving, POSES)), MESHES)
    template = npy_array(column["template.npy"])
    assert template.shape == (POINTS, 3)
    assert np.linalg.norm(template[UPPER_LIP] - template[LOWER_LIP]) < 0.001
    assert np.abs(template - head()).max() < 0.001


def made_clip(landmarks: np.ndarray) -> Clip:
    about = {"crop": "portrait", "size": SIZE}
    return Clip("someone/made", {"json": json_bytes(about), "landmarks.npy": npy_bytes(landmarks.astype(np.float32))})


def test_smoothing_steadies_the_pose_and_leaves_the_mesh():
    poses = turned(0.1 * TIME, 0 * TIME, 1 + 0 * TIME)
    noisy = landmarks_of(head()[None], poses) + np.random.default_rng(0).normal(0, 0.3, (60, POINTS, 3))
    columns = [find_mesh(made_clip(noisy), replace(MESHES, smoothing=frames)) for frames in (1, 5)]
    assert columns[0]["vertices.npy"] == columns[1]["vertices.npy"]
    errors = [np.abs(np.diff(npy_array(column["pose.npy"]) - poses, axis=0)).mean() for column in columns]
    assert errors[1] < 0.6 * errors[0]
    rotations = npy_array(columns[1]["pose.npy"])[:, :3, :3]
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-5)


@pytest.mark.parametrize("crop", ["face", "portrait"])
def test_a_real_face_s_mesh_projects_onto_its_landmarks_and_opens_its_mouth_with_them(tmp_path, crop):
    path = talking(tmp_path / "talker.mp4")
    clip = source_clip("someone/talker", path.parent, path.name, crop=crop)
    members = dict(align_clip(clip, ALIGN))
    members |= find_landmarks(Clip(clip.key, members), LANDMARKS)
    column = find_mesh(Clip(clip.key, members), MESHES)
    vertices, pose = npy_array(column["vertices.npy"]), npy_array(column["pose.npy"])
    landmarks, camera = npy_array(members["landmarks.npy"]), json_object(column["camera.json"])
    assert vertices.shape == landmarks.shape
    assert vertices.dtype == pose.dtype == np.float32
    assert pose.shape == (len(landmarks), 4, 4)

    seen = in_camera(vertices, pose)
    pixels = seen[..., :2] / seen[..., 2:] * camera["focal"] + camera["center"]
    assert np.linalg.norm(pixels - landmarks[..., :2], axis=-1).mean() < 1

    lips = np.linalg.norm(vertices[:, UPPER_LIP] - vertices[:, LOWER_LIP], axis=-1)
    assert np.corrcoef(lips, mouth_opening(landmarks))[0, 1] > 0.95
    assert 0.12 < vertices[:, 454, 0].mean() - vertices[:, 234, 0].mean() < 0.18  # the width of a face
    assert vertices[:, RIGID_POINTS].std(axis=0).mean() < 0.001
    assert (pose[:, 2, 3] > 0.5).all()
    assert (pose[:, 1, 1] < -0.8).all()  # up in the head is up, against the camera's y


def test_the_68_points_are_those_of_a_mirrored_face_mirrored():
    """MediaPipe is the oracle: in a mirrored picture it finds the mirrored points, so a table in order maps onto itself."""
    assert len(set(LANDMARKS_68)) == 68
    assert set(LANDMARKS_68[:17]) <= set(FACE_OVAL)
    found = []
    for picture in (astronaut(0), np.ascontiguousarray(astronaut(0)[:, ::-1])):
        tracker = FaceTracker()
        tracker.see(picture)
        found.append(tracker.landmarks()[0, LANDMARKS_68, :2])
    mirrored = (319, 0) + found[1][MIRRORED_68] * (-1, 1)
    eyes = np.linalg.norm(found[0][36] - found[0][45])
    distances = np.linalg.norm(mirrored - found[0], axis=-1) / eyes
    assert distances.max() < 0.15
    assert distances.mean() < 0.05


@pytest.mark.skipif(not CANONICAL.exists(), reason="no canonical face beside the repository (../shared/media)")
def test_tables_agree_with_mediapipe_s_canonical_face():
    lines = (line.split() for line in CANONICAL.read_text().splitlines() if line.startswith("v "))
    canonical = np.array([[float(word) for word in line[1:]] for line in lines]) / 100
    assert np.abs(canonical[RIGID_POINTS] - CANONICAL_R3).max() < 6e-5
    points = canonical[list(LANDMARKS_68)]
    assert np.allclose(points[MIRRORED_68] * (-1, 1, 1), points)
    assert (np.diff(points[:17, 0]) > 0).sum() >= 14  # the jaw runs from the picture's left to its right
    assert (np.diff(points[17:27, 0]) > 0).all()
    assert (np.diff(points[27:31, 1]) < 0).all()  # the bridge of the nose runs down
    assert points[48:68, 1].max() < points[31:36, 1].min() < points[36:48, 1].min()
