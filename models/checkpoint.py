"""A checkpoint is a folder.

model.safetensors   the weights one generates with (the moving average, where training keeps one)
config.json         every field of the system's Config, a dataclass
card.md             for people: what it was trained on, for how long, how good it is

Beside them may stand the checkpoint of another network that it works on top of, a folder in the folder.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from data.files import atomic_file, in_place
from data.shardset import json_bytes, json_object

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"

T = TypeVar("T")


class BadCheckpoint(Exception):
    """A checkpoint that is incomplete, damaged, or of another network."""


def write_checkpoint(folder: Path, network: nn.Module, config: Any, card: str, below: Mapping[str, Path] | None = None) -> None:
    """Writes the folder whole, replacing an earlier one: a crash leaves the old checkpoint, none, or the new one.

    below: checkpoints of other networks to take in, by the names of their folders here.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with in_place(folder) as making:
        for name, content in ((WEIGHTS, save(weights)), (CONFIG, json_bytes(asdict(config))), (CARD, card.encode())):
            with atomic_file(making / name) as file:
                file.write(content)
        for name, other in (below or {}).items():
            shutil.copytree(other, making / name)


def read_config(folder: Path, config_type: type[T]) -> T:
    """The configuration in config.json. Raises BadCheckpoint if it is none of `config_type`."""
    try:
        return config_type(**json_object(_read(folder / CONFIG)))
    except (ValueError, TypeError) as error:  # TypeError for a field too many or too few
        raise BadCheckpoint(f"{folder / CONFIG} is not a configuration of {config_type.__module__}: {error}") from error


def read_weights(folder: Path, network: nn.Module) -> None:
    """Loads the weights into `network`. Raises BadCheckpoint, naming the first tensor that does not fit."""
    path = folder / WEIGHTS
    try:
        weights = load(_read(path))
    except SafetensorError as error:
        raise BadCheckpoint(f"{path} is damaged: {error}") from error
    expected = network.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise BadCheckpoint(f"{path} lacks the tensor {name} of {type(network).__name__}")
        if name not in expected:
            raise BadCheckpoint(f"{path} has the tensor {name}, which {type(network).__name__} does not")
        if weights[name].shape != expected[name].shape:
            shapes = f"{tuple(weights[name].shape)}, not {tuple(expected[name].shape)}"
            raise BadCheckpoint(f"{path}: the tensor {name} has the shape {shapes}")
    network.load_state_dict(weights)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path} does not exist: train the system, or fetch the whole checkpoint") from error
