"""`python -m models.autoencoder.official FILE PRESET FOLDER`: the authors' first stage into a checkpoint of ours.

    FILE     model.ckpt, as DiffTalk's authors give it, or LDM's of vq-f4: the layout is the same     PRESET   paper_256
    FOLDER   of the checkpoint to write

Of its tensors all are taken but those of the loss that it was trained with.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.autoencoder.config import Config
from models.autoencoder.network import Autoencoder
from models.checkpoint import write_checkpoint
from models.released import NotTheRelease, check_tensors, read_released

LOSS = "loss."  # perceptual and adversarial networks

# Our names to the release's, one after another. What matches nothing has the same name in both.
NAMES = (
    (r"down_blocks\.(\d+)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets", r"up.\1.block"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


class Callback:
    """Stands for a class of Lightning's, which is the key to its callback's state in the files of version 1.2."""


CALLBACKS: list[Any] = [(Callback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]


def read_state(file: Path) -> dict[str, Tensor]:
    """The `state_dict` of a Lightning checkpoint. Raises NotTheRelease."""
    with torch.serialization.safe_globals(CALLBACKS):
        found = read_released(file)
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise NotTheRelease(f"{file} holds no dictionary of tensors under `state_dict`: take the checkpoint as it was released")
    return state


def release_name(name: str, levels: int) -> str:
    """What the release calls one of the tensors of our VQModel."""
    # The release numbers levels by their resolution on the way up too.
    name = re.sub(r"up_blocks\.(\d+)", lambda block: f"up_blocks.{levels - 1 - int(block[1])}", name)
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def release_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the release's tensor, of the name and shape of ours: its attention projects with convolutions of 1 x 1."""
    return (*shape, 1, 1) if ".to_" in name and name.endswith(".weight") else shape


def layout(network: Autoencoder) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all of the release's tensors."""
    levels = len(network.config.channels)
    ours = network.vq.state_dict()
    return {release_name(name, levels): release_shape(name, tuple(tensor.shape)) for name, tensor in ours.items()}


def take(network: Autoencoder, released: Mapping[str, Tensor]) -> None:
    """Loads the release's tensors, which have the names and shapes of `layout`."""
    levels = len(network.config.channels)
    network.vq.load_state_dict(
        {name: released[release_name(name, levels)].reshape(ours.shape) for name, ours in network.vq.state_dict().items()}
    )


def read_official(file: Path, config: Config) -> Autoencoder:
    """The network with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    network = Autoencoder(config)
    released = {name: tensor for name, tensor in read_state(file).items() if not name.startswith(LOSS)}
    check_tensors(file, layout(network), released)
    take(network, released)
    return network.eval()


def card(file: Path) -> str:
    return (
        f"# autoencoder\n\nThe authors' released weights, converted from {file.name}.\n\n"
        "Use it under the terms of that release.\n"
    )


def convert(file: Path, config: Config, folder: Path) -> None:
    """Writes the file's network as a checkpoint folder. Raises NotTheRelease."""
    write_checkpoint(folder, read_official(file, config), config, card(file))


if __name__ == "__main__":
    source, preset, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {}), Path(target))
