"""The authors' checkpoints: files from outside, read without running what may be in them, and with no tensor unaccounted for."""

import pickle
from collections.abc import Mapping
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


def check_tensors(file: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> None:
    """Raises NotTheRelease, with every tensor that is missing, too many, or of another shape than expected."""
    lines = [f"lacks {name} {expected[name]}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"has {name}, which is nowhere" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if found[name].shape != expected[name]:
            lines.append(f"has {name} {tuple(found[name].shape)}, not {expected[name]}")
    if lines:
        raise NotTheRelease(f"{file} is not what the configuration says:\n" + "\n".join(lines))
