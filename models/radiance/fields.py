"""The networks that radiance fields are made of.

M  samples     P  numbers of a sample's position and condition     Q  of its direction
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

SKIP = 5  # the layer that is given the input again
STEEPEST = 15.0  # the greatest logarithm of a density whose gradient is its own


class Field(nn.Module):
    """The paper's field: 8 layers, the input once more before the sixth, then the colour by direction (release; specs: F(m))."""

    def __init__(self, position_width: int, direction_width: int, hidden: int = 256, color_hidden: int = 128):
        """position_width: P, of an encoded position and its condition, in this order; direction_width: Q."""
        super().__init__()
        befores = [position_width, *[hidden] * 7]
        befores[SKIP] += position_width
        self.density_layers = nn.ModuleList(nn.Linear(before, hidden) for before in befores)
        self.density_out = nn.Linear(hidden, 1)
        befores = [hidden + direction_width, color_hidden, color_hidden]
        self.color_layers = nn.ModuleList(nn.Linear(before, color_hidden) for before in befores)
        self.color_out = nn.Linear(color_hidden, 3)

    def forward(self, position_MP: Tensor, direction_MQ: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (M, 3) in [0, 1] and densities (M,) >= 0."""
        hidden = position_MP
        for index, layer in enumerate(self.density_layers):
            hidden = layer(torch.cat((position_MP, hidden), -1) if index == SKIP else hidden).relu()
        density_M = self.density_out(hidden).relu().squeeze(-1)
        hidden = torch.cat((hidden, direction_MQ), -1)
        for layer in self.color_layers:
            hidden = layer(hidden).relu()
        return self.color_out(hidden).sigmoid(), density_M


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths without biases, ReLU between: 96, 128, 128, 2 are three layers, at 0, 2 and 4."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logarithm: Tensor) -> Tensor:
        ctx.save_for_backward(logarithm)
        return logarithm.exp()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (logarithm,) = ctx.saved_tensors
        return gradient * logarithm.clamp(-STEEPEST, STEEPEST).exp()


def density(logarithm: Tensor) -> Tensor:
    """exp in float32, whose gradient is taken as at ±15 beyond that: what went too far comes back (Instant-NGP; the release)."""
    return _Density.apply(logarithm.float() if logarithm.dtype in (torch.float16, torch.bfloat16) else logarithm)
