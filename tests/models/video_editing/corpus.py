"""A tiny corpus of noise, and a network small enough for tests."""

from dataclasses import replace

import numpy as np

from data.media.video import encode_frames
from data.shardset import Clip, Index, npy_bytes, write_index, write_shard
from models.video_editing.config import SAMPLE
from models.video_editing.examples import DecodedClip, audio_windows

CONFIG = replace(
    SAMPLE,
    image_size=32,
    patch=2,
    channels=(32, 32),
    attention_levels=(),
    res_blocks=1,
    batch_size=4,
    buffer_clips=4,
    frames_per_clip=3,
    from_identity=False,
    learning_rate_decay="none",
    precision="32-true",
    identity="first",
    previous_dropout=0.0,
    mirror=0.0,
)


def decoded_clip(length, seed=0):
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (length, 32, 32, 3), np.uint8)
    x0, y0 = random.integers(0, 12, (2, length))
    boxes = np.stack([x0, y0, x0 + 12, y0 + 16], axis=1).astype(np.int16)
    mel = random.uniform(-80, 0, (2 * length, 256)).astype(np.float32)
    return DecodedClip(f"speaker/{seed}", frames, boxes, audio_windows(mel))


def write_corpus(folder, lengths, clips_per_shard=2):
    """Clip i has frames of one grey, 10 i, so that a frame says what clip it is of."""
    folder.mkdir(parents=True)
    clips = []
    for index, length in enumerate(lengths):
        frames = np.full((length, 32, 32, 3), 10 * index, np.uint8)
        members = {
            "mp4": encode_frames(frames, fps=25, crf=0),
            "mask.npy": npy_bytes(np.tile(np.array([8, 16, 24, 32], np.int16), (length, 1))),
            "mel.npy": npy_bytes(np.repeat(np.arange(length, dtype=np.float32) - 80, 2)[:, None].repeat(256, axis=1)),
        }
        clips.append(Clip(f"speaker/clip{index:02d}", members))
    chunks = [clips[start : start + clips_per_shard] for start in range(0, len(clips), clips_per_shard)]
    shards = [write_shard(folder / f"{number:05d}.tar", chunk) for number, chunk in enumerate(chunks)]
    write_index(folder, Index.of(shards, {}))
    return folder
