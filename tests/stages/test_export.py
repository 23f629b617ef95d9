"""Exported motion read back: by our own readers, by trimesh where it is, and by adding up what a glTF viewer adds up."""

import csv
import io
import json
import os
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.media.mesh import MILLIMETRES, read_obj
from data.mesh import LEFT_SIDE, RIGHT_SIDE
from data.topology import mediapipe_mesh
from stages.export import CannotExport, Motion, components, export
from tests.faces import HEIGHT, face, talk

FPS = 25
LANDMARKER = os.environ.get("FACE_LANDMARKER")  # where a face_landmarker.task is


@pytest.fixture(scope="module")
def motion() -> Motion:
    """Two movements at once, and some noise."""
    time = np.arange(40) / FPS
    vertices = talk(0.012 * np.sin(6 * time) ** 2)
    vertices[..., 0] *= 1 + 0.05 * np.sin(4 * time)[:, None]
    noise = np.random.default_rng(0).normal(0, 1e-6, vertices.shape)
    return Motion((vertices + noise).astype(np.float32), face(), mediapipe_mesh(), FPS)


def read_glb(data: bytes) -> tuple[dict, list[np.ndarray]]:
    """What the file tells, and its accessors' arrays. Khronos' validator found no issue in such files when this was written."""
    magic, version, length, size, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    told = json.loads(data[20 : 20 + size])
    binary_size, kind = struct.unpack("<I4s", data[20 + size : 28 + size])
    binary = data[28 + size :]
    assert (kind, len(binary), size % 4, binary_size % 4) == (b"BIN\0", binary_size, 0, 0)
    assert told["buffers"] == [{"byteLength": binary_size}]
    arrays = []
    for accessor in told["accessors"]:
        view = told["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        part = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        array = np.frombuffer(part, {5126: "<f4", 5125: "<u4"}[accessor["componentType"]])
        array = array.reshape((-1, 3) if accessor["type"] == "VEC3" else -1)
        assert len(array) == accessor["count"]
        assert np.atleast_1d(array.min(axis=0)).tolist() == accessor["min"]
        assert np.atleast_1d(array.max(axis=0)).tolist() == accessor["max"]
        arrays.append(array)
    return told, arrays


def played(data: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    """The animation as a viewer plays it: moments, the vertices at each, and how many targets make them."""
    told, arrays = read_glb(data)
    mesh, (sampler,) = told["meshes"][0], told["animations"][0]["samplers"]
    first = mesh["primitives"][0]
    assert all(part["attributes"] == first["attributes"] and part["targets"] == first["targets"] for part in mesh["primitives"])
    base = arrays[first["attributes"]["POSITION"]]
    targets = np.stack([arrays[target["POSITION"]] for target in first["targets"]])
    weights = arrays[sampler["output"]].reshape(-1, len(targets))
    assert np.abs(weights).max() <= 1
    assert mesh["weights"] == [0] * len(targets)
    normals = arrays[first["attributes"]["NORMAL"]]
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1, abs=1e-5)
    right, left = normals[[RIGHT_SIDE, LEFT_SIDE], 0]
    assert right < -0.3 < 0.3 < left
    return arrays[sampler["input"]], base + np.einsum("tk,kvc->tvc", weights, targets), len(targets)


@pytest.mark.parametrize(("exact", "tolerance"), [(True, 1e-7), (False, 1.1e-4)])
def test_a_glb_plays_the_motion(motion, tmp_path, exact, tolerance):
    path = tmp_path / "talk.glb"
    export(path, motion, exact=exact)
    times, vertices, targets = played(path.read_bytes())
    assert times == pytest.approx(np.arange(40) / FPS)
    assert np.linalg.norm(vertices - motion.vertices, axis=-1).max() < tolerance
    assert targets == 40 if exact else targets <= 4
    told, arrays = read_glb(path.read_bytes())
    triangles = [arrays[part["indices"]].reshape(-1, 3) for part in told["meshes"][0]["primitives"]]
    assert [len(part) for part in triangles] == [852, 18, 28]
    assert [material["name"] for material in told["materials"]] == ["skin", "mouth", "eyes"]


def test_a_glb_opens_in_trimesh(motion, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    export(tmp_path / "talk.glb", motion)
    scene = trimesh.load(tmp_path / "talk.glb")
    assert sum(len(part.faces) for part in scene.geometry.values()) == 898
    assert scene.extents[1] == pytest.approx(HEIGHT, rel=0.05)


def test_components_are_as_few_as_the_motion_has():
    random = np.random.default_rng(0)
    shapes, courses = random.normal(size=(2, 50, 3)), random.normal(size=(30, 2))
    for frames in (30, 2, 1):
        motion = np.einsum("tk,kvc->tvc", courses[:frames], shapes)
        targets, weights = components(motion, 1e-6)
        assert len(targets) == min(frames, 2)
        assert np.einsum("tk,kvc->tvc", weights, targets) == pytest.approx(motion, abs=1e-6)
    long = np.tile(np.einsum("tk,kvc->tvc", courses, shapes), (20, 1, 1))  # more frames than numbers in one
    assert len(components(long, 1e-6)[0]) == 2
    mixed = random.normal(size=(30, 50, 3)) * np.linspace(1, 0, 30)[:, None, None]
    targets, weights = components(mixed, 0.5)

    def farthest(count: int) -> float:
        rest = mixed - np.einsum("tk,kvc->tvc", weights[:, :count], targets[:count])
        return np.linalg.norm(rest, axis=-1).max()

    assert farthest(len(targets)) <= 0.5 < farthest(len(targets) - 1)
    targets, weights = components(np.zeros((5, 50, 3)), 1e-6)
    assert np.isfinite(weights).all()
    assert not targets.any()


def test_objs_are_the_frames_and_the_same_bytes_again(motion, tmp_path):
    short = replace(motion, vertices=motion.vertices[:3])
    for name in ("a.zip", "b.zip"):
        export(tmp_path / name, short)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["00000.obj", "00001.obj", "00002.obj"]
        for name, expected in zip(archive.namelist(), short.vertices, strict=True):
            vertices, triangles = read_obj(archive.read(name))
            assert vertices == pytest.approx(expected, abs=1e-6)
            assert (triangles == mediapipe_mesh().skin).all()


def test_npy_is_the_array_and_scans_are_turned_for_viewers_alone(motion, tmp_path):
    hanging = (motion.vertices[:2] * (1, -1, -1) * 1000).astype(np.float32)
    scanned = replace(motion, vertices=hanging, template=(face() * (1, -1, -1) * 1000).astype(np.float32), scaling=MILLIMETRES)
    export(tmp_path / "a.npy", scanned)
    assert (np.load(tmp_path / "a.npy") == hanging).all()
    export(tmp_path / "a.glb", scanned, exact=True)
    assert played((tmp_path / "a.glb").read_bytes())[1] == pytest.approx(motion.vertices[:2] * 1000, abs=1e-3)


def test_what_cannot_be_exported_is_refused_and_leaves_no_file(motion, tmp_path):
    broken = motion.vertices.copy()
    broken[3, 7] = np.nan
    flame = replace(motion, topology=replace(motion.topology, name="flame"))
    (tmp_path / "not_a.task").write_bytes(b"not a zip")
    with zipfile.ZipFile(tmp_path / "other.task", "w") as archive:
        archive.writestr("something", "else")
    for name, what, landmarker, message in (
        ("a.fbx", motion, None, "no format '.fbx'"),
        ("a.npy", replace(motion, vertices=broken), None, "no finite numbers"),
        ("a.glb", replace(motion, vertices=motion.vertices[:0]), None, "at least one frame"),
        ("a.zip", replace(motion, template=face()[:400]), None, "478"),
        ("a.csv", flame, None, "nothing tells them but a guess"),
        ("a.csv", motion, None, "blendshape model was not named"),
        ("a.csv", motion, tmp_path / "nowhere.task", "blendshape model is not at"),
        ("a.csv", motion, tmp_path / "not_a.task", "no face_landmarker.task"),
        ("a.csv", motion, tmp_path / "other.task", "no face_landmarker.task"),
    ):
        with pytest.raises(CannotExport, match=message):
            export(tmp_path / name, what, landmarker=landmarker)
        assert not (tmp_path / name).exists()


@pytest.mark.skipif(LANDMARKER is None, reason="FACE_LANDMARKER does not say where a face_landmarker.task is")
def test_blendshapes_open_the_jaw_when_the_mouth_opens(motion, tmp_path):
    opening = 0.025 * np.sin(np.arange(30) / 3) ** 2
    export(tmp_path / "a.csv", replace(motion, vertices=talk(opening)), landmarker=Path(str(LANDMARKER)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert len(rows) == 30
    assert len(rows[0]) == 1 + 51
    assert [float(row["seconds"]) for row in rows] == pytest.approx(np.arange(30) / FPS)
    jaw = np.array([float(row["jawOpen"]) for row in rows])
    assert np.corrcoef(jaw, opening)[0, 1] > 0.9
    assert jaw.max() > 4 * jaw.min()
    assert "_neutral" not in rows[0]
