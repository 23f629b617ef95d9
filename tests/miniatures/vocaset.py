"""VOCASET in small: the files of `trainingdata.zip` byte for byte as their programs write them, with fewer of everything.

The pickles are Python 2's (protocol 2, byte strings as text), the sound is 16-bit at 22,000 Hz, the frames are rows of one
float32 array. One frame is 1/60 s; sound and motion differ by a frame or two, as in the original.
"""

import io
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

SPEAKERS = [
    f"FaceTalk_{number}_TA"
    for number in (
        *("170728_03272", "170904_00128", "170725_00137", "170915_00223", "170811_03274", "170913_03279"),
        *("170904_03276", "170912_03278", "170811_03275", "170908_03277", "170809_00138", "170731_00024"),
    )
]
WITHOUT_MOTION = [("FaceTalk_170811_03274_TA", "sentence24"), ("FaceTalk_170809_00138_TA", "sentence32")]
BROKEN = {("FaceTalk_170725_00137_TA", "sentence21"): "row"}
RATE, FPS, POINTS = 22_000, 60, 5023


class _Python2Pickler(pickle._Pickler):
    """Writes str and bytes as Python 2 writes str; all else of protocol 2 is the same in both."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        data = text if isinstance(text, bytes) else text.encode("latin1")
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_str


def python2_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def write_vocaset(
    folder: Path,
    speakers: Iterable[str] = SPEAKERS,
    sentences: Iterable[int] = (1, 21, 24, 32),
    points: int = 12,
    frames: int = 40,
    broken: Mapping[tuple[str, str], str] = BROKEN,
) -> Path:
    """The native files in `folder`.

    broken: what is wrong with which sentence: "row" (one beyond the end), "sound" (none), "nan", "gap" (a frame missing),
    "rate" (half the sound that belongs to it).
    """
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(0)
    rows: list[np.ndarray] = []
    index: dict[str, dict[str, dict[int, int]]] = {}
    sounds: dict[str, dict[str, dict[str, Any]]] = {}
    templates = {}
    for speaker in speakers:
        index[speaker], sounds[speaker] = {}, {}
        templates[speaker] = template = dice.uniform(-0.1, 0.1, (points, 3))
        for number in sentences:
            name = f"sentence{number:02d}"
            what = broken.get((speaker, name))
            count = frames + number % 5
            samples = (count + int(dice.integers(-1, 2))) * RATE // FPS // (2 if what == "rate" else 1)
            if what != "sound":
                sounds[speaker][name] = {"audio": _hum(samples, dice), "sample_rate": RATE}
            if (speaker, name) in WITHOUT_MOTION:
                continue
            first = sum(map(len, rows))
            rows.append(_motion(template, count, dice))
            index[speaker][name] = {frame: first + frame for frame in range(count)}
            if what == "row":
                index[speaker][name][count - 1] = 10**6
            elif what == "gap":
                del index[speaker][name][count // 2]
            elif what == "nan":
                rows[-1][count // 2, 0, 0] = np.nan
    np.save(folder / "data_verts.npy", np.concatenate(rows))
    np.save(folder / "init_expression_basis.npy", np.zeros((3, 3)))
    (folder / "readme.pdf").write_bytes(b"%PDF-1.4\n")
    for name, value in (
        ("raw_audio_fixed", sounds),
        ("subj_seq_to_idx", index),
        ("templates", templates),
        ("processed_audio_deepspeech", {}),
    ):
        (folder / f"{name}.pkl").write_bytes(python2_pickle(value))
    return folder


def zip_vocaset(folder: Path, path: Path) -> Path:
    """`trainingdata.zip`: the files at its top, without a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def write_processed(folder: Path, native: Path, keep_every: int = 1) -> Path:
    """What FaceFormer's process_voca_data.py makes of the native files; keep_every=2 for one who saved 30 fps."""
    from scipy.io import wavfile

    rows = np.load(native / "data_verts.npy")
    index = pickle.loads((native / "subj_seq_to_idx.pkl").read_bytes(), encoding="latin1")
    sounds = pickle.loads((native / "raw_audio_fixed.pkl").read_bytes(), encoding="latin1")
    for name in ("vertices_npy", "wav"):
        (folder / name).mkdir(parents=True)
    for speaker, sentences in index.items():
        for name, frames in sentences.items():
            if max(frames.values()) < len(rows):
                motion = np.array([rows[row] for row in frames.values()]).reshape(len(frames), -1)
                np.save(folder / "vertices_npy" / f"{speaker}_{name}.npy", motion[::keep_every])
    for speaker, sentences in sounds.items():
        for name, sound in sentences.items():
            wavfile.write(folder / "wav" / f"{speaker}_{name}.wav", sound["sample_rate"], sound["audio"])
    (folder / "templates.pkl").write_bytes((native / "templates.pkl").read_bytes())
    return folder


def _motion(template: np.ndarray, frames: int, dice: np.random.Generator) -> np.ndarray:
    """`(T, V, 3)` float32, metres: the lower half of the points opens and closes three times a second."""
    opening = np.sin(3 * np.pi * np.arange(frames) / FPS) ** 2 * 0.01
    motion = template + 1e-4 * dice.standard_normal((frames, *template.shape))
    motion[:, len(template) // 2 :, 1] -= opening[:, None]
    return motion.astype(np.float32)


def _hum(samples: int, dice: np.random.Generator) -> np.ndarray:
    time = np.arange(samples) / RATE
    tone = 6000 * np.sin(2 * np.pi * 180 * time) * np.sin(3 * np.pi * time) ** 2 + 20 * dice.standard_normal(samples)
    return tone.astype(np.int16)
