"""`python -m models.syncnet.official FILE PRESET FOLDER`: the authors' sync expert into one of ours.

FILE     model_ckpt_steps_<N>.ckpt of their training of it     PRESET   lrs3     FOLDER   of the checkpoint to write
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import write_checkpoint
from models.released import check_tensors, read_model
from models.syncnet.config import Config
from models.syncnet.network import SyncNet

# Our names to the release's, each rule on what the one before it left.
NAMES = (
    (r"^hearing\.", "hubert_encoder."),
    (r"^seeing\.", "mouth_encoder."),
    (r"\.convolution\.", ".conv_block.0."),
    (r"\.norm\.", ".conv_block.1."),
)


def release_name(name: str) -> str:
    """What the release calls one of our tensors."""
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def read_official(file: Path, config: Config) -> SyncNet:
    """The network with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    return with_weights(file, config, read_model(file))


def with_weights(file: Path, config: Config, found: Mapping[str, Tensor]) -> SyncNet:
    """The network with these weights of the file, by the release's names. Raises NotTheRelease, with all differences."""
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in SyncNet(config).state_dict().items()}
    check_tensors(file, {release_name(name): shape for name, shape in ours.items()}, found)
    network = SyncNet(config)
    network.load_state_dict({name: found[release_name(name)] for name in ours})
    return network.eval()


def convert(file: Path, config: Config, folder: Path) -> None:
    """Writes the file's network as a checkpoint folder. Raises NotTheRelease."""
    card = (
        f"# syncnet\n\nA checkpoint of the authors' training, converted from {file.name}.\n\n"
        "It hears HuBERT-large, and sees the landmarks of a morphable model (BFM), not MediaPipe's: it says nothing of the\n"
        "motion that this laboratory's stages make. Use it under the terms of that release.\n"
    )
    write_checkpoint(folder, read_official(file, config), config, card)


if __name__ == "__main__":
    source, preset, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {}), Path(target))
