"""VOCASET (Cudeiro et al., CVPR 2019): 12 speakers, 40 sentences each, FLAME's 5,023 vertices in metres at 60 fps, 22 kHz sound.

    data_verts.npy         (N, 5023, 3) float32, the frames of all clips
    subj_seq_to_idx.pkl    {speaker: {sentence: {frame: row of data_verts}}}
    raw_audio_fixed.pkl    {speaker: {sentence: {"audio": (samples,) int16, "sample_rate": Hz}}}
    templates.pkl          {speaker: (5023, 3)}

as `trainingdata.zip` unpacks; or the layout of `data.corpora.scans` with FaceFormer's `templates.pkl`, at 60 or 30 fps. Of 480
sentences two have no frames (TimoBolkart/voca issue 120) and, by FaceFormer's counts, five no sound. Sound and motion begin
together and differ in length by up to 2 % (issue 5).
"""

import operator
import re
import wave
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data import unpickle
from data.corpora import Refused, UnsafeFile, safe_key, source_clip
from data.corpora.scans import (
    BadTake,
    Take,
    UnusableScans,
    is_safe,
    make_templates,
    prepare_once,
    read_array,
    takes,
    write_array,
)
from data.files import atomic_file
from data.manifest import Manifest
from data.media.mesh import METRES
from data.shardset import Clip

NATIVE = ("data_verts.npy", "raw_audio_fixed.pkl", "subj_seq_to_idx.pkl", "templates.pkl")
KEEP_EVERY = {60: 2, 30: 1}  # frames per second of a file, and which of them make the 30 of the papers
FPS_TOLERANCE = 0.15  # real clips imply 59 to 61


def prepare(raw: Path) -> None:
    """Native files to files per clip. Raises UnusableScans, UnsafePickle."""
    if not (raw / "data_verts.npy").exists():
        make_templates(raw)
        return
    if missing := [name for name in NATIVE if not (raw / name).exists()]:
        raise UnusableScans(
            f"{raw} lacks {', '.join(missing)}: trainingdata.zip holds all of {', '.join(NATIVE)}, but is so large that some "
            "programs unpack its first file alone; unpack it with another one"
        )
    make_templates(raw)
    prepare_once(raw, "data_verts.npy", [raw / name for name in NATIVE], partial(_make_clips, raw))


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip | Refused]:
    """Settings: vertices, that a mesh has."""
    for take in takes(raw, manifest.settings["vertices"]):
        yield take if isinstance(take, Refused) else _clip(raw, take)


def _clip(raw: Path, take: Take) -> Clip | Refused:
    rate = take.frames / take.seconds
    fps = min(KEEP_EVERY, key=lambda fps: abs(rate / fps - 1))
    if abs(rate / fps - 1) > FPS_TOLERANCE:
        return Refused(take.key, "neither 60 nor 30 fps", f"{take.frames} frames in {take.seconds:.2f} s of sound")
    number = re.search(r"\d+$", take.name)
    try:
        return source_clip(
            take.key,
            raw,
            take.sound,
            beside={"vertices": take.motion, "template": take.template},
            motion_fps=fps,
            keep_every=KEEP_EVERY[fps],
            topology="flame",
            stored_as=METRES,
            scaling=METRES,
            sentence=int(number[0]) if number else None,
        )
    except UnsafeFile as error:
        return Refused(take.key, "unsafe file", str(error))


def _make_clips(raw: Path, keep: bool) -> Iterator[Refused]:
    """`vertices_npy/` and `wav/` of every sentence; those that cannot be made are refused."""
    rows_N = _rows(raw / "data_verts.npy")
    index = _two_levels(raw / "subj_seq_to_idx.pkl")
    sounds = _two_levels(raw / "raw_audio_fixed.pkl")
    left = len(rows_N)  # each is a frame of one clip; an index that gives them out often could fill any disk
    for speaker, name in sorted({*index, *sounds}):
        try:
            if not is_safe(speaker, name):
                raise BadTake("unsafe name", f"{(speaker, name)!a}")
            if (speaker, name) not in index:
                raise BadTake("no motion", "it has sound, but no frames in subj_seq_to_idx.pkl")
            frames = index[speaker, name]
            if not isinstance(frames, dict):
                raise BadTake("unreadable index", "subj_seq_to_idx.pkl has no {frame: row} of it")
            left -= len(frames)
            if left < 0:
                raise BadTake("rows given twice", "data_verts.npy has fewer rows than its clips have frames")
            rows = _rows_of_clip(frames, len(rows_N))
            sound, rate = _sound(sounds.get((speaker, name)))
            motion, wav = raw / "vertices_npy" / f"{speaker}_{name}.npy", raw / "wav" / f"{speaker}_{name}.wav"
            if keep and motion.exists() and wav.exists():
                continue
            frames_TV3 = np.asarray(rows_N[rows], np.float32)
            if not np.isfinite(frames_TV3).all():
                raise BadTake("motion that is not finite", f"frame {int(np.argmin(np.isfinite(frames_TV3).all(axis=(1, 2))))}")
            _write_wav(wav, sound, rate)
            write_array(motion, frames_TV3.reshape(len(rows), -1))
        except BadTake as bad:
            yield Refused(safe_key(speaker, name), bad.reason, bad.detail)


def _rows(path: Path) -> np.ndarray:
    """The frames of all clips, `(N, V, 3)`, left on the disk."""
    try:
        rows_N = read_array(path)
    except BadTake as error:
        raise UnusableScans(f"{path} is damaged ({error.detail}): fetch it again") from error
    if rows_N.ndim != 3 or rows_N.shape[2] != 3:
        raise UnusableScans(f"{path} has the shape {rows_N.shape}, not (N, V, 3): fetch it again")
    return rows_N


def _two_levels(path: Path) -> dict[tuple[str, str], Any]:
    """{(speaker, sentence): …} of a pickle of {speaker: {sentence: …}}."""
    value = unpickle.load(path)
    if not isinstance(value, dict) or not all(isinstance(of_speaker, dict) for of_speaker in value.values()):
        raise UnusableScans(f"{path} holds no {{speaker: {{sentence: …}}}}: fetch it again")
    return {(str(speaker), str(name)): what for speaker, names in value.items() for name, what in names.items()}


def _rows_of_clip(frames: dict[Any, Any], count: int) -> np.ndarray:
    """The rows of a clip's frames in their order; `count`: how many there are in all."""
    try:
        of_frame = {operator.index(frame): operator.index(row) for frame, row in frames.items()}
    except TypeError as error:
        raise BadTake("unreadable index", f"{error}") from error
    numbers = sorted(of_frame)
    if not numbers:
        raise BadTake("no motion", "subj_seq_to_idx.pkl has an empty list of frames")
    if numbers[-1] - numbers[0] + 1 != len(numbers):
        # Closing the gap would move all that follows against the sound.
        raise BadTake("frames missing", f"{len(numbers)} frames between {numbers[0]} and {numbers[-1]}")
    if not 0 <= min(of_frame.values()) <= max(of_frame.values()) < count:
        raise BadTake("row out of range", f"rows up to {max(of_frame.values())}, where data_verts.npy has {count}")
    return np.array([of_frame[number] for number in numbers])


def _sound(entry: Any) -> tuple[np.ndarray, int]:
    """A clip's samples, int16, and their rate in Hz."""
    if not isinstance(entry, dict) or "audio" not in entry or "sample_rate" not in entry:
        raise BadTake("no sound", "raw_audio_fixed.pkl has none")
    sound, rate = entry["audio"], entry["sample_rate"]
    if not isinstance(sound, np.ndarray) or sound.dtype != np.int16 or sound.ndim != 1 or not len(sound):
        raise BadTake("unreadable sound", "it is no row of 16-bit samples")
    if not isinstance(rate, int | np.integer) or not 4000 <= rate <= 192_000:
        raise BadTake("unreadable sound", f"its sample rate is {str(rate)[:40]!a}")
    return sound, int(rate)


def _write_wav(path: Path, sound: np.ndarray, rate: int) -> None:
    """16-bit samples as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file, wave.open(file, "wb") as wav:
        wav.setparams((1, 2, rate, len(sound), "NONE", "not compressed"))
        wav.writeframes(sound.astype("<i2").tobytes())
