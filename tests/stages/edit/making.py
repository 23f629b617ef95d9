"""A folder from which the editor can be run: the committed parameters, and a network that has learnt nothing; another painter."""

import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from models.checkpoint import write_checkpoint
from models.painting import Unpainted
from models.video_editing.config import Config
from models.video_editing.network import VideoEditingUNet
from tests.project import ROOT, change_params

TINY = {"channels": [32, 32], "attention_levels": [], "from_identity": False}
SAMPLING = {"sampler": "ddim", "steps": 1, "against": [], "against_clips": 1, "batch_size": 1, "seed": 0}


def workplace(folder: Path, **overrides: Any) -> Path:
    """overrides: of the network's preset."""
    shutil.copy(ROOT / "params.yaml", folder)
    change_params(folder, evaluate={"video_editing": SAMPLING})
    write_network(folder, **overrides)
    return folder


def write_network(folder: Path, **overrides: Any) -> None:
    """Into the checkpoint of `folder`."""
    config = Config.from_dict("sample", TINY | overrides)
    torch.manual_seed(0)
    network = VideoEditingUNet(config)
    for weights in network.parameters():
        if not weights.any():  # as it is at first, and no noise would matter
            torch.nn.init.normal_(weights, std=0.02)
    write_checkpoint(folder / "data/checkpoints/video_editing", network, config, "# untrained\n")


class Mirror:
    """A painter without a network: half the mirror image of what surrounds the box, half the face before, at the sound's level.

    It reads a batch before it paints a frame.
    """

    size, audio, speech_encoder = 128, "mel", ""

    def __init__(self, checkpoint: Path, sampler: str, steps: int, batch_size: int, seed: int) -> None:
        self._batch_size = batch_size

    def windows(self, rows_SD: np.ndarray) -> np.ndarray:
        return rows_SD.reshape(len(rows_SD) // 2, 2, -1)

    def paint(self, frames: Iterable[Unpainted], before: np.ndarray | None) -> Iterator[np.ndarray]:
        frames = iter(frames)
        while batch := list(islice(frames, self._batch_size)):
            for one in batch:
                x0, y0, x1, y1 = one.box
                above = one.real[np.arange(y0 - 1, 2 * y0 - y1 - 1, -1).clip(0), x0:x1]
                mixed = above / 2 + (one.identity if before is None else before)[y0:y1, x0:x1] / 2
                before = one.real.copy()
                before[y0:y1, x0:x1] = (mixed + one.heard.mean() / 4).clip(0, 255)
                yield before


def shown(path: Path) -> np.ndarray:
    """`(T, H, W, 3)` every frame of a film."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


def heard(path: Path) -> tuple[np.ndarray, int]:
    """`(channels, samples)` of a film's sound, and its rate."""
    with av.open(str(path)) as film:
        blocks = [frame.to_ndarray() for frame in film.decode(audio=0)]
        return np.concatenate(blocks, axis=1), film.streams.audio[0].rate
