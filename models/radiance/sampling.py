"""The paper's renderer: samples along the whole ray by a coarse field, more of them where it found something by a fine one
(NeRF, arXiv 2003.08934, §5.2; GeneFace's release).

N  rays     S  samples of a ray     M  samples of all rays
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.radiance.compositing import composite, weights

# Positions and unit directions, (M, 3) each, those of a ray together -> colours (M, 3) in [0, 1], densities (M,) >= 0 a metre.
RadianceField = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

FAINTEST = 1e-6  # added to every density (release)
FEWEST = 1e-5  # added to every weight before more samples are drawn by it (release)


class Rendered(NamedTuple):
    """What N rays see. Without the background a colour is color - (1 - opacity) background."""

    color: Tensor  # (N, 3) by the fine field, over the background
    coarse_color: Tensor  # (N, 3) by the coarse one, which is trained by it
    opacity: Tensor  # (N,) of the fine field, [0, 1]


def drawn(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), of the type and on the device of `like`, wherever the generator is."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def stratified(near_N: Tensor, far_N: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """(N, S) ascending distances from near to far: even ones, both ends among them; or drawn, one from around each of those."""
    even_S = torch.linspace(0, 1, samples, device=near_N.device, dtype=near_N.dtype)
    distance_NS = near_N[:, None] + (far_N - near_N)[:, None] * even_S
    if generator is None:
        return distance_NS
    middle = (distance_NS[:, 1:] + distance_NS[:, :-1]) / 2
    lower_NS = torch.cat((distance_NS[:, :1], middle), 1)
    upper_NS = torch.cat((middle, distance_NS[:, -1:]), 1)
    return lower_NS + (upper_NS - lower_NS) * drawn(tuple(lower_NS.shape), lower_NS, generator)


def importance(edges_NE: Tensor, weights_NP: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """(N, samples) distances, by the inverse of a distribution that is constant between edges: P = E - 1 weights, >= 0.

    At even quantiles from 0 to 1, ascending; or at quantiles drawn by the generator, in no order. No gradient passes.
    """
    edges_NE, weights_NP = edges_NE.detach(), weights_NP.detach() + FEWEST
    cumulated_NE = F.pad((weights_NP / weights_NP.sum(1, keepdim=True)).cumsum(1), (1, 0))
    shape = (len(edges_NE), samples)
    if generator is None:
        quantile = torch.linspace(0, 1, samples, device=edges_NE.device, dtype=edges_NE.dtype).expand(shape).contiguous()
    else:
        quantile = drawn(shape, edges_NE, generator)
    part = (torch.searchsorted(cumulated_NE, quantile, right=True) - 1).clamp(0, weights_NP.shape[1] - 1)
    below, above = cumulated_NE.gather(1, part), cumulated_NE.gather(1, part + 1)
    # A part of next to no weight has no inside to be found in (release).
    inside = (quantile - below) / torch.where(above - below < FEWEST, 1.0, above - below)
    start, end = edges_NE.gather(1, part), edges_NE.gather(1, part + 1)
    return start + inside.clamp(0, 1) * (end - start)


def render_coarse_fine(
    coarse: RadianceField,
    fine: RadianceField,
    origins_N3: Tensor,
    directions_N3: Tensor,
    near: float | Tensor,
    far: float | Tensor,
    coarse_samples: int,
    fine_samples: int,
    background_N3: Tensor,
    generator: torch.Generator | None,
) -> Rendered:
    """What rays with unit directions see between near and far (metres; one number, or one a ray) before a background.

    The fine field sees the coarse samples too. The last sample of a ray is the background, which takes all the light that is
    left: no field is asked for it. Without a generator (when generating) nothing is drawn.
    """
    near_N = torch.as_tensor(near, dtype=origins_N3.dtype, device=origins_N3.device).expand(len(origins_N3))
    far_N = torch.as_tensor(far, dtype=origins_N3.dtype, device=origins_N3.device).expand(len(origins_N3))
    distance_NS = stratified(near_N, far_N, coarse_samples, generator)
    coarse_color, weights_NS, _ = _look(coarse, origins_N3, directions_N3, distance_NS, background_N3)
    edges = (distance_NS[:, 1:] + distance_NS[:, :-1]) / 2
    more = importance(edges, weights_NS[:, 1:], fine_samples, generator)
    distance_NS = torch.cat((distance_NS, more), 1).sort(1).values
    color, weights_NS, left_N = _look(fine, origins_N3, directions_N3, distance_NS, background_N3)
    return Rendered(color, coarse_color, 1 - left_N)


def _look(
    field: RadianceField, origins_N3: Tensor, directions_N3: Tensor, distance_NS: Tensor, background_N3: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, and the weights of all samples but the last and what is left for that: the background."""
    before_NS = distance_NS[:, :-1, None]
    positions_NS3 = origins_N3[:, None] + before_NS * directions_N3[:, None]
    colors_M3, densities_M = field(positions_NS3.reshape(-1, 3), directions_N3[:, None].expand_as(positions_NS3).reshape(-1, 3))
    densities_NS = densities_M.view(before_NS.shape[:2]) + FAINTEST
    weights_NS, left_N = weights(densities_NS * distance_NS.diff(dim=1))
    return composite(weights_NS, left_N, colors_M3.view(positions_NS3.shape), background_N3), weights_NS, left_N
