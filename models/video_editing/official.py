"""`python -m models.video_editing.official FILE PRESET FOLDER`: the authors' checkpoint into one of ours.

    FILE     735_Network.pth, or 735_Network_ema.pth, the averaged copy     PRESET   multi_speaker
    FOLDER   of the checkpoint to write

The release samples with the first of the two. Of its tensors all are taken but six tables that follow from the schedule. The
single-speaker weights were announced and never published; a file in their layout converts with the preset single_speaker.
"""

import re
import sys
from pathlib import Path

from torch import Tensor

from models.checkpoint import write_checkpoint
from models.released import NotTheRelease, check_tensors, read_released, unet_blocks
from models.video_editing.config import Config
from models.video_editing.network import VideoEditingUNet

PREFIX = "denoise_fn."
DERIVED = {  # tables of the noise schedule, at the top level of the file
    "gammas",
    "sqrt_recip_gammas",
    "sqrt_recipm1_gammas",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
}

# Within a residual block or an attention, our names to the release's. What has no other name has the same in both.
NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj.noise_level": "emb_layers.1",
    "time_emb_proj.audio": "audio_emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
    "group_norm": "norm",
    "to_out.0": "proj_out",
}
PROJECTION = re.compile(r"\.to_([qkv])\.")  # one tensor in the release


def block_names(config: Config) -> dict[str, str]:
    """Our name of each block, and the release's, which numbers them from the image to the middle and from there back."""
    blocks = unet_blocks(len(config.channels), config.res_blocks, config.attention_levels)
    return {
        "unet.time_embedding.0.linear_1": "cond_embed.0",
        "unet.time_embedding.0.linear_2": "cond_embed.2",
        "audio_embedding.linear_1": "audio_cond_embed.0",
        "audio_embedding.linear_2": "audio_cond_embed.2",
    } | {f"unet.{ours}": theirs for ours, theirs in blocks.items()}


def release_name(name: str, blocks: dict[str, str]) -> str:
    """What the release calls one of our tensors, or the one that ours is a part of."""
    block = next(block for block in blocks if name.startswith(f"{block}."))
    inner, _, kind = name.removeprefix(f"{block}.").rpartition(".")
    inner = "qkv" if PROJECTION.search(name) else NAMES.get(inner, inner)
    return PREFIX + ".".join(part for part in (blocks[block], inner, kind) if part)


def release_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the release's tensor, of the shape of ours: its attention projects with convolutions of width 1."""
    if PROJECTION.search(name):
        shape = (3 * shape[0], *shape[1:])
    return (*shape, 1) if ".to_" in name and name.endswith(".weight") else shape


def our_tensor(name: str, released: Tensor, head_channels: int) -> Tensor:
    """Our tensor from the release's. There each head in turn has its query rows, its key rows and its value rows."""
    if part := PROJECTION.search(name):
        heads = len(released) // (3 * head_channels)
        released = released.unflatten(0, (heads, 3, head_channels))[:, "qkv".index(part[1])].flatten(0, 1)
    return released.float().reshape(released.shape[:2] if ".to_" in name else released.shape)


def read_official(file: Path, config: Config) -> VideoEditingUNet:
    """The network with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    found = read_released(file)
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise NotTheRelease(f"{file} is no dictionary of tensors: of the release's files, take <epoch>_Network.pth")
    network = VideoEditingUNet(config)
    names, ours = block_names(config), network.state_dict()
    expected = {release_name(name, names): release_shape(name, tuple(tensor.shape)) for name, tensor in ours.items()}
    weights = {name: tensor for name, tensor in found.items() if name not in DERIVED}
    check_tensors(file, expected, weights)
    network.load_state_dict({name: our_tensor(name, weights[release_name(name, names)], config.head_channels) for name in ours})
    return network.eval()


def convert(file: Path, config: Config, folder: Path) -> None:
    """Writes the file's network as a checkpoint folder. Raises NotTheRelease."""
    card = (
        f"# video_editing\n\nThe authors' released weights, converted from {file.name}.\n\n"
        "The release samples with `ddpm`, 100 steps.\n\n"
        "Use it under the terms of that release. The faces it generates are those of the people it was trained on: use it only\n"
        "as they would agree to.\n"
    )
    write_checkpoint(folder, read_official(file, config), config, card)


if __name__ == "__main__":
    source, preset, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {}), Path(target))
