"""Clips made by code, in which a mouth opens as the sound is loud, and networks small enough for tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.media.audio import wav_bytes
from data.shardset import Clip, Index, json_bytes, npy_bytes, write_index, write_shard
from models.diffspeaker.config import VOCASET, Config
from models.diffspeaker.network import DiffSpeaker

RATE = 16_000
VERTICES, BANDS = 10, 16

SMALL = replace(
    VOCASET,
    vertices=VERTICES,
    fps=25,
    speakers=("anna", "ben"),
    audio="mel",
    audio_width=BANDS,
    audio_mean=-40.0,
    audio_std=20.0,
    channels=32,
    feedforward=64,
    period=5,
    smoothing=False,
    batch_size=2,
    learning_rate=1e-3,
    steps=60,
    log_every=1,
    val_every=5,
    buffer_clips=8,
    loader_workers=0,
)


def randomised(config: Config, seed: int = 0) -> DiffSpeaker:
    """A network whose every weight matters, none being zero or one; ready to generate."""
    torch.manual_seed(seed)
    network = DiffSpeaker(config)
    for name, parameter in network.denoiser.named_parameters():
        is_norm = "norm" in name and name.endswith("weight")
        std = 0.3 if parameter.ndim == 1 else 0.7 / parameter[0].numel() ** 0.5
        torch.nn.init.normal_(parameter, mean=float(is_norm), std=std)
    return network.eval()


def spoken(frames: int, seed: int, fps: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Loudness (T,) in 0 to 1, smooth, and sound at 16 kHz that is so loud."""
    random = np.random.default_rng(seed)
    loudness = np.convolve(random.uniform(size=frames + 8), np.hanning(9) / np.hanning(9).sum(), "valid")[:frames]
    loudness = (loudness - loudness.min()) / max(np.ptp(loudness), 1e-6)
    samples = np.interp(np.arange(frames * RATE // fps) / RATE * fps, np.arange(frames), loudness)
    return loudness, (0.3 * samples * np.sin(np.arange(len(samples)) * 0.1)).astype(np.float32)


def motion_of(loudness: np.ndarray) -> np.ndarray:
    """(T, V, 3) float32 metres: each vertex along a direction of its own, up to some millimetres."""
    basis = np.random.default_rng(0).normal(scale=4e-3, size=(VERTICES, 3))
    return (loudness[:, None, None] * basis).astype(np.float32)


def clip(key: str, frames: int, seed: int, fps: int = 25, size: float = 1.0) -> Clip:
    """With all three sorts of audio; its motion is `size` times that of a face."""
    loudness, sound = spoken(frames, seed, fps)
    rows = np.interp(np.linspace(0, frames - 1, round(50 * frames / fps)), np.arange(frames), loudness)
    mel = -80 + 60 * rows[:, None] + np.linspace(0, 10, BANDS)
    template = np.random.default_rng(seed + 1).normal(scale=0.1, size=(VERTICES, 3)).astype(np.float32)
    members = {
        "json": json_bytes({"fps": fps, "frames": frames}),
        "wav": wav_bytes(sound, RATE),
        "mel.npy": npy_bytes(mel.astype(np.float32)),
        "speech.npy": npy_bytes(mel.astype(np.float16) / 40),
        "vertices.npy": npy_bytes(template + size * motion_of(loudness)),
        "template.npy": npy_bytes(template),
    }
    return Clip(key, members)


def write_corpus(
    folder: Path,
    lengths: list[int],
    clips_per_shard: int = 2,
    speakers: tuple[str, ...] = ("anna", "ben"),
    size: float = 1.0,
) -> Path:
    """Clips of these lengths, of the speakers in turn."""
    folder.mkdir(parents=True)
    clips = sorted(
        (clip(f"{speakers[i % len(speakers)]}/clip{i:02d}", length, i, size=size) for i, length in enumerate(lengths)),
        key=lambda made: made.key,
    )
    chunks = [clips[start : start + clips_per_shard] for start in range(0, len(clips), clips_per_shard)]
    shards = [write_shard(folder / f"{number:05d}.tar", chunk) for number, chunk in enumerate(chunks)]
    write_index(folder, Index.of(shards, {}))
    return folder
