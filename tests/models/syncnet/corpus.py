"""Clips made by code, whose mouth does what their sound says, and a network small enough for tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.mesh import LANDMARKS_68, POINTS
from data.shardset import Clip, Index, npy_bytes, write_index, write_shard
from models.landmarks import MOUTH, VALUES, Utterance, points_of
from models.syncnet.config import SAMPLE, Config
from models.syncnet.network import SyncNet

WIDTH = 12
CONFIG = replace(
    SAMPLE,
    channels=(16, 24, 24),
    mouth_channels=12,
    res_blocks=1,
    audio_width=WIDTH,
    audio_std=1.0,
    audio_noise=0.0,
    mouth_offset=0.0,
    batch_size=64,
    learning_rate=3e-3,
    steps=8,
    log_every=1,
    val_every=4,
    buffer_clips=8,
    pairs_per_clip=32,
)


def randomised(config: Config, seed: int = 0) -> SyncNet:
    """A network whose every weight matters, none being zero or one, and with moments of its own in its norms."""
    torch.manual_seed(seed)
    network = SyncNet(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.2, 1)
    return network.eval()


def spoken(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound (2T, WIDTH) and motion (T, 204) that follow the same four smooth signals."""
    random = np.random.default_rng(seed)
    noise, bell = random.normal(size=(2 * frames + 8, 4)), np.hanning(9)
    signals_S4 = np.stack([np.convolve(one, bell / np.linalg.norm(bell), "valid")[: 2 * frames] for one in noise.T], axis=1)
    mixing = np.random.default_rng(0)
    speech_SD = signals_S4 @ mixing.normal(size=(4, WIDTH)) + random.normal(0, 0.1, (2 * frames, WIDTH))
    motion_TX = np.tile(mixing.normal(0, 0.3, VALUES), (frames, 1))
    motion_TX[:, MOUTH] += signals_S4.reshape(frames, 2, 4).mean(1) @ mixing.normal(0, 0.1, (4, 60))
    return speech_SD.astype(np.float32), motion_TX.astype(np.float32)


def made_clip(key: str, frames: int, seed: int) -> Clip:
    speech_SD, motion_TX = spoken(frames, seed)
    vertices_TP3 = np.random.default_rng(seed).normal(0, 0.05, (frames, POINTS, 3)).astype(np.float32)
    vertices_TP3[:, LANDMARKS_68] = points_of(motion_TX)
    return Clip(key, {"vertices.npy": npy_bytes(vertices_TP3), "speech.npy": npy_bytes(speech_SD)})


def counting(key: str, frames: int, number: int) -> Utterance:
    """Whose rows tell their own index and this number, and whose mouths tell the index of their frame."""
    speech_SD = np.stack([np.arange(2 * frames), np.full(2 * frames, number)], axis=1)
    motion_TX = np.tile(np.arange(frames)[:, None], VALUES)
    return Utterance(key, speech_SD.astype(np.float32), motion_TX.astype(np.float32))


def write_corpus(folder: Path, lengths: list[int], first_seed: int = 0) -> Path:
    """Clips of these lengths, two in a shard."""
    folder.mkdir(parents=True)
    clips = [made_clip(f"anna/clip{index:02d}", frames, first_seed + index) for index, frames in enumerate(lengths)]
    pairs = [clips[start : start + 2] for start in range(0, len(clips), 2)]
    write_index(folder, Index.of([write_shard(folder / f"{index:05d}.tar", some) for index, some in enumerate(pairs)], {}))
    return folder
