"""A tiny corpus, the autoencoder that made its latents, and a network small enough for tests."""

from dataclasses import replace

import numpy as np
import torch

from data.media.video import encode_frames
from data.shardset import Clip, Index, ShardSet, json_bytes, npy_bytes, write_index, write_shard
from models.autoencoder.config import SAMPLE as AUTOENCODER_SAMPLE
from models.autoencoder.network import Autoencoder
from models.checkpoint import write_checkpoint
from models.difftalk.config import SAMPLE
from models.difftalk.examples import AUTOENCODER
from stages.latents import LatentParams, find_latents

BELOW = replace(AUTOENCODER_SAMPLE, patch=4, channels=(32,), codes=32, crop=32)
CONFIG = replace(
    SAMPLE,
    image_size=32,
    latent_size=8,
    patch=1,
    channels=(32, 32),
    attention_levels=(1,),
    audio_width=6,
    landmark_mean=16.0,
    landmark_std=8.0,
    batch_size=4,
    buffer_clips=4,
    frames_per_clip=3,
    reference_distance=2,
    learning_rate_decay="none",
)
BOX = np.array([8, 16, 24, 32], np.int16)


def made_clip(index, length):
    """A clip of the shards: frame t of clip i has the grey 70 i + 5 t, and hears rows of 2t and 2t + 1."""
    greys = 70 * index + 5 * np.arange(length)
    frames = np.broadcast_to(greys.astype(np.uint8)[:, None, None, None], (length, 32, 32, 3))
    random = np.random.default_rng(index)
    return Clip(
        f"speaker/clip{index:02d}",
        {
            "mp4": encode_frames(frames, fps=25, crf=0),
            "mask.npy": npy_bytes(np.tile(BOX, (length, 1))),
            "landmarks.npy": npy_bytes(random.uniform(4, 28, (length, 478, 3)).astype(np.float32)),
            "speech.npy": npy_bytes(np.repeat(np.arange(2 * length, dtype=np.float16)[:, None], 6, axis=1)),
            "json": json_bytes({"frames": length, "fps": 25, "size": 32}),
        },
    )


def write_set(folder, clips):
    folder.mkdir(parents=True)
    write_index(folder, Index.of([write_shard(folder / "00000.tar", clips)], {}))
    return folder


def write_autoencoder(folder, seed=0):
    torch.manual_seed(seed)
    write_checkpoint(folder, Autoencoder(BELOW), BELOW, "# untrained\n")
    return folder


def encoded(clips, autoencoder):
    """What the stage `latents` makes of them."""
    params = LatentParams(str(autoencoder), "of a test", CONFIG.mask)
    return [Clip(clip.key, find_latents(clip, params)) for clip in clips]


def write_corpus(folder, lengths):
    """`train`, `val` and `autoencoder` in the folder, as the stage leaves them; both sets are the same."""
    autoencoder = write_autoencoder(folder / AUTOENCODER)
    clips = encoded([made_clip(index, length) for index, length in enumerate(lengths)], autoencoder)
    return write_set(folder / "train", clips), write_set(folder / "val", clips)


def clips_of(folder):
    return list(ShardSet(folder).clips())
