"""A tiny corpus of smooth frames, and a network small enough for tests."""

from dataclasses import replace

import numpy as np

from data.media.video import encode_frames
from data.shardset import Clip, Index, write_index, write_shard
from models.autoencoder.config import SAMPLE

CONFIG = replace(
    SAMPLE,
    patch=2,
    channels=(32, 32),
    codes=16,
    codebook_start=0,
    crop=16,
    batch_size=4,
    learning_rate_decay="none",
    gradient_clip=0.0,
    steps=4,
    log_every=1,
    val_every=2,
    buffer_clips=4,
    frames_per_clip=3,
)


def made_frames(length, size=24, seed=0):
    """(T, size, size, 3) uint8: a slope in each channel, which turns from frame to frame."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angles = random.uniform(0, 2 * np.pi, 3) + 0.3 * np.arange(length)[:, None]
    slopes = np.cos(angles)[:, None, None] * x[..., None] + np.sin(angles)[:, None, None] * y[..., None]
    return (128 + 80 * slopes + random.uniform(-30, 30, 3)).clip(0, 255).astype(np.uint8)


def write_corpus(folder, lengths, size=24, clips_per_shard=2):
    folder.mkdir(parents=True)
    clips = [
        Clip(f"speaker/clip{index:02d}", {"mp4": encode_frames(made_frames(length, size, index), fps=25, crf=0)})
        for index, length in enumerate(lengths)
    ]
    chunks = [clips[start : start + clips_per_shard] for start in range(0, len(clips), clips_per_shard)]
    shards = [write_shard(folder / f"{number:05d}.tar", chunk) for number, chunk in enumerate(chunks)]
    write_index(folder, Index.of(shards, {}))
    return folder
