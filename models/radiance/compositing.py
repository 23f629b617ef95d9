"""What the samples of a ray have, to what the ray sees (NeRF, arXiv 2003.08934, eq. 3).

N  rays     S  samples of a ray, from the camera away
"""

import torch
import torch.nn.functional as F
from torch import Tensor

STOP = 1e-4  # the release goes no further along a ray once less of the light than this is left


def light(depths_NS: Tensor) -> Tensor:
    """(N, S) T: the light left before each sample. depths_NS: optical depths σ δ >= 0, densities times the samples' lengths."""
    return F.pad(depths_NS[:, :-1].cumsum(1), (1, 0)).neg().exp()


def weights(depths_NS: Tensor, stop: float = 0.0) -> tuple[Tensor, Tensor]:
    """(N, S) each sample's weight T α with α = 1 - exp(-σ δ), and (N,) the light left behind the last: together they are 1.

    A sample counts for nothing once less than `stop` of the light is left before it.
    """
    before_NS = light(depths_NS)
    reached_NS = before_NS >= stop
    weights_NS = torch.where(reached_NS, before_NS * -torch.expm1(-depths_NS), 0.0)
    return weights_NS, torch.where(reached_NS, depths_NS, 0.0).sum(1).neg().exp()


def composite(weights_NS: Tensor, left_N: Tensor, colors_NS3: Tensor, background_N3: Tensor) -> Tensor:
    """Colours (N, 3) of the rays: the samples' over the background."""
    return (weights_NS[..., None] * colors_NS3).sum(1) + left_N[:, None] * background_N3
