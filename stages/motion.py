"""Scanned clips to one clock: 16 kHz sound, and vertices at the frame rate of the papers; what `align` is for filmed ones.

Sound and scans begin together (TimoBolkart/voca issue 5) and end up to some frames apart: the sound is cut, or padded with
silence, to the length of the motion, which stays as it was scanned.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.media import audio, mesh, video
from data.shardset import Clip, Column, Skipped, json_bytes, json_object, npy_bytes

ONLY_HERE = ("path", "beside")  # where the source files are on this machine


@dataclass(frozen=True)
class MotionParams:
    """`motion` in params.yaml."""

    sample_rate: int  # of the sound, Hz
    min_frames: int  # a shorter clip is left out
    max_length_difference_s: float  # between sound and motion; a clip that differs by more is left out


def align_motion(clip: Clip, params: MotionParams) -> Column | Skipped:
    """One scanned clip to sound, vertices `(T, V, 3)` and template `(V, 3)`, both float32 in the scaling that its json names."""
    source = json_object(clip.members["json"])
    try:
        sound = audio.samples_at(Path(source["path"]), params.sample_rate)
        arrays = {name: _read(file) for name, file in source["beside"].items()}
    except video.Unusable as error:
        return Skipped(error.reason, error.detail or source["source"])
    except video.MediaError as error:
        return Skipped("unreadable file", f"{source['source']}: {error.strerror}")
    except (OSError, ValueError, EOFError) as error:
        return Skipped("unreadable file", f"{source['source']} or what is beside it: {error}")
    template_V3, scanned_TV3 = arrays["template"], arrays["vertices"].reshape(len(arrays["vertices"]), -1, 3)
    if template_V3.shape != scanned_TV3.shape[1:]:
        return Skipped("template of another mesh", f"{template_V3.shape} beside {scanned_TV3.shape[1:]}")

    difference = len(sound) / params.sample_rate - len(scanned_TV3) / source["motion_fps"]
    if abs(difference) > params.max_length_difference_s:
        return Skipped("sound and motion differ in length", f"the sound is {difference:+.2f} s longer")
    kept_TV3, fps = scanned_TV3[:: source["keep_every"]], source["motion_fps"] / source["keep_every"]
    if len(kept_TV3) < params.min_frames:
        return Skipped("too short", f"{len(kept_TV3)} frames, {params.min_frames} wanted")
    if not (np.isfinite(kept_TV3).all() and np.isfinite(template_V3).all()):
        return Skipped("motion that is not finite", source["source"])
    if source["stored_as"] != source["scaling"]:
        kept_TV3, template_V3 = mesh.rescale(kept_TV3, template_V3, arrays.get("faces"), source["scaling"])

    about: dict[str, Any] = {key: value for key, value in source.items() if key not in ONLY_HERE} | {
        "fps": int(fps) if fps == int(fps) else fps,
        "frames": len(kept_TV3),
        "vertices": len(template_V3),
        "sound_length_difference_s": round(difference, 4),
    }
    samples = audio.fit_length(sound, round(len(kept_TV3) * params.sample_rate / fps))
    return {
        "wav": audio.wav_bytes(samples, params.sample_rate),
        "json": json_bytes(about),
        "vertices.npy": npy_bytes(kept_TV3.astype(np.float32)),
        "template.npy": npy_bytes(template_V3.astype(np.float32)),
    }


def _read(file: dict[str, str]) -> np.ndarray:
    return np.load(file["path"], allow_pickle=False)
