"""LPIPS with VGG-16 (Zhang et al., arXiv 1801.03924): how different two images look. No torchvision, no download.

The backbone's weights are a file that the user fetches; the weights of its channels travel with torchmetrics.
"""

import pickle
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

BACKBONE = "vgg16-397923af.pth"
SOURCE = f"https://download.pytorch.org/models/{BACKBONE}"
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # of VGG-16's convolutions, pool after pool
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]


class NoBackbone(FileNotFoundError):
    """The backbone's weights are not where the configuration says, or are something else."""


class Perceptual(nn.Module):
    """Distance (B,) of images (B, 3, H, W) in [-1, 1]. Frozen."""

    def __init__(self) -> None:
        super().__init__()
        blocks, before, index = [], 3, 0
        for level, widths in enumerate(WIDTHS):
            block: dict[str, nn.Module] = {"pool": nn.MaxPool2d(2)} if level else {}
            index += level > 0
            for width in widths:
                block[str(index)] = nn.Conv2d(before, width, 3, padding=1)
                block[f"relu{index}"] = nn.ReLU()
                before, index = width, index + 2
            blocks.append(nn.Sequential())
            for name, module in block.items():
                blocks[-1].add_module(name, module)
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ParameterList(torch.ones(widths[-1]) for widths in WIDTHS)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        self.requires_grad_(False)

    @classmethod
    def load(cls, backbone: Path) -> "Perceptual":
        """With weights: torchvision's file of VGG-16, and torchmetrics' copy of the authors' heads. Raises NoBackbone."""
        network = cls()
        if not backbone.is_file():
            raise NoBackbone(f"there is no {backbone}: fetch {SOURCE}, name it in `backbone`, or set perceptual_weight to 0")
        try:
            found = torch.load(backbone, map_location="cpu", weights_only=True)
            for block in network.blocks:
                for name, module in block.named_children():
                    if isinstance(module, nn.Conv2d):
                        module.load_state_dict({kind: found[f"features.{name}.{kind}"] for kind in ("weight", "bias")})
        except (KeyError, RuntimeError, TypeError, AttributeError, OSError, EOFError, pickle.UnpicklingError) as error:
            why = str(error).strip().partition("\n")[0]
            raise NoBackbone(f"{backbone} does not hold VGG-16 as torchvision has it ({why}): fetch {SOURCE}") from error
        heads = torch.load(
            str(files("torchmetrics") / "functional/image/lpips_models/vgg.pth"), map_location="cpu", weights_only=True
        )
        for level, head in enumerate(network.heads):
            head.copy_(heads[f"lin{level}.model.1.weight"].flatten())
        return network

    def forward(self, one_B3HW: Tensor, other_B3HW: Tensor) -> Tensor:
        one, other = ((images - self.mean) / self.std for images in (one_B3HW, other_B3HW))
        distance_B = one.new_zeros(len(one))
        for block, head_C in zip(self.blocks, self.heads, strict=True):
            one, other = block(one), block(other)
            difference = (unit(one) - unit(other)).square()
            distance_B = distance_B + (difference * head_C[:, None, None]).sum(1).mean((1, 2))
        return distance_B


def unit(features_BCHW: Tensor) -> Tensor:
    """Each pixel's features at length 1."""
    return features_BCHW / (features_BCHW.square().sum(1, keepdim=True).sqrt() + 1e-10)
