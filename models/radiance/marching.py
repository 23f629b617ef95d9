"""The release's renderer: steps of one length through a box, samples where a grid of cells says that something is.

All coordinates are a field's: see cameras.Scene.

N  rays     K  steps of a ray     S  samples of a ray at most     M  samples of all rays     G  cells of a grid's side
"""

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.radiance import cameras, compositing
from models.radiance.cameras import Scene
from models.radiance.sampling import drawn

STEP = 2 * sqrt(3) / 128  # field units. The release means steps to grow, but the bounds of its clamp are the wrong way round
SAMPLES = 16  # S
NEAR = 0.05  # field units from the camera: nothing before that is sampled
RAYS = 1 << 15  # marched at once
CELLS = 1 << 17  # of which a field is asked at once when a grid is renewed


class Samples(NamedTuple):
    """Samples, packed: those of a ray together, from the camera away."""

    ray: Tensor  # (M,) int64: whose
    slot: Tensor  # (M,) int64, 0 … S - 1: the how-manieth of its ray
    distance: Tensor  # (M,) along the ray
    position: Tensor  # (M, 3)
    direction: Tensor  # (M, 3) of the ray, unit


class Evaluated(NamedTuple):
    """What a field says of M samples."""

    color: Tensor  # (M, 3) in [0, 1]
    density: Tensor  # (M,) >= 0, a field unit
    ambient: Tensor  # (M,) how far it is deformed: Σ |·| of the ambient coordinates


class Painted(NamedTuple):
    """What N rays see."""

    color: Tensor  # (N, 3) over the background
    opacity: Tensor  # (N,) Σ weights, [0, 1]
    ambient: Tensor  # (N,) Σ of the samples', not weighted (release)
    samples: Tensor  # (N,) int64, how many were asked of the field


class Occupancy(nn.Module):
    """Which cells of the cube hold something: a running maximum of the density in them, kept in buffers.

    density (G, G, G) by the field's axes, -1 in cells that are never to be sampled. occupied, bool, of the same shape:
    everything in the scene's box, until `renew`. extent (6,): a box around the occupied cells, least corner, then greatest.
    """

    density: Tensor
    occupied: Tensor
    extent: Tensor

    def __init__(self, scene: Scene, size: int = 128, decay: float = 0.95, threshold: float = 10.0):
        """size: G; decay: of the maximum at each renewal; threshold: the most that it must exceed, density a field unit."""
        super().__init__()
        self.scene, self.size, self.decay, self.threshold = scene, size, decay, threshold
        centers, box_6 = _centers(size, 3), torch.tensor(scene.box)
        reach = 1.01 / size  # of a cell to each side, and a little: a ray may enter just on the wall between two
        in_box = ((centers > box_6[:3] - reach) & (centers < box_6[3:] + reach)).all(-1).view(size, size, size)
        self.register_buffer("density", torch.where(in_box, 0.0, -1.0))
        self.register_buffer("occupied", in_box)
        self.register_buffer("extent", box_6)

    @torch.no_grad()
    def exclude_unseen(self, poses_V44: Tensor, focal: float, center: tuple[float, float], size: tuple[int, int]) -> None:
        """Marks the cells that no camera sees: they are never sampled again.

        poses_V44: camera-from-head of the pictures trained on; size: their width and height, pixels.
        """
        unseen = (self.density.view(-1) >= 0).nonzero().squeeze(-1)
        points_N3 = self.scene.leave(_centers(self.size, 3, self.density.device))
        for pose_44 in poses_V44.to(points_N3.device):
            places_N2, depth_N = cameras.project(pose_44, focal, center, points_N3[unseen])
            # A cell whose middle is just outside may still be seen: a cell's width more on every side (release).
            margin_N1 = (2 / self.size / self.scene.scale * focal / depth_N)[:, None]
            edges_2 = places_N2.new_tensor(size) - 0.5
            inside_N = ((places_N2 > -0.5 - margin_N1) & (places_N2 < edges_2 + margin_N1)).all(-1)
            unseen = unseen[~(inside_N & (depth_N > 0))]
        self.density.view(-1)[unseen] = -1.0
        self._occupy(self.occupied & (self.density >= 0))

    @torch.no_grad()
    def renew(self, density_at: Callable[[Tensor], Tensor], generator: torch.Generator, share: float = 1.0) -> None:
        """Looks into the cells again, at a drawn place in each. Every 16th step, in the release.

        density_at: positions (M, 3) -> densities (M,), of one moment; share: of the cells, drawn, that are looked into.
        """
        old = self.density.view(-1)
        cells = (old >= 0).nonzero().squeeze(-1)
        if share < 1:
            cells = cells[drawn((len(cells),), old, generator) < share]
        found = torch.zeros_like(old)
        found[cells] = _ask(density_at, _centers(self.size, 3, old.device)[cells], self.size, generator)
        # Each cell and its six neighbours: what is thin is not to be missed.
        found = found.view_as(self.density)
        wide = found.clone()
        for axis in range(3):
            low, high = found.narrow(axis, 0, self.size - 1), found.narrow(axis, 1, self.size - 1)
            for part, other in ((wide.narrow(axis, 0, self.size - 1), high), (wide.narrow(axis, 1, self.size - 1), low)):
                torch.maximum(part, other, out=part)
        faded = old.clone()
        faded[cells] *= self.decay
        self.density.copy_(torch.where(self.density >= 0, torch.maximum(faded.view_as(wide), wide), self.density))
        # The mean counts what is never sampled as empty (release).
        self._occupy(self.density > self.density.clamp(min=0).mean().clamp(max=self.threshold))

    @torch.no_grad()
    def take_release(self, density_grid: Tensor, density_bitfield: Tensor) -> None:
        """Takes the release's (1, G³) densities and (G³ / 8,) uint8 bits, both in Morton order; a byte's lowest bit is first."""
        count = self.size**3
        if tuple(density_grid.shape) != (1, count) or tuple(density_bitfield.shape) != (count // 8,):
            raise ValueError(
                f"an occupancy of {self.size}³ cells has density_grid [1, {count}] and density_bitfield [{count // 8}]; "
                f"these are {list(density_grid.shape)} and {list(density_bitfield.shape)}"
            )
        device = self.density.device
        order = morton(torch.cartesian_prod(*[torch.arange(self.size, device=device)] * 3))
        bits = density_bitfield.to(device)[:, None] >> torch.arange(8, dtype=torch.uint8, device=device) & 1
        self.density.copy_(density_grid.to(device)[0, order].view_as(self.density))
        self._occupy(bits.flatten().bool()[order].view_as(self.occupied))

    def _occupy(self, occupied: Tensor) -> None:
        self.occupied.copy_(occupied)
        ends = []
        for axis in range(3):
            full = self.occupied.movedim(axis, 0).flatten(1).any(1).nonzero().squeeze(-1)
            ends.append((2 * int(full[0]) / self.size - 1, 2 * (int(full[-1]) + 1) / self.size - 1) if len(full) else (0.0, 0.0))
        self.extent.copy_(torch.tensor(ends).T.flatten())


@torch.no_grad()
def march(
    occupancy: Occupancy,
    origins_N3: Tensor,
    directions_N3: Tensor,
    generator: torch.Generator | None,
    step: float = STEP,
    samples: int = SAMPLES,
) -> Samples:
    """The first `samples` steps of each ray that fall in occupied cells of the scene's box. Rays are the field's.

    With a generator (training) each ray starts up to a step later, drawn. No gradient passes.
    """
    jitter_N = origins_N3.new_zeros(len(origins_N3)) if generator is None else drawn((len(origins_N3),), origins_N3, generator)
    parts = []
    for first in range(0, max(len(origins_N3), 1), RAYS):
        part = slice(first, first + RAYS)
        ray, *rest = _march(occupancy, origins_N3[part], directions_N3[part], jitter_N[part], step, samples)
        parts.append((ray + first, *rest))
    return Samples(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _march(
    occupancy: Occupancy, origins_N3: Tensor, directions_N3: Tensor, jitter_N: Tensor, step: float, samples: int
) -> tuple[Tensor, ...]:
    size = occupancy.size
    near_N, far_N = cameras.box_span(origins_N3, directions_N3, origins_N3.new_tensor(occupancy.scene.box), NEAR)
    start_N = near_N + step * jitter_N
    # Where nothing is occupied no cell need be looked up. Half a cell more, lest rounding lose one.
    margin_6 = origins_N3.new_tensor([-1.0] * 3 + [1.0] * 3) / size
    enter_N, leave_N = cameras.box_span(origins_N3, directions_N3, occupancy.extent + margin_6, NEAR)
    first_N = ((enter_N - start_N) / step).ceil().clamp(min=0)
    last_N = ((torch.minimum(far_N, leave_N) - start_N) / step).ceil()  # the first that is no more
    ray_A = (last_N > first_N).nonzero().squeeze(-1)
    origins_A3, directions_A3 = origins_N3[ray_A], directions_N3[ray_A]
    steps = int((last_N - first_N)[ray_A].max()) if len(ray_A) else 0
    index_AK = first_N[ray_A, None] + torch.arange(steps, device=ray_A.device)
    distance_AK = start_N[ray_A, None] + step * index_AK
    cell_AK = torch.zeros_like(distance_AK, dtype=torch.int64)
    for axis in range(3):
        coordinate_AK = torch.addcmul(origins_A3[:, axis, None], distance_AK, directions_A3[:, axis, None])
        cell_AK = cell_AK * size + ((coordinate_AK + 1) * (size / 2)).long().clamp_(0, size - 1)
    hit_AK = occupancy.occupied.view(-1)[cell_AK] & (distance_AK < far_N[ray_A, None])
    slot_AK = hit_AK.cumsum(1) - 1
    row_M, column_M = (hit_AK & (slot_AK < samples)).nonzero(as_tuple=True)
    distance_M, directions_M3 = distance_AK[row_M, column_M], directions_A3[row_M]
    positions_M3 = origins_A3[row_M] + distance_M[:, None] * directions_M3
    return ray_A[row_M], slot_AK[row_M, column_M], distance_M, positions_M3, directions_M3


def paint(
    field: Callable[[Tensor, Tensor], Evaluated],
    found: Samples,
    background_N3: Tensor,
    step: float = STEP,
    samples: int = SAMPLES,
    at_once: int = SAMPLES,
) -> Painted:
    """Asks the field for the samples (positions, directions, (M, 3) each) and paints them over the background.

    step, samples: as it was marched. at_once: how many of each ray's samples are asked for before the rays that see no further
    are left out: a few save work once a head is learnt, and change nothing in the picture.
    """
    rays = len(background_N3)
    depths_NS, ambient_NS = background_N3.new_zeros(2, rays, samples)
    colors_NS3 = background_N3.new_zeros(rays, samples, 3)
    asked_N = torch.zeros(rays, dtype=torch.int64, device=background_N3.device)
    weights_NS, left_N = compositing.weights(depths_NS)
    for first in range(0, samples, at_once):
        chosen_M = (found.slot >= first) & (found.slot < first + at_once) & (left_N.detach() >= compositing.STOP)[found.ray]
        if first > 0 and not chosen_M.any():
            break
        ray, slot = found.ray[chosen_M], found.slot[chosen_M]
        evaluated = field(found.position[chosen_M], found.direction[chosen_M])
        depths_NS = depths_NS.index_put((ray, slot), step * evaluated.density)
        colors_NS3 = colors_NS3.index_put((ray, slot), evaluated.color)
        ambient_NS = ambient_NS.index_put((ray, slot), evaluated.ambient)
        asked_N = asked_N + torch.bincount(ray, minlength=rays)
        weights_NS, left_N = compositing.weights(depths_NS, compositing.STOP)
    color_N3 = compositing.composite(weights_NS, left_N, colors_NS3, background_N3)
    reached_NS = compositing.light(depths_NS.detach()) >= compositing.STOP
    return Painted(color_N3, 1 - left_N, torch.where(reached_NS, ambient_NS, 0.0).sum(1), asked_N)


def morton(cells_M3: Tensor) -> Tensor:
    """Indices of cells (M, 3), 0 … 1023 -> (M,) their places in Morton order: the axes' bits in turn, the first's lowest."""
    spread_M3 = cells_M3.long()
    for shift, keep in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        spread_M3 = (spread_M3 | spread_M3 << shift) & keep
    x, y, z = spread_M3.unbind(-1)
    return x | y << 1 | z << 2


def _centers(size: int, dimensions: int, device: torch.device | None = None) -> Tensor:
    """(size^dimensions, dimensions): the middles of the cells, the last coordinate running fastest."""
    middles = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    return torch.cartesian_prod(*[middles] * dimensions)


def _ask(values_at: Callable[[Tensor], Tensor], centers_MD: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A value (M,) of each cell, at a drawn place in it."""
    places_MD = centers_MD + (2 * drawn(tuple(centers_MD.shape), centers_MD, generator) - 1) / size
    return torch.cat([values_at(part).float() for part in places_MD.split(CELLS)])
