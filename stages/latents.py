"""Frames as the trained autoencoder sees them, and as it sees them with what is painted black: once, for all of training.

DiffTalk (arXiv 2301.03786) encodes each frame again for each example: half of the work of a training step, and always the same.
"""

import hashlib
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from data.files import in_place
from data.media.video import decode_frames
from data.shardset import Clip, Column, ShardSet, npy_array, npy_bytes
from models.autoencoder.generate import load
from models.autoencoder.network import Autoencoder
from models.checkpoint import WEIGHTS
from models.difftalk.config import Config
from models.difftalk.examples import AUTOENCODER, LATENTS, MASKED
from models.difftalk.masks import Shape, hidden, masks_of
from models.images import to_unit
from stages.engine import EngineParams, JoinedSource, map_clips
from stages.params import output, section, system_params, work

SYSTEM = "difftalk"
CARRIED = ("landmarks.npy", "mel.npy", "speech.npy", "json")  # members of the shards that training reads beside the latents


@dataclass(frozen=True)
class LatentParams:
    """What makes the latents, beside the clip."""

    autoencoder: str  # folder of its checkpoint
    weights: str  # their sha256
    mask: Shape  # the system's


def find_latents(clip: Clip, params: LatentParams) -> Column:
    """One clip's `latents.npy` and `masked_latents.npy`, `(T, C, h, w)` float32, with the members CARRIED.

    Each frame is encoded by itself: on a CPU a batch changes last bits and saves nothing.
    """
    network = autoencoder(params.autoencoder, params.weights)
    frames_THW3 = decode_frames(clip.members["mp4"])
    masks_THW = masks_of(
        params.mask, frames_THW3.shape[1], npy_array(clip.members["mask.npy"]), npy_array(clip.members["landmarks.npy"])
    )
    carried = {name: clip.members[name] for name in CARRIED if name in clip.members}
    return carried | {
        LATENTS: npy_bytes(encoded(network, frames_THW3)),
        MASKED: npy_bytes(encoded(network, hidden(frames_THW3, masks_THW))),
    }


@torch.inference_mode()
def encoded(network: Autoencoder, frames_THW3: np.ndarray) -> np.ndarray:
    """`(T, C, h, w)` float32 latents of uint8 frames."""
    device = next(network.parameters()).device
    return np.concatenate([network.encode(to_unit(torch.from_numpy(frame[None]).to(device))).cpu() for frame in frames_THW3])


@lru_cache(maxsize=1)
def autoencoder(folder: str, weights: str) -> Autoencoder:
    """The checkpoint's network, once in each process; `weights`, their sha256, is its name in the cache."""
    return load(Path(folder)).to("cuda" if torch.cuda.is_available() else "cpu")


def run(corpus: str) -> None:
    params = system_params(SYSTEM)
    checkpoint = output("checkpoints", AUTOENCODER)
    with (checkpoint / WEIGHTS).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    made_with = LatentParams(str(checkpoint), weights, Config.from_dict(params.preset, params.overrides).mask)
    engine = section("engine", EngineParams)
    with in_place(output("latents", corpus)) as out:
        for split in ("train", "val"):
            source = JoinedSource([ShardSet(output("shards", corpus) / split)])
            map_clips("latents", find_latents, made_with, source, out / split, work("latents", f"{corpus}/{split}"), engine)
        shutil.copytree(checkpoint, out / AUTOENCODER)
