"""Triangles and regions: MediaPipe's against MediaPipe, FLAME's where its tables are, BIWI's from files like its own."""

import shutil
from collections import Counter
from pathlib import Path

import networkx
import numpy as np
import pytest
from mediapipe.python.solutions import face_mesh_connections as connections

from data.media.mesh import CODETALKER, FACEXHUBERT, METRES, MILLIMETRES, read_obj
from data.mesh import FACE_OVAL
from data.topology import MissingTables, Topology, mediapipe_mesh, read_ply_triangles, topology_of, upright

TABLES = Path(__file__).parents[3] / "shared" / "media" / "flame"
needs_tables = pytest.mark.skipif(not TABLES.exists(), reason="FLAME's tables are not here")


def edges(triangles: np.ndarray) -> Counter[tuple[int, int]]:
    """Directed, along each triangle."""
    return Counter((int(a), int(b)) for triangle in triangles for a, b in zip(triangle, np.roll(triangle, -1), strict=True))


def rims(triangles: np.ndarray) -> list[set[int]]:
    """The closed lines on which a surface ends."""
    directed = edges(triangles)
    return list(networkx.connected_components(networkx.Graph([edge for edge in directed if edge[::-1] not in directed])))


def named(*sets: frozenset[tuple[int, int]]) -> set[int]:
    return {point for pairs in sets for pair in pairs for point in pair}


def test_mediapipe_s_skin_is_one_sheet_with_holes_for_mouth_and_eyes():
    mesh = mediapipe_mesh()
    whole = np.concatenate((mesh.skin, mesh.mouth, mesh.eyes))
    assert max(edges(whole).values()) == 1  # no edge is run along twice in one direction: all triangles face the same way
    assert rims(whole) == [set(FACE_OVAL)]
    assert sorted(len(rim) for rim in rims(mesh.skin)) == [16, 16, 20, 36]
    eyes = named(connections.FACEMESH_LEFT_EYE, connections.FACEMESH_RIGHT_EYE)
    assert set(mesh.eyes.ravel()) == eyes
    assert set(mesh.mouth.ravel()) < named(connections.FACEMESH_LIPS)
    assert set(whole.ravel()) == set(range(468))


def test_mediapipe_s_regions_are_what_its_named_lines_enclose():
    mesh = mediapipe_mesh()
    graph = networkx.Graph(list(edges(mesh.skin)))
    outer = named(connections.FACEMESH_LIPS) - set(mesh.mouth.ravel())
    *inside, _ = sorted(networkx.connected_components(graph.subgraph(set(graph) - outer)), key=len)
    assert set(mesh.lips) == outer.union(*inside)
    lids = named(connections.FACEMESH_LEFT_EYE, connections.FACEMESH_RIGHT_EYE)
    near = {point for lid in lids for point in networkx.single_source_shortest_path_length(graph, lid, cutoff=2)}
    brows = named(connections.FACEMESH_LEFT_EYEBROW, connections.FACEMESH_RIGHT_EYEBROW)
    assert near | brows < set(mesh.upper_face)
    assert not set(mesh.lips) & set(mesh.upper_face)
    assert set(mesh.opening.ravel()) < set(mesh.mouth.ravel())


@needs_tables
def test_mediapipe_s_triangles_are_those_of_its_canonical_face():
    vertices, triangles = read_obj((TABLES / "mediapipe_canonical_face_model.obj").read_bytes())
    mesh = mediapipe_mesh()
    ours = np.concatenate((mesh.skin, mesh.mouth, mesh.eyes))
    assert sorted(map(tuple, ours)) == sorted(map(tuple, triangles))
    brows = list(named(connections.FACEMESH_LEFT_EYEBROW, connections.FACEMESH_RIGHT_EYEBROW))
    high = np.flatnonzero(vertices[:, 1] >= vertices[brows, 1].min())
    assert set(high) < set(mesh.upper_face)
    mirror = [int(np.linalg.norm(vertices - vertex * (-1, 1, 1), axis=1).argmin()) for vertex in vertices]
    for region in (mesh.lips, mesh.upper_face):
        assert {mirror[point] for point in region} == set(region)


@needs_tables
def test_flame_s_lips_are_the_release_s_where_its_masks_are_and_facediffuser_s_otherwise(tmp_path):
    about = {"topology": "flame"}
    mesh = topology_of(about, TABLES)
    assert (mesh.regions, len(mesh.lips), len(mesh.upper_face), mesh.skin.shape) == ("flame-masks", 250, 827, (9976, 3))
    for name in ("FLAME_sample.ply", "FLAME_lve.txt", "FLAME_fdd.txt"):
        shutil.copy(TABLES / name, tmp_path)
    mesh = topology_of(about, tmp_path)
    assert (mesh.regions, len(mesh.lips), len(mesh.upper_face)) == ("flame-lve", 428, 1501)
    assert set(mesh.opening.ravel()) < set(mesh.lips)


def write_ply(path: Path, vertices: int, triangles: list[list[int]], per_face: int = 3) -> None:
    """As BIWI.ply: coordinates of 8 bytes, vertex numbers of 2."""
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {vertices}\n"
    head += (
        "".join(f"property double {axis}\n" for axis in "xyz")
        + f"element face {len(triangles)}\nproperty list uchar ushort vertex_indices\nend_header\n"
    )
    faces = b"".join(bytes([per_face]) + np.array(triangle, "<u2").tobytes() for triangle in triangles)
    path.write_bytes(head.encode() + np.zeros((vertices, 3)).tobytes() + faces)


def biwi(folder: Path) -> Topology:
    return topology_of({"topology": "biwi"}, folder)


def test_biwi_s_tables_are_read_from_the_corpus_s_folder(tmp_path):
    with pytest.raises(MissingTables, match=r"BIWI\.ply is not there.*CodeTalker"):
        biwi(tmp_path)
    write_ply(tmp_path / "BIWI.ply", 23370, [[0, 1, 2], [2, 1, 23369]])
    with pytest.raises(MissingTables, match=r"lve\.txt"):
        biwi(tmp_path)
    (tmp_path / "lve.txt").write_text("5, 3, 3, 23369\n")
    (tmp_path / "fdd.txt").write_text("7, 8\n")
    mesh = biwi(tmp_path)
    assert mesh.skin.tolist() == [[0, 1, 2], [2, 1, 23369]]
    assert (mesh.regions, mesh.lips.tolist(), mesh.opening.shape) == ("biwi-lve", [3, 5, 23369], (0, 2))
    np.save(tmp_path / "faces.npy", np.array([[4, 5, 6]], np.int32))
    assert biwi(tmp_path).skin.tolist() == [[4, 5, 6]]
    (tmp_path / "lve.txt").write_text("5, 23370\n")
    with pytest.raises(ValueError, match="lips of biwi"):
        biwi(tmp_path)


def test_a_ply_that_is_not_triangles_is_refused_by_name(tmp_path):
    path = tmp_path / "some.ply"
    write_ply(path, 4, [[0, 1, 2], [0, 1, 2]])
    assert read_ply_triangles(path)[1] == 4
    good = path.read_bytes()
    for bad in (
        good.replace(b"binary_little_endian", b"ascii"),
        good[:-3],
        good.replace(b"ushort", b"string"),
        good.replace(b"element face 2\n", b""),
        good.replace(b"vertex_indices", b"texture"),
        b"",
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"some\.ply"):
            read_ply_triangles(path)
    write_ply(path, 4, [[0, 1, 2], [0, 1, 2]], per_face=4)
    with pytest.raises(ValueError, match="other things than vertices and triangles"):
        read_ply_triangles(path)


def test_scans_that_hang_upside_down_are_turned():
    point = np.array([[1, 2, 3]], np.float32)
    for scaling, turned in ((METRES, 2), (CODETALKER, 2), (MILLIMETRES, -2), (FACEXHUBERT, -2)):
        assert upright(point, scaling)[0, 1] == turned
        assert upright(point, scaling).dtype == np.float32
    with pytest.raises(ValueError, match="unknown topology 'smplx'"):
        topology_of({"topology": "smplx"}, Path())
