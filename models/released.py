"""The authors' checkpoints: files from outside, read without running what may be in them, and with no tensor unaccounted for."""

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class NotTheRelease(Exception):
    """A file that is not the release's checkpoint of this configuration."""


def read_released(file: Path) -> Any:
    """What torch.save wrote, if it is tensors in plain containers. Raises NotTheRelease."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:  # the last of a zip that is cut off
        raise NotTheRelease(
            f"{file} is damaged, or holds Python objects that could run code when read ({str(error).splitlines()[0]}): if you "
            "trust it, save its state dict alone, as the file has it, and convert that"
        ) from error


def read_tasks(file: Path) -> dict[str, Tensor]:
    """A file of GeneFace's trainings: its tensors by their whole names, such as `model.…` and `syncnet_task.model.…`.

    Raises NotTheRelease. That release writes a dictionary of dictionaries, one for each network, and reads flat ones too: so does
    this.
    """
    content = read_released(file)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise NotTheRelease(f"{file} has no state_dict: the checkpoints of the release's trainings have one")
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        flat |= {f"{name}.{inner}": tensor for inner, tensor in value.items()} if isinstance(value, dict) else {name: value}
    if odd := [name for name, value in flat.items() if not isinstance(name, str) or not isinstance(value, Tensor)]:
        raise NotTheRelease(f"{file} has {', '.join(map(str, odd[:3]))} where tensors should be: it is of another training")
    return flat


def read_model(file: Path) -> dict[str, Tensor]:
    """Likewise, of the one network `model` alone, by its tensors' names in it. Raises NotTheRelease."""
    content = read_released(file)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise NotTheRelease(f"{file} has no state_dict: the checkpoints of the release's trainings have one")
    found = state.get("model")
    if not isinstance(found, dict):  # not a dictionary for each network, but all in one
        found = {str(name).removeprefix("model."): value for name, value in state.items()}
    if odd := [str(name) for name, value in found.items() if not isinstance(value, Tensor)]:
        raise NotTheRelease(f"{file} has {', '.join(odd[:3])} where tensors should be: it is of another training")
    return found


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, without that."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_tensors(file: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> None:
    """Raises NotTheRelease, with every tensor that is missing, too many, or of another shape than expected."""
    lines = [f"lacks {name} {expected[name]}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"has {name}, which is nowhere" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if found[name].shape != expected[name]:
            lines.append(f"has {name} {tuple(found[name].shape)}, not {expected[name]}")
    if lines:
        raise NotTheRelease(f"{file} is not what the configuration says:\n" + "\n".join(lines))


def unet_blocks(levels: int, res_blocks: int, attention_levels: Collection[int]) -> dict[str, str]:
    """Names of a U-Net's blocks in diffusers, to those in the code that both releases descend from (OpenAI's guided diffusion).

    There they are numbered from the image to the middle, and from there back.
    """
    names = {
        "conv_in": "input_blocks.0.0",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    down, up = 1, 0
    for level in range(levels):
        for block in range(res_blocks):
            names[f"down_blocks.{level}.resnets.{block}"] = f"input_blocks.{down}.0"
            names[f"down_blocks.{level}.attentions.{block}"] = f"input_blocks.{down}.1"
            down += 1
        names[f"down_blocks.{level}.downsamplers.0"] = f"input_blocks.{down}.0"  # of the last level there is none
        down += 1
    for index, level in enumerate(reversed(range(levels))):
        for block in range(res_blocks + 1):
            names[f"up_blocks.{index}.resnets.{block}"] = f"output_blocks.{up}.0"
            names[f"up_blocks.{index}.attentions.{block}"] = f"output_blocks.{up}.1"
            up += 1
        # Up-sampling has no number of its own: it follows the level's last block, and that block's attention.
        names[f"up_blocks.{index}.upsamplers.0"] = f"output_blocks.{up - 1}.{2 if level in attention_levels else 1}"
    return names
