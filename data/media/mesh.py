"""Meshes: readers of the formats that scanned faces come in, and the scalings in which papers train on BIWI.

Vertices are `(V, 3)`, frames of them `(T, V, 3)`, faces `(F, 3)` vertex numbers from 0.
"""

from itertools import pairwise

import numpy as np

MILLIMETRES = "millimetres"  # as scanned: BIWI's own files, y down and z away from the viewer
METRES = "metres"  # y up, z towards the viewer
CODETALKER = "codetalker"  # turned by π about x; each frame centred, and divided by the root of its surface
FACEXHUBERT = "facexhubert"  # each axis less the mean of the speaker's template, divided by its extent; not turned


def read_vl(data: bytes) -> np.ndarray:
    """One frame of BIWI to `(V, 3)` float32, millimetres: the number of vertices, then their coordinates, little-endian.

    The corpus's readers take the number as MATLAB's `ulong`, which is 4 or 8 bytes long by platform; the length of the file
    tells. ValueError if it tells nothing.
    """
    for width in (4, 8):
        if len(data) >= width and len(data) == width + 12 * int.from_bytes(data[:width], "little"):
            return np.frombuffer(data, "<f4", offset=width).reshape(-1, 3)
    raise ValueError(f"{len(data)} bytes are no .vl frame: a number of vertices, and three 4-byte floats for each")


def read_obj(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices `(V, 3)` float32 and faces `(F, 3)` int32 of a Wavefront .obj; polygons become fans. ValueError."""
    vertices, faces = [], []
    for line in data.decode("utf-8", "replace").splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append([float(word) for word in words[:3]])
        elif kind == "f":
            first, *others = [int(word.partition("/")[0]) - 1 for word in words]
            faces += [[first, second, third] for second, third in pairwise(others)]
    vertices_V3, faces_F3 = np.array(vertices, np.float32), np.array(faces, np.int32).reshape(-1, 3)
    if vertices_V3.ndim != 2 or vertices_V3.shape[1] != 3 or not np.isfinite(vertices_V3).all():
        raise ValueError("an .obj without vertices, or with one that has no three finite coordinates")
    if faces_F3.size and not 0 <= faces_F3.min() <= faces_F3.max() < len(vertices_V3):
        raise ValueError("an .obj with a face whose corner is no vertex")
    return vertices_V3, faces_F3


def surface(vertices_V3: np.ndarray, faces_F3: np.ndarray) -> float:
    """The area of all triangles."""
    a, b, c = (vertices_V3[corner].astype(np.float64) for corner in faces_F3.T)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def scaling_of(template_V3: np.ndarray) -> str | None:
    """In which of the scalings above a BIWI template is, by its extent and its middle; None if it is in none that is known."""
    extent, middle = np.ptp(template_V3, axis=0), np.abs(template_V3.mean(axis=0)).max()
    if np.abs(extent - 1).max() < 1e-3 and middle < 1e-3:
        return FACEXHUBERT
    if 0.5 < extent.max() < 5 and middle < 1e-3:
        return CODETALKER
    if 50 < extent.max() < 1000:
        return MILLIMETRES
    return None


def rescale(
    vertices_TV3: np.ndarray, template_V3: np.ndarray, faces_F3: np.ndarray | None, scaling: str
) -> tuple[np.ndarray, np.ndarray]:
    """A clip's vertices and template, in millimetres as scanned, in another scaling; both float32.

    CodeTalker: `BIWI/data_preprocess` of Doubiiu/CodeTalker, which rotates by π about x, then subtracts each frame's mean and
    divides by the root of the sum of its vertices' mixed Voronoi areas, and that sum is the surface of the mesh. The
    template goes through the same by itself, so that a clip's scale follows its mouth.
    FaceXHuBERT: `vertex_process.py` of galib360/FaceXHuBERT, by the template's mean and extent on each axis.
    """
    frames_TV3, template_V3 = vertices_TV3.astype(np.float64), template_V3.astype(np.float64)
    turn = np.array([1, -1, -1])
    if scaling == METRES:
        frames_TV3, template_V3 = frames_TV3 * turn / 1000, template_V3 * turn / 1000
    elif scaling == CODETALKER:
        if faces_F3 is None:
            raise ValueError(f"the scaling {scaling} needs the faces of the mesh")
        frames_TV3 = np.stack([_centred(frame * turn, faces_F3) for frame in frames_TV3])
        template_V3 = _centred(template_V3 * turn, faces_F3)
    elif scaling == FACEXHUBERT:
        middle, extent = template_V3.mean(axis=0), np.ptp(template_V3, axis=0)
        frames_TV3, template_V3 = (frames_TV3 - middle) / extent, (template_V3 - middle) / extent
    else:
        raise ValueError(f"unknown scaling {scaling!r}; there are {METRES}, {CODETALKER} and {FACEXHUBERT}")
    return frames_TV3.astype(np.float32), template_V3.astype(np.float32)


def _centred(vertices_V3: np.ndarray, faces_F3: np.ndarray) -> np.ndarray:
    """About its mean, with a surface of 1."""
    return (vertices_V3 - vertices_V3.mean(axis=0)) / np.sqrt(surface(vertices_V3, faces_F3))
