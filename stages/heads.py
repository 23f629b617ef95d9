"""Every training frame's head, as the trained radiance field paints it: once, for all of the torso's training.

The torso is trained about a head that no longer changes (GeneFace, arXiv 2301.13430), and may see it.
"""

import hashlib
import io
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from data.files import in_place
from data.npz import npz_writer
from data.shardset import Clip, Column, ShardSet, json_object, npy_array
from models.checkpoint import WEIGHTS
from models.geneface.examples import HEAD, HEADS, POSTNET
from models.head.examples import camera_of
from models.head.generate import load, painted
from models.head.network import Head
from models.hearing import check_members
from models.landmarks import motion_of
from stages.engine import EngineParams, JoinedSource, map_clips
from stages.params import output, section, work

CARRIED = ("mp4", "landmarks.npy", "vertices.npy", "pose.npy", "camera.json", "background.png", "parsing.npz", "torso.npz")
HEARD = ("mel.npy", "speech.npy")  # whichever there is


@dataclass(frozen=True)
class HeadsParams:
    """What makes the heads, beside the clip."""

    head: str  # folder of its checkpoint
    weights: str  # their sha256


def paint_heads(clip: Clip, params: HeadsParams) -> Column:
    """One clip's `heads.npz`, whose `heads` are (T, S, S, 4) uint8, colour times opacity and opacity, with what training reads.

    Each is painted with the film's own landmarks and pose. ValueError, naming the clip, if it lacks a member.
    """
    check_members(clip, (*CARRIED, "json"))
    head = trained(params.head, params.weights)
    motion_TX, pose_T44 = motion_of(npy_array(clip.members["vertices.npy"])), npy_array(clip.members["pose.npy"])
    size = head.config.image_size
    camera = camera_of(clip, size / json_object(clip.members["json"])["size"])
    nothing = np.zeros((size, size, 3), np.uint8)
    heads = io.BytesIO()
    with npz_writer(heads, "heads", (len(motion_TX), size, size, 4)) as add:
        for picture in painted(head, motion_TX, pose_T44, camera, [nothing] * len(motion_TX)):
            rgba_SS4 = torch.cat([picture.color, picture.opacity[..., None]], dim=-1)
            add((255 * rgba_SS4).round().clamp(0, 255).to(torch.uint8).cpu().numpy())
    carried = {name: clip.members[name] for name in (*CARRIED, *HEARD, "json") if name in clip.members}
    return carried | {HEADS: heads.getvalue()}


@lru_cache(maxsize=1)
def trained(folder: str, weights: str) -> Head:
    """The checkpoint's head, once in each process; `weights`, their sha256, is its name in the cache."""
    return load(Path(folder)).to("cuda" if torch.cuda.is_available() else "cpu")


def run(corpus: str) -> None:
    checkpoint = output("checkpoints", HEAD)
    with (checkpoint / WEIGHTS).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    engine = section("engine", EngineParams)
    with in_place(output("heads", corpus)) as out:
        for split in ("train", "val"):
            source = JoinedSource([ShardSet(output("shards", corpus) / split)])
            made_with = HeadsParams(str(checkpoint), weights)
            map_clips("heads", paint_heads, made_with, source, out / split, work("heads", f"{corpus}/{split}"), engine)
        for name in (HEAD, POSTNET):
            shutil.copytree(output("checkpoints", name), out / name)
