from itertools import product
from math import floor, inf

import numpy as np
import pytest
import torch

from models.radiance.cameras import CANONICAL, RELEASE, Scene, project
from models.radiance.marching import NEAR, SAMPLES, STEP, Evaluated, Occupancy, march, morton, paint

SIZE = 16
BOX = (-0.97, -0.47, -0.96, 0.98, 0.49, 0.97)  # its faces aren't cells' walls, where rounding decides whose a place is


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rays_at_the_box(count, seed=0):
    """Rays of float64 from around the box through its middle, some of them past it, some from within."""
    generator = seeded(seed)
    origins = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    origins *= (0.3 + 2.7 * torch.rand(count, 1, generator=generator, dtype=torch.float64)) / origins.norm(dim=1, keepdim=True)
    aims = 0.5 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return origins, torch.nn.functional.normalize(aims - origins, dim=-1)


def patchy(share, seed=0):
    """An occupancy of which a share of the cells is occupied."""
    occupancy = Occupancy(Scene(box=BOX), SIZE).double()
    occupied = torch.rand(SIZE, SIZE, SIZE, generator=seeded(seed)) < share
    density = torch.where(occupied, 1.0, 0.0)
    bits = np.packbits(density.numpy().reshape(-1)[inverse_order()] > 0, bitorder="little")
    occupancy.take_release(density.reshape(1, -1)[:, inverse_order()], torch.from_numpy(bits))
    assert torch.equal(occupancy.occupied, occupied)
    return occupancy


def code(x, y, z):
    """Morton's, a bit at a time."""
    return sum((x >> bit & 1) << 3 * bit | (y >> bit & 1) << 3 * bit + 1 | (z >> bit & 1) << 3 * bit + 2 for bit in range(10))


def inverse_order(size=SIZE):
    """Which cell, counted along the last axis first, stands at each place in Morton order."""
    places = np.empty(size**3, int)
    for index, cell in enumerate(product(range(size), repeat=3)):
        places[code(*cell)] = index
    return places


def test_morton_order():
    cells = torch.cat((torch.randint(0, 1024, (50, 3)), torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1023, 1023, 1023]])))
    assert morton(cells).tolist() == [code(*cell) for cell in cells.tolist()]


def one_ray(occupied, origin, direction, box, samples):
    """The release's walk: a step where something is, else steps until the cell's wall is passed."""
    low = [min((box[a] - origin[a]) / direction[a], (box[a + 3] - origin[a]) / direction[a]) for a in range(3)]
    high = [max((box[a] - origin[a]) / direction[a], (box[a + 3] - origin[a]) / direction[a]) for a in range(3)]
    distance, far, found = max(*low, NEAR), min(high), []
    while distance < far and len(found) < samples:
        place = [min(max(origin[a] + distance * direction[a], -1), 1) for a in range(3)]
        cell = [min(max(floor((place[a] + 1) / 2 * SIZE), 0), SIZE - 1) for a in range(3)]
        if occupied[tuple(cell)]:
            found.append(distance)
            distance += STEP
            continue
        walls = [((cell[a] + (direction[a] > 0)) / SIZE * 2 - 1 - place[a]) / direction[a] for a in range(3)]
        beyond = distance + max(0, min(walls))
        distance += STEP
        while distance < beyond:
            distance += STEP
    return found


@pytest.mark.parametrize("share", [0.03, 0.3, 1.0])
def test_march_against_the_release_s_walk(share):
    occupancy = patchy(share)
    origins, directions = rays_at_the_box(150)
    found = march(occupancy, origins, directions, None)
    assert (found.ray.diff() >= 0).all()
    for ray in range(150):
        mine = found.ray == ray
        expected = one_ray(occupancy.occupied, origins[ray].tolist(), directions[ray].tolist(), BOX, SAMPLES)
        assert found.distance[mine].tolist() == pytest.approx(expected, abs=1e-9)
        assert found.slot[mine].tolist() == list(range(len(expected)))
    places = origins[found.ray] + found.distance[:, None] * directions[found.ray]
    assert torch.allclose(found.position, places)
    assert torch.equal(found.direction, directions[found.ray])
    assert len(found.ray) > 150


def test_rays_marched_in_parts_are_the_same_rays(monkeypatch):
    occupancy, rays = patchy(0.3), rays_at_the_box(100)
    whole = march(occupancy, *rays, seeded())
    monkeypatch.setattr("models.radiance.marching.RAYS", 7)
    parts = march(occupancy, *rays, seeded())
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_training_starts_up_to_a_step_later():
    occupancy, (origins, directions) = Occupancy(RELEASE, SIZE), rays_at_the_box(400)
    origins, directions = origins.float(), directions.float()
    even, drawn = march(occupancy, origins, directions, None), march(occupancy, origins, directions, seeded())
    first, moved = (torch.full((400,), inf).index_put((f.ray[f.slot == 0],), f.distance[f.slot == 0]) for f in (even, drawn))
    later = (moved - first)[first.isfinite() & moved.isfinite()]
    assert later.min() > -1e-6 and later.max() < STEP + 1e-6
    assert later.mean().item() == pytest.approx(STEP / 2, rel=0.1)
    again = march(occupancy, origins, directions, seeded())
    assert torch.equal(again.distance, drawn.distance)


def test_fewer_and_longer_steps():
    occupancy, rays = Occupancy(RELEASE, SIZE), rays_at_the_box(50)
    found = march(occupancy, *rays, None, step=0.1, samples=3)
    assert found.slot.max() == 2
    assert torch.allclose(found.distance.diff()[found.ray.diff() == 0], torch.tensor(0.1, dtype=torch.float64))


def test_a_new_occupancy_is_the_scene_s_box():
    for scene in (RELEASE, CANONICAL):
        occupancy = Occupancy(scene, SIZE)
        origins, directions = rays_at_the_box(300)
        found = march(occupancy, origins.float(), directions.float(), None)
        least, greatest = torch.tensor(scene.box).view(2, 3)
        assert ((found.position > least - 1e-5) & (found.position < greatest + 1e-5)).all()
        assert len(found.ray) > 1000 and found.distance.min() >= NEAR


def test_where_nothing_is_no_field_sees_anything():
    occupancy, background = patchy(0.0), torch.rand(20, 3, dtype=torch.float64)
    found = march(occupancy, *rays_at_the_box(20), None)
    assert len(found.ray) == 0
    painted = paint(fog, found, background)
    assert torch.equal(painted.color, background)
    assert (painted.opacity == 0).all() and (painted.ambient == 0).all() and (painted.samples == 0).all()


def test_no_rays():
    assert len(march(Occupancy(RELEASE, SIZE), torch.zeros(0, 3), torch.zeros(0, 3), None).ray) == 0


def fog(positions, directions):
    """Thicker to one side; colours by place and direction."""
    return Evaluated((3 * positions + directions).sigmoid(), 400 * positions[:, 0].clamp(min=0) ** 2, positions.abs().sum(-1))


@pytest.mark.parametrize("at_once", [16, 4, 1])
def test_paint_against_a_plain_loop(at_once):
    occupancy, rays = patchy(0.5), rays_at_the_box(80)
    background = torch.rand(80, 3, dtype=torch.float64)
    found = march(occupancy, *rays, None)
    painted = paint(fog, found, background, at_once=at_once)
    stopped = 0
    for ray in range(80):
        light, color, ambient, seen = 1.0, torch.zeros(3, dtype=torch.float64), 0.0, 0
        for sample in (found.ray == ray).nonzero().squeeze(-1).tolist():
            if light < 1e-4:
                stopped += 1
                break
            value = fog(found.position[sample, None], found.direction[sample, None])
            alpha = 1 - torch.exp(-STEP * value.density[0])
            color += light * alpha * value.color[0]
            light *= 1 - alpha
            ambient += value.ambient[0]
            seen += 1
        assert torch.allclose(painted.color[ray], color + light * background[ray])
        assert torch.allclose(painted.opacity[ray], torch.as_tensor(1 - light, dtype=torch.float64))
        assert torch.allclose(painted.ambient[ray], torch.as_tensor(ambient, dtype=torch.float64))
        assert seen <= painted.samples[ray] <= seen + at_once - 1 or at_once == 16
    assert stopped > 5


def test_asking_a_few_at_once_saves_work():
    occupancy, rays = patchy(0.5), rays_at_the_box(200)
    found, background = march(occupancy, *rays, None), torch.zeros(200, 3, dtype=torch.float64)
    asked = [paint(fog, found, background, at_once=count).samples.sum().item() for count in (16, 4, 1)]
    assert len(found.ray) == asked[0] > asked[1] > asked[2]


def test_gradients_reach_all_that_a_field_says():
    occupancy, rays = patchy(0.5), rays_at_the_box(6)
    found = march(occupancy, *rays, None, samples=4)
    background = torch.rand(6, 3, dtype=torch.float64)
    values = [
        torch.rand(len(found.ray), *more, dtype=torch.float64, generator=seeded()).requires_grad_() for more in ((3,), (), ())
    ]

    def painted(*values):
        return tuple(paint(lambda *_: Evaluated(*values), found, background)[:3])

    assert torch.autograd.gradcheck(painted, values)
    paint(lambda *_: Evaluated(*values), found, background).ambient.sum().backward()
    assert values[0].grad is None or (values[0].grad == 0).all()
    assert values[1].grad is None or (values[1].grad == 0).all()
    assert (values[2].grad == 1).all()  # not weighted


def ball(positions):
    return torch.where(positions.norm(dim=-1) < 0.4, 50.0, 0.0)


def test_occupancy_finds_what_is_there():
    occupancy = Occupancy(RELEASE, 32)
    for seed in range(60):
        occupancy.renew(ball, seeded(seed))
    middles = (torch.arange(32) + 0.5) / 16 - 1
    radius = torch.cartesian_prod(middles, middles, middles).norm(dim=-1).view(32, 32, 32)
    assert occupancy.occupied[radius < 0.4].all()
    assert not occupancy.occupied[radius > 0.4 + 2.5 / 16].any()
    assert torch.allclose(occupancy.extent.abs(), torch.tensor(0.4), atol=2 / 16)
    found = march(occupancy, torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, -2.0]]), torch.tensor([[0.0, 0, 1], [0, 0.6, 0.8]]), None)
    assert found.ray.tolist() == [0] * 16
    assert found.distance[0].item() == pytest.approx(1.6, abs=2 / 16 + STEP)


def test_renewing_against_the_specification():
    size = 8
    occupancy = Occupancy(RELEASE, size, decay=0.5, threshold=3.0)
    old = np.full((size, size, size), -1.0)
    old[:, 1:7] = 0  # the box is half as deep, and touches two more
    assert np.array_equal(occupancy.density.numpy() >= 0, old >= 0)
    for seed in range(3):
        values = np.random.default_rng(seed).gamma(0.3, 4.0, (size, size, size)).astype(np.float32)

        def density_at(positions, values=values):
            return torch.from_numpy(values)[tuple(((positions + 1) / 2 * size).long().clamp(0, size - 1).T)]

        occupancy.renew(density_at, seeded(seed))
        fresh = np.pad(np.where(old >= 0, values, 0), 1)
        wide = fresh.copy()
        for axis, way in product(range(3), (1, -1)):
            wide = np.maximum(wide, np.roll(fresh, way, axis))
        old = np.where(old >= 0, np.maximum(0.5 * old, wide[1:-1, 1:-1, 1:-1]), -1)
        assert np.allclose(occupancy.density.numpy(), old)
        assert np.array_equal(occupancy.occupied.numpy(), old > min(np.maximum(old, 0).mean(), 3.0))


def test_what_is_gone_is_forgotten_slowly():
    occupancy = Occupancy(RELEASE, 8)
    occupancy.renew(lambda positions: torch.full((len(positions),), 2.0), seeded())
    occupancy.renew(lambda positions: torch.zeros(len(positions)), seeded())
    assert torch.allclose(occupancy.density[occupancy.density >= 0], torch.tensor(1.9))


def test_a_share_of_the_cells():
    occupancy = Occupancy(RELEASE, SIZE)
    occupancy.renew(lambda positions: torch.full((len(positions),), 2.0), seeded())
    asked = []

    def density_at(positions):
        asked.append(len(positions))
        return torch.zeros(len(positions))

    occupancy.renew(density_at, seeded(), share=0.25)
    cells = (occupancy.density >= 0).sum().item()
    assert sum(asked) == pytest.approx(cells / 4, rel=0.15)
    assert torch.isclose(occupancy.density, torch.tensor(1.9)).sum() == sum(asked)
    assert (occupancy.density == 2).sum() == cells - sum(asked)


def test_what_no_camera_sees_is_never_sampled():
    occupancy = Occupancy(RELEASE, 32)
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[:3, 3] = torch.tensor([0.02, 0.05, 0.3])
    side = pose.clone()
    side[0, 3] = 0.1
    poses, focal, center, size = torch.stack((pose, side)), 120.0, (31.5, 23.5), (64, 48)
    before = occupancy.density.clone()
    occupancy.exclude_unseen(poses, focal, center, size)
    middles = (torch.arange(32) + 0.5) / 16 - 1
    cells = torch.cartesian_prod(middles, middles, middles)
    seen, near = torch.zeros(len(cells), dtype=torch.bool), torch.zeros(len(cells), dtype=torch.bool)
    for one in poses:
        places, depth = project(one, focal, center, RELEASE.leave(cells))
        cell = focal * (2 / 32 / 4) / depth[:, None]
        inside, about = (
            ((places > -0.5 - more) & (places < torch.tensor(size) - 0.5 + more)).all(-1) & (depth > 0)
            for more in (0, 1.01 * cell)
        )
        seen, near = seen | inside, near | about
    excluded = (occupancy.density.flatten() < 0) & (before.flatten() >= 0)
    assert not (excluded & seen).any() and excluded[~near & (before.flatten() >= 0)].all()
    assert 100 < excluded.sum() < (before >= 0).sum()
    occupancy.renew(lambda positions: torch.full((len(positions),), 100.0), seeded())
    assert torch.equal(occupancy.occupied.flatten(), (before.flatten() >= 0) & ~excluded)


def test_the_release_s_occupancy():
    occupancy = Occupancy(RELEASE, SIZE)
    density = torch.randn(SIZE, SIZE, SIZE)
    bits = density > 0.3
    order = inverse_order()
    packed = torch.from_numpy(np.packbits(bits.numpy().reshape(-1)[order], bitorder="little"))
    occupancy.take_release(density.reshape(-1)[order][None], packed)
    assert torch.equal(occupancy.density, density) and torch.equal(occupancy.occupied, bits)
    with pytest.raises(
        ValueError, match=r"density_grid \[1, 4096\] and density_bitfield \[512\]; these are \[1, 4096\] and \[4096\]"
    ):
        occupancy.take_release(density.reshape(1, -1), torch.zeros(4096, dtype=torch.uint8))


def test_an_occupancy_is_restored():
    occupancy, other = Occupancy(RELEASE, 32), Occupancy(RELEASE, 32)
    occupancy.renew(ball, seeded())
    other.load_state_dict(occupancy.state_dict())
    rays = [values.float() for values in rays_at_the_box(40)]
    assert all(torch.equal(a, b) for a, b in zip(march(occupancy, *rays, None), march(other, *rays, None), strict=True))


def grid_of_places(side=41):
    line = torch.linspace(-1, 1, side)
    return torch.cartesian_prod(line, line)
