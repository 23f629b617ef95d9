"""A person made by code whose head is painted already, networks below that are small enough for tests, and a torso's."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.shardset import Clip, npy_bytes
from models.checkpoint import write_checkpoint
from models.geneface.config import SAMPLE
from models.geneface.examples import HEAD, HEADS, POSTNET
from models.given import Given
from models.head.network import build as build_head
from tests.models.head import corpus as filmed
from tests.models.head.corpus import made_poses, openings_of, write_set
from tests.models.postnet import corpus as adapted
from tests.models.syncnet.corpus import WIDTH

SIDE = 32  # of the pictures that are painted; the films' are of 48 pixels
CONFIG = replace(
    SAMPLE,
    image_size=SIDE,
    position_octaves=4,
    pose_octaves=4,
    whitening=0.0,
    frames=40,
    frames_per_code=1,
    shaded=True,
    audio_width=WIDTH,
    audio_std=1.0,
    levels=4,
    finest=64,
    log2_rows=12,
    pixels=128,
    learning_rate_decay="none",
    steps=6,
    log_every=1,
    val_every=3,
    frames_per_clip=2,
)
CONFIG_MLP = replace(CONFIG, form="mlp", coarse_samples=4, fine_samples=4, pixels=32, lower_half=0.75)


def made_heads(openings_T, poses_T44, size=SIDE) -> np.ndarray:
    """(T, S, S, 4) uint8: the head as it is filmed, colour times opacity."""
    heads = []
    for opening, pose in zip(openings_T, poses_T44, strict=True):
        rgba = filmed.drawn_head(pose, opening, size)
        rgba[..., :3] *= rgba[..., 3:] / 255
        heads.append(np.rint(rgba).astype(np.uint8))
    return np.stack(heads)


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def made_clip(index: int, length: int) -> Clip:
    """As the stage `heads` leaves it, of a head that is perfect; the sound's rows tell their own index, from 1."""
    openings, poses = openings_of(length, index), made_poses(length, index)
    sound = np.repeat(np.arange(1, 2 * length + 1, dtype=np.float32)[:, None], WIDTH, axis=1) / 10
    members = filmed.members_of(openings, poses)
    return Clip(
        f"person/clip{index:02d}", members | {HEADS: npz(heads=made_heads(openings, poses)), "speech.npy": npy_bytes(sound)}
    )


def write_head(folder: Path, config=filmed.CONFIG) -> Path:
    """An untrained one, which sees something all over."""
    torch.manual_seed(1)
    head = build_head(config)
    with torch.no_grad():
        for grid in (head.position_grid, head.ambient_grid):
            grid.embeddings.uniform_(-1, 1)
        for net in (head.density_net, head.color_net):
            net[-1].weight.mul_(8)
    write_checkpoint(folder, head, config, "# untrained\n")
    return folder


def write_postnet(folder: Path) -> Path:
    generator = adapted.write_generator(folder.parent / "generator")
    config = replace(adapted.CONFIG, frames=30)
    write_checkpoint(folder, adapted.randomised(config), config, "# untrained\n", {"motion": generator})
    return folder


def write_corpus(folder: Path, lengths: list[int]) -> Given:
    """`train`, `val`, `head` and `postnet` in the folder, as the stage `heads` leaves them; the held-out clip is another."""
    write_head(folder / HEAD), write_postnet(folder / POSTNET)
    train = write_set(folder / "train", [made_clip(index, length) for index, length in enumerate(lengths)])
    return Given(train, write_set(folder / "val", [made_clip(9, 4)]))
