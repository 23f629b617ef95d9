"""A folder from which the editor can be run: the committed parameters, and a network that has learnt nothing."""

import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from models.checkpoint import write_checkpoint
from models.video_editing.config import Config
from models.video_editing.network import VideoEditingUNet
from tests.project import ROOT, change_params

TINY = {"channels": [32, 32], "attention_levels": [], "from_identity": False}


def workplace(folder: Path, **overrides: Any) -> Path:
    """overrides: of the network's preset."""
    shutil.copy(ROOT / "params.yaml", folder)
    sampling = {"sampler": "ddim", "steps": 1, "against": [], "batch_size": 1, "seed": 0}
    change_params(folder, evaluate={"video_editing": sampling})
    config = Config.from_dict("sample", TINY | overrides)
    torch.manual_seed(0)
    network = VideoEditingUNet(config)
    for weights in network.parameters():
        if not weights.any():  # as it is at first, and no noise would matter
            torch.nn.init.normal_(weights, std=0.02)
    write_checkpoint(folder / "data/checkpoints/video_editing", network, config, "# untrained\n")
    return folder


def shown(path: Path) -> np.ndarray:
    """`(T, H, W, 3)` every frame of a film."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


def heard(path: Path) -> tuple[np.ndarray, int]:
    """`(channels, samples)` of a film's sound, and its rate."""
    with av.open(str(path)) as film:
        blocks = [frame.to_ndarray() for frame in film.decode(audio=0)]
        return np.concatenate(blocks, axis=1), film.streams.audio[0].rate
