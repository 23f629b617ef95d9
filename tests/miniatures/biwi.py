"""BIWI in small: its archives as they were delivered, and its two processed forms, with fewer of everything.

faces0N.tgz    faces/F1/e01.tar (frame_001.vl …), and an e01.tgz beside it that nobody needs
rest.tgz       audio/F1_e01_cut.wav, 44.1 kHz; rigid_scans/F1.obj and F1.png
"""

import gzip
import io
import pickle
import tarfile
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np

RATE, FPS = 44_100, 25
POINTS, FACES = 23_370, 46_068
SPEAKERS = ("F2", "F3", "M1")
TAKES = ("e01", "e02", "e33", "e37", "01")
MISSING = ("F3_e02", "M1_e01", "M1_e02")  # of these, the original has none either


def template(speaker: str, points: int) -> np.ndarray:
    """`(V, 3)`, millimetres: a bulging sheet of the size of a face, upside down as scanned, other for each speaker."""
    columns = next(width for width in range(int(points**0.5), 0, -1) if points % width == 0)
    x, y = np.meshgrid(np.linspace(-75, 75, columns), np.linspace(-95, 95, points // columns))
    size = 1 + 0.01 * (ord(speaker[0]) % 7) + 0.02 * int(speaker[1:])
    return size * np.stack([x.ravel(), y.ravel(), 60 * np.cos(x / 60).ravel() - 700], axis=1)


def triangles(points: int) -> np.ndarray:
    """`(F, 3)` vertex numbers from 0; of 23,370 points, the original's 46,068."""
    columns = next(width for width in range(int(points**0.5), 0, -1) if points % width == 0)
    corner = np.arange(points).reshape(-1, columns)
    a, b, c, d = corner[:-1, :-1].ravel(), corner[:-1, 1:].ravel(), corner[1:, :-1].ravel(), corner[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    return faces[:FACES] if points == POINTS else faces


def motion(speaker: str, take: str, points: int, frames: int) -> np.ndarray:
    """`(T, V, 3)` float32, millimetres."""
    dice = np.random.default_rng([ord(speaker[0]), int(speaker[1:]), *take.encode()])
    opening = 8 * np.sin(3 * np.pi * np.arange(frames) / FPS) ** 2
    moving = template(speaker, points) + 0.05 * dice.standard_normal((frames, points, 3))
    moving[:, points // 2 :, 1] += opening[:, None]
    return moving.astype(np.float32)


def write_biwi(
    folder: Path,
    speakers: Iterable[str] = SPEAKERS,
    takes: Iterable[str] = TAKES,
    points: int = 12,
    frames: int = 20,
    broken: bool = True,
) -> Path:
    """The native archives in `folder`, a speaker in each of the first; broken: a frame of the last take of each is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    takes, rest = list(takes), {}
    for number, speaker in enumerate(speakers, start=1):
        members: dict[str, bytes] = {}
        for take in takes:
            if f"{speaker}_{take}" in MISSING:
                continue
            files = {f"frame_{i:03d}.vl": vl(frame) for i, frame in enumerate(motion(speaker, take, points, frames), start=1)}
            if broken and take == takes[-1]:
                del files[f"frame_{frames // 2:03d}.vl"]
            members[f"faces/{speaker}/{take}.tar"] = tar(files)
            members[f"faces/{speaker}/{take}.tgz"] = tgz({"textures.txt": b"not needed"})
            rest[f"audio/{speaker}_{take}_cut.wav"] = wav(frames / FPS + 0.02)
            rest[f"audio/{speaker}_{take}.wav"] = wav(frames / FPS + 1.0)
        rest[f"rigid_scans/{speaker}.obj"] = obj(template(speaker, points), triangles(points))
        rest[f"rigid_scans/{speaker}.png"] = b"\x89PNG\r\n\x1a\n"
        (folder / f"faces0{number}.tgz").write_bytes(tgz(members))
    (folder / "rest.tgz").write_bytes(tgz(rest))
    return folder


def write_processed(
    folder: Path, speakers: Iterable[str] = SPEAKERS, takes: Iterable[str] = TAKES, points: int = 12, frames: int = 20
) -> Path:
    """The files of CodeTalker's preprocessing: float64, centred, of surface 1. As its MATLAB scripts compute it."""
    for name in ("vertices_npy", "wav"):
        (folder / name).mkdir(parents=True)
    speakers, faces = list(speakers), triangles(points)
    for speaker in speakers:
        for take in takes:
            if take.startswith("e") and f"{speaker}_{take}" not in MISSING:
                moving = np.stack([_normalised(frame, faces) for frame in motion(speaker, take, points, frames)])
                np.save(folder / "vertices_npy" / f"{speaker}_{take}.npy", moving.reshape(frames, -1))
                (folder / "wav" / f"{speaker}_{take}.wav").write_bytes(wav(frames / FPS + 0.02))
    templates = {speaker: _normalised(template(speaker, points), faces) for speaker in speakers}
    (folder / "templates.pkl").write_bytes(pickle.dumps(templates))
    return folder


def _normalised(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Rotation by π about x, the mean, Heron's formula for the area."""
    turned = vertices @ np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    turned = turned - turned.mean(axis=0)
    sides = [np.sqrt(((turned[faces[:, i]] - turned[faces[:, j]]) ** 2).sum(axis=1)) for i, j in ((0, 1), (1, 2), (2, 0))]
    half = sum(sides) / 2
    area = np.sqrt(half * (half - sides[0]) * (half - sides[1]) * (half - sides[2])).sum()
    return turned / np.sqrt(area)


def vl(vertices: np.ndarray) -> bytes:
    return np.uint32(len(vertices)).tobytes() + vertices.astype("<f4").tobytes()


def obj(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    lines = ["mtllib face.mtl", *("v {:.6f} {:.6f} {:.6f}".format(*vertex) for vertex in vertices), "vt 0.5 0.5"]
    lines += ["f {}/1 {}/1 {}/1".format(*(face + 1)) for face in faces]
    return ("\n".join(lines) + "\n").encode()


def wav(seconds: float) -> bytes:
    time = np.arange(round(seconds * RATE)) / RATE
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        file.writeframes((6000 * np.sin(2 * np.pi * 180 * time)).astype("<i2").tobytes())
    return buffer.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tgz(members: dict[str, bytes]) -> bytes:
    return gzip.compress(tar(members), compresslevel=1, mtime=0)
