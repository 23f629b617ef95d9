"""Faces of points in motion: how near the real motion, lips above all, and both as clay beside the distance between them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.media import audio, video
from data.media.mesh import METRES
from data.shardset import Clip, json_object, npy_array
from data.topology import topology_of
from stages.drawing.film import Figure, contact_sheet, side_by_side
from stages.metrics import mesh
from stages.rendering import RenderParams

MEMBER = "generated.npy"
HEADINGS = {
    "lve_mm": "largest lip error, mm ↓",
    "lve": "LVE, squared ↓",
    "mve_mm": "vertex error, mm ↓",
    "fdd": "FDD, squared → 0",
    "opening_mm": "mouth opening, mm",
    "opening_correlation": "opening, correlation ↑",
    "energy_correlation": "opening with loudness, correlation",
    "jitter_to_real": "jitter, of the real one's → 1",
    "diversity": "between two noises",
    "seconds_per_frame": "s per frame ↓",
}
NOTE = (
    "Means over frames, then clips, unweighted. LVE and FDD are of squared distances, in units of the data, as published; "
    "compare them with no other lips, upper face or scaling than those named above."
)


def told(metrics: dict[str, Any]) -> str:
    """What the scores come to."""
    own, baselines = metrics["own"], metrics["baselines"]
    shares = " and ".join(f"{own['lve'] / baselines[name]['lve']:.2f} of {name.replace('_', ' ')}'s" for name in baselines)
    opening, loudness = own["opening_correlation"], own["energy_correlation"]
    heard = "" if loudness is None else f" It opens with the sound's loudness by r = {loudness:.2f}"
    real = "" if loudness is None else f", the real one by {own['energy_correlation_real']:.2f}."
    moved = "" if opening is None else f" Its mouth opens with the real one by r = {opening:.2f}."
    return f"LVE is {shares} (lips and upper face: {own['regions']}).{moved}{heard}{real}"


def scores(clip: Clip, fake_TV3: np.ndarray, raw: Path) -> dict[str, float | str]:
    """Of one clip, with the name of the lips and the upper face that they are taken on."""
    topology, scaling = topology_of(about(clip), raw), scaling_of(clip)
    real_TV3, template_V3, mel_MB = (npy_array(clip.members[f"{name}.npy"]) for name in ("vertices", "template", "mel"))
    return {"regions": topology.regions} | mesh.scores(real_TV3, fake_TV3, template_V3, mel_MB, topology, scaling)


def difference(clip: Clip, one_TV3: np.ndarray, other_TV3: np.ndarray) -> float:
    """Between two motions for one sound: mean distance of a vertex, in millimetres where the data have a length."""
    return mesh.diversity(np.stack((one_TV3, other_TV3))) * mesh.MILLIMETRES_IN.get(scaling_of(clip), 1.0)


def baselines(clips: Sequence[Clip], train: Iterable[Clip]) -> dict[str, Iterable[np.ndarray]]:
    """A face that never moves, one that stays at the training set's mean, and linear regression from the spectrogram."""
    train = list(train)
    mean_V3 = mesh.mean_residual(map(residual, train))
    linear = mesh.linear_motion((npy_array(clip.members["mel.npy"]), residual(clip)) for clip in train)

    def neutral(clip: Clip) -> np.ndarray:
        return mesh.still(npy_array(clip.members["template.npy"]), about(clip)["frames"])

    def regressed(clip: Clip) -> np.ndarray:
        return neutral(clip) + linear.predict(npy_array(clip.members["mel.npy"]), about(clip)["frames"])

    return {
        "template": map(neutral, clips),
        "mean_motion": (neutral(clip) + mean_V3 for clip in clips),
        "linear_regression": map(regressed, clips),
    }


def residual(clip: Clip) -> np.ndarray:
    """`(T, V, 3)`: motion less template."""
    return npy_array(clip.members["vertices.npy"]) - npy_array(clip.members["template.npy"])


def about(clip: Clip) -> dict[str, Any]:
    """A clip's json."""
    return json_object(clip.members["json"])


def scaling_of(clip: Clip) -> str:
    """Units and axes of its vertices, of data/media/mesh.py: scans name theirs, MediaPipe's mesh is in metres."""
    return about(clip).get("scaling", METRES)


def sheet(clips: Sequence[Clip], made: Mapping[str, Sequence[np.ndarray]], raw: Path) -> Image.Image:
    """The same moments of the first clip: real, then as each sampler made it."""
    clip = clips[0]
    rows = [("real", npy_array(clip.members["vertices.npy"])), *((name, motions[0]) for name, motions in made.items())]
    return contact_sheet(figure(clip, raw, 256), rows, 8)


def figure(clip: Clip, raw: Path, size: int) -> Figure:
    """The clip's speaker, framed."""
    return Figure(topology_of(about(clip), raw), npy_array(clip.members["template.npy"]), scaling_of(clip), size)


def film(clip: Clip, generated_TV3: np.ndarray, raw: Path, params: RenderParams) -> tuple[bytes, Image.Image]:
    """The mp4: real, generated, and the distance between the two in colour; and the contact sheet of the first two."""
    real_TV3, fps = npy_array(clip.members["vertices.npy"]), about(clip)["fps"]
    frames = side_by_side(figure(clip, raw, params.mesh_size), real_TV3, generated_TV3)
    encoded = video.encode_frames(frames, fps, params.crf, audio.wav_samples(clip.members["wav"]))
    small = figure(clip, raw, params.mesh_size // 2)
    return encoded, contact_sheet(small, [("real", real_TV3), ("generated", generated_TV3)], params.sheet_columns)
