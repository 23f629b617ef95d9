"""The release's PostNet and discriminator, written down from the layout of their checkpoints, for whole sequences."""

import torch
import torch.nn.functional as F

BLOCKS = {
    "block1.0": False,
    "block1.1": True,
    "block1.2": True,
    "block2.0": False,
    "block2.1": True,
    "block2.2": True,
    "block3.0": False,
}


def layout(narrow: int, wide: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of PostNet's tensors."""
    widths = {"block1.0": (204, narrow), "block2.0": (narrow, wide), "block3.0": (wide, narrow)}
    shapes: dict[str, tuple[int, ...]] = {}
    for block in BLOCKS:
        before, after = widths.get(block, (narrow, narrow) if block.startswith("block1") else (wide, wide))
        shapes |= {f"{block}.conv_block.0.weight": (after, before, 3), f"{block}.conv_block.0.bias": (after,)}
        shapes |= {f"{block}.conv_block.1.{name}": (after,) for name in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{block}.conv_block.1.num_batches_tracked"] = ()
    return shapes | {"block3.1.weight": (204, narrow, 1), "block3.1.bias": (204,)}


def discriminator_layout(*widths: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (before, after) in enumerate(zip((204, *widths), widths, strict=False)):
        shapes |= {f"backbone.{3 * index}.weight": (after, before), f"backbone.{3 * index}.bias": (after,)}
    return shapes | {f"backbone.{3 * len(widths)}.weight": (1, widths[-1])}


def randomised(shapes, seed=0):
    """Random tensors of these shapes, of which variances are above 0 and counts are counts."""
    random = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            made[name] = 0.5 + torch.rand(shape, generator=random)
        else:
            made[name] = torch.randn(shape, generator=random) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
    return made


def adapt(weights, motion_BTX):
    """What the release's PostNet makes of whole sequences."""
    x = motion_BTX.mT
    for block, residual in BLOCKS.items():
        w = {name: weights[f"{block}.conv_block.{name}"] for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
        y = F.conv1d(x, w["0.weight"], w["0.bias"], padding=1)
        mean, variance = (weights[f"{block}.conv_block.1.{name}"][:, None] for name in ("running_mean", "running_var"))
        y = (y - mean) / (variance + 1e-5).sqrt() * w["1.weight"][:, None] + w["1.bias"][:, None]
        y = y + x if residual else y
        x = torch.maximum(y, 0.2 * y)
    return motion_BTX + F.conv1d(x, weights["block3.1.weight"], weights["block3.1.bias"]).mT


def tell(weights, frames_NX):
    """What the release's discriminator says, without dropout."""
    layers = sorted(int(name.split(".")[1]) for name in weights if name.endswith("bias"))
    for index in layers:
        frames_NX = frames_NX @ weights[f"backbone.{index}.weight"].T + weights[f"backbone.{index}.bias"]
        frames_NX = torch.maximum(frames_NX, (0.2 if index == 0 else 0.25) * frames_NX)
    return frames_NX @ weights[f"backbone.{layers[-1] + 3}.weight"].T
