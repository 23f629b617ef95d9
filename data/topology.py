"""Which vertices of a mesh are joined to triangles, and which of them are lips, upper face, inner mouth.

Three meshes are known by name, the `topology` of a clip's json: MediaPipe's 478 points of any video, whose tables are here;
and FLAME's and BIWI's, whose tables their licences let nobody pass on, so that they are read from the corpus's folder.

Every score that is taken on a set of vertices depends on it: two sets of lips on VOCASET differ threefold. So a topology names
its `regions`, and each score carries that name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data import mesh, unpickle
from data.media.mesh import FACEXHUBERT, MILLIMETRES

MEDIAPIPE, FLAME, BIWI = "mediapipe", "flame", "biwi"
TRIANGLES = Path(__file__).with_name("mediapipe_triangles.txt")

PLY_NUMBERS = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"},
    **{"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}

# The inner edge of MediaPipe's lips (the inner half of its FACEMESH_LIPS), and the edges of the lids (FACEMESH_RIGHT_EYE and
# FACEMESH_LEFT_EYE). Its triangles close these holes; where a face is drawn, they are drawn as mouth and eyes.
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
LEFT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)

# The lips: what the outer edge of FACEMESH_LIPS encloses, the edge with it.
LIPS = (
    *(0, 11, 12, 13, 14, 15, 16, 17, 37, 38, 39, 40, 41, 42, 61, 62, 72, 73, 74, 76, 77, 78, 80, 81, 82, 84, 85, 86, 87),
    *(88, 89, 90, 91, 95, 96, 146, 178, 179, 180, 181, 183, 184, 185, 191, 267, 268, 269, 270, 271, 272, 291, 292, 302),
    *(303, 304, 306, 307, 308, 310, 311, 312, 314, 315, 316, 317, 318, 319, 320, 321, 324, 325, 375, 402, 403, 404, 405),
    *(407, 408, 409, 415),
)

# The upper face, after FLAME's forehead and eye region: the lids and two points around them, and what is as high as the brows
# (FACEMESH_LEFT_EYEBROW and FACEMESH_RIGHT_EYEBROW).
UPPER_FACE = (
    *(7, 8, 9, 10, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 33, 46, 52, 53, 54, 55, 56, 63, 65, 66, 67, 68, 69, 70),
    *(71, 103, 104, 105, 107, 108, 109, 110, 112, 113, 130, 133, 144, 145, 151, 153, 154, 155, 157, 158, 159, 160, 161),
    *(162, 163, 173, 189, 190, 221, 222, 223, 224, 225, 226, 228, 229, 230, 231, 232, 233, 243, 244, 246, 247, 249, 251),
    *(252, 253, 254, 255, 256, 257, 258, 259, 260, 261, 263, 276, 282, 283, 284, 285, 286, 293, 295, 296, 297, 298, 299),
    *(300, 301, 332, 333, 334, 336, 337, 338, 339, 341, 342, 359, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388),
    *(389, 390, 398, 413, 414, 441, 442, 443, 444, 445, 446, 448, 449, 450, 451, 452, 453, 463, 464, 466, 467),
)


class MissingTables(FileNotFoundError):
    """A corpus's folder lacks the tables of its mesh."""


@dataclass(frozen=True)
class Topology:
    """One mesh's tables. Triangles are three vertices each, counter-clockwise as seen from outside."""

    name: str
    vertices: int
    regions: str  # name and version of the two sets that scores are taken on
    lips: np.ndarray  # vertices, each once, ascending
    upper_face: np.ndarray  # likewise; shares none with the lips
    opening: np.ndarray  # (N, 2) vertices of the inner upper and the inner lower lip that meet; none where nobody published them
    skin: np.ndarray  # (F, 3) triangles of the surface
    mouth: np.ndarray  # (F, 3) triangles that close the mouth, where it is a hole
    eyes: np.ndarray  # (F, 3) triangles that close the eyes, where they are holes


def topology_of(about: Mapping[str, Any], folder: Path) -> Topology:
    """The mesh of a clip, by its json; folder: of its corpus's native files. Raises MissingTables."""
    name = about.get("topology", MEDIAPIPE)
    if name == MEDIAPIPE:
        return mediapipe_mesh()
    if name == FLAME:
        return flame_mesh(folder)
    if name == BIWI:
        return biwi_mesh(folder)
    raise ValueError(f"unknown topology {name!r}; there are {MEDIAPIPE}, {FLAME} and {BIWI}")


@cache
def mediapipe_mesh() -> Topology:
    """MediaPipe's 478 points. The last ten, of the irises, are in no triangle."""
    triangles_F3 = np.loadtxt(TRIANGLES, np.int32)
    mouth_F = np.isin(triangles_F3, INNER_LIPS).all(axis=1)
    eyes_F = np.isin(triangles_F3, RIGHT_EYE).all(axis=1) | np.isin(triangles_F3, LEFT_EYE).all(axis=1)
    return Topology(
        name=MEDIAPIPE,
        vertices=mesh.POINTS,
        regions="mediapipe478-v1",
        lips=np.array(LIPS),
        upper_face=np.array(UPPER_FACE),
        opening=np.array([(82, 87), (mesh.UPPER_LIP, mesh.LOWER_LIP), (312, 317)]),
        skin=triangles_F3[~(mouth_F | eyes_F)],
        mouth=triangles_F3[mouth_F],
        eyes=triangles_F3[eyes_F],
    )


def flame_mesh(folder: Path) -> Topology:
    """FLAME's 5,023 vertices, by tables that are fetched into `folder`, VOCASET's. Raises MissingTables.

    `FLAME_masks.pkl`: lips, and forehead with eye region, as the release of DiffSpeaker and of SelfTalk ("flame-masks"); else
    `FLAME_lve.txt` and `FLAME_fdd.txt`: FaceDiffuser's wider sets ("flame-lve"). Opening: the two vertices in the middle of
    the lips that Perceptual-3D-Talking-Head's temporal misalignment is measured between.
    """
    triangles_F3, count = read_ply_triangles(_table(folder, "FLAME_sample.ply", "template of TimoBolkart/voca"))
    if (folder / "FLAME_masks.pkl").exists():
        masks = unpickle.load(folder / "FLAME_masks.pkl")
        if not isinstance(masks, dict) or not {"lips", "forehead", "eye_region"} <= set(masks):
            raise ValueError(f"{folder / 'FLAME_masks.pkl'} names no lips, forehead and eye_region: fetch it again")
        lips, upper = masks["lips"], np.concatenate((masks["forehead"], masks["eye_region"]))
        regions = "flame-masks"
    else:
        where = "datasets/vocaset of theEricMa/DiffSpeaker; FLAME_lve.txt and FLAME_fdd.txt of FaceDiffuser may stand for it"
        if not (folder / "FLAME_lve.txt").exists():
            _table(folder, "FLAME_masks.pkl", where)
        lips, upper = (read_indices(_table(folder, f"FLAME_{name}.txt", where)) for name in ("lve", "fdd"))
        regions = "flame-lve"
    return _scanned(FLAME, count, regions, lips, upper, [(3531, 3504)], triangles_F3)


def biwi_mesh(folder: Path) -> Topology:
    """BIWI's 23,370 vertices, by tables that are fetched into `folder`, BIWI's. Raises MissingTables.

    Lips and upper face: `lve.txt` and `fdd.txt`, which CodeTalker's authors picked by hand and everybody uses ("biwi-lve").
    Triangles: `faces.npy`, which the native templates give, else `BIWI.ply`.
    """
    if (folder / "faces.npy").exists():
        triangles_F3, count = np.load(folder / "faces.npy", allow_pickle=False), 23370
    else:
        triangles_F3, count = read_ply_triangles(_table(folder, "BIWI.ply", "BIWI of Doubiiu/CodeTalker"))
    lips, upper = (read_indices(_table(folder, f"{name}.txt", "BIWI/regions of Doubiiu/CodeTalker")) for name in ("lve", "fdd"))
    return _scanned(BIWI, count, "biwi-lve", lips, upper, [], triangles_F3)


def upright(vertices: np.ndarray, scaling: str) -> np.ndarray:
    """`(…, 3)` vertices in a scaling of data/media/mesh.py, turned so that y is up and z towards the viewer."""
    return vertices * np.array((1, -1, -1), vertices.dtype) if scaling in (MILLIMETRES, FACEXHUBERT) else vertices


def read_ply_triangles(path: Path) -> tuple[np.ndarray, int]:
    """Triangles `(F, 3)` int32 of a binary little-endian .ply, and how many vertices it has. ValueError."""
    head, end, body = path.read_bytes().partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not end or ["format", "binary_little_endian", "1.0"] not in lines:
        raise ValueError(f"{path} is no binary little-endian .ply: save it as one, in MeshLab for example")
    elements: dict[str, tuple[int, list[Any]]] = {}
    try:
        for words in lines:
            if words[:1] == ["element"]:
                elements[words[1]] = (int(words[2]), properties := [])
            elif words[:2] == ["property", "list"]:  # each of three: checked below
                properties += [(f"{words[4]} count", PLY_NUMBERS[words[2]]), (words[4], PLY_NUMBERS[words[3]], 3)]
            elif words[:1] == ["property"]:
                properties.append((words[2], PLY_NUMBERS[words[1]]))
        (vertices, of_vertex), (faces, of_face) = elements["vertex"], elements["face"]
        values = np.frombuffer(body, np.dtype(of_face), faces, offset=vertices * np.dtype(of_vertex).itemsize)
        name = next(field for field in ("vertex_indices", "vertex_index") if field in (values.dtype.names or ()))
    except (KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise ValueError(f"{path} has a header that was not understood, or is cut off ({error!r})") from error
    if list(elements)[:2] != ["vertex", "face"] or (values[f"{name} count"] != 3).any():
        raise ValueError(f"{path} has other things than vertices and triangles")
    return values[name].astype(np.int32), vertices


def read_indices(path: Path) -> np.ndarray:
    """Vertex numbers from 0, separated by commas. ValueError."""
    return np.array([int(word) for word in path.read_text().replace(",", " ").split()])


def _table(folder: Path, name: str, where: str) -> Path:
    if not (folder / name).exists():
        raise MissingTables(f"{folder / name} is not there: `dvc repro download@{folder.name}` fetches it; it is in {where}")
    return folder / name


def _scanned(
    name: str, count: int, regions: str, lips: Any, upper: Any, opening: list[tuple[int, int]], triangles_F3: np.ndarray
) -> Topology:
    none_F3 = np.zeros((0, 3), np.int32)
    lips, upper = np.unique(lips), np.unique(upper)
    for what, numbers in (("lips", lips), ("upper face", upper), ("triangles", triangles_F3)):
        if not numbers.size or numbers.min() < 0 or numbers.max() >= count:
            raise ValueError(f"the {what} of {name} ({regions}) name vertices that are not among its {count}: check the tables")
    return Topology(
        name, count, regions, lips, upper, np.array(opening, int).reshape(-1, 2), triangles_F3, mouth=none_F3, eyes=none_F3
    )
