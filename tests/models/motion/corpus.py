"""Clips made by code, in which a mouth opens as the sound is loud, and networks small enough for tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.mesh import LANDMARKS_68, POINTS
from data.shardset import Clip, Index, npy_bytes, write_index, write_shard
from models.checkpoint import write_checkpoint
from models.given import Given
from models.landmarks import MOUTH, VALUES, points_of
from models.motion.config import LRS3, SYNCNET, Config
from models.motion.network import MotionVAE
from models.syncnet.config import SAMPLE as EXPERT_SAMPLE
from models.syncnet.network import SyncNet

WIDTH = 6  # D

CONFIG = replace(
    LRS3,
    audio_width=WIDTH,
    speech_encoder="of a test",
    condition_channels=8,
    latent_channels=4,
    channels=16,
    encoder_layers=2,
    decoder_layers=2,
    flow_channels=8,
    flow_layers=2,
    kl_weight=1e-3,
    sync_clips=16,
    batch_size=2,
    learning_rate=1e-3,
    learning_rate_decay="none",
    steps=20,
    crop_frames=0,
    seed=0,
    log_every=1,
    val_every=5,
    buffer_clips=8,
    loader_workers=0,
)
EXPERT = replace(
    EXPERT_SAMPLE,
    channels=(8, 8, 8),
    mouth_channels=8,
    res_blocks=1,
    audio_width=WIDTH,
    audio_std=1.0,
    speech_encoder="of a test",
)


def randomised(config: Config, seed: int = 0) -> MotionVAE:
    """A network whose every weight matters, none being zero; ready to generate."""
    torch.manual_seed(seed)
    network = MotionVAE(config)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("running_var"):
            torch.nn.init.normal_(tensor, std=0.5 if tensor.ndim == 1 else 0.7 / tensor[0].numel() ** 0.5)
    return network.eval()


def spoken(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (2T, D) float32 of a sound, and the motion (T, X) float32, cm, of a mouth that opens as it is loud."""
    random = np.random.default_rng(seed)
    window = np.hanning(9) / np.hanning(9).sum()
    loudness_T = 4 * (np.convolve(random.uniform(size=frames + 8), window, "valid")[:frames] - 0.5)
    rows_SD = np.repeat(loudness_T, 2)[:, None] * np.linspace(-1, 1, WIDTH)
    motion_TX = np.tile(np.random.default_rng(0).normal(scale=0.3, size=VALUES), (frames, 1))
    motion_TX[:, MOUTH] += loudness_T[:, None] * np.random.default_rng(1).normal(scale=0.3, size=MOUTH.stop - MOUTH.start)
    return rows_SD.astype(np.float32), motion_TX.astype(np.float32)


def clip(key: str, frames: int, seed: int) -> Clip:
    rows_SD, motion_TX = spoken(frames, seed)
    vertices_TP3 = np.zeros((frames, POINTS, 3), np.float32)
    vertices_TP3[:, LANDMARKS_68] = points_of(motion_TX)
    return Clip(key, {"speech.npy": npy_bytes(rows_SD), "vertices.npy": npy_bytes(vertices_TP3)})


def write_corpus(folder: Path, lengths: list[int], clips_per_shard: int = 2) -> Path:
    """Clips of these lengths."""
    folder.mkdir(parents=True)
    clips = [clip(f"anna/clip{index:02d}", length, index) for index, length in enumerate(lengths)]
    chunks = [clips[start : start + clips_per_shard] for start in range(0, len(clips), clips_per_shard)]
    shards = [write_shard(folder / f"{number:05d}.tar", chunk) for number, chunk in enumerate(chunks)]
    write_index(folder, Index.of(shards, {}))
    return folder


def write_expert(folder: Path) -> Path:
    torch.manual_seed(0)
    write_checkpoint(folder, SyncNet(EXPERT), EXPERT, "# untrained\n")
    return folder


def given(folder: Path, train: list[int], val: list[int]) -> Given:
    """Two shard sets of clips of these lengths, and an expert."""
    expert = write_expert(folder / SYNCNET)
    return Given(write_corpus(folder / "train", train), write_corpus(folder / "val", val), {SYNCNET: expert})
