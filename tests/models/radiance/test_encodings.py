from math import ceil, factorial, floor, pi, sqrt

import numpy as np
import pytest
import torch
from scipy.special import lpmv

from models.radiance.encodings import PRIMES, Grid, frequencies, harmonics, to_unit

KINDS = ("tiled", "hashed")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("dimensions", "octaves", "width"), [(3, 10, 63), (3, 4, 27), (3, 6, 39), (2, 10, 42), (6, 4, 54)])
def test_widths_of_the_published_encodings(dimensions, octaves, width):
    assert frequencies(torch.rand(5, dimensions), octaves).shape == (5, width)


def test_frequencies_in_their_order():
    encoded = frequencies(torch.tensor([[0.3, -0.7]]), 2)[0]
    expected = [0.3, -0.7, *np.sin([0.3, -0.7]), *np.cos([0.3, -0.7]), *np.sin([0.6, -1.4]), *np.cos([0.6, -1.4])]
    assert encoded.tolist() == pytest.approx(expected, abs=1e-6)


def test_harmonics_are_the_real_spherical_harmonics():
    directions = torch.nn.functional.normalize(torch.randn(40, 3, dtype=torch.float64), dim=-1)
    x, y, z = directions.numpy().T
    angle = np.arctan2(y, x)
    expected = []
    for band in range(4):
        for order in range(-band, band + 1):
            m = abs(order)
            scale = sqrt((2 * band + 1) / (4 * pi) * factorial(band - m) / factorial(band + m))
            wave = np.ones_like(angle) if m == 0 else sqrt(2) * (np.sin(m * angle) if order < 0 else np.cos(m * angle))
            expected.append(scale * lpmv(m, band, z) * wave)  # with the Condon-Shortley phase
    assert np.allclose(harmonics(directions).numpy(), np.stack(expected, -1), atol=1e-12)


def test_sizes_of_the_published_grids():
    solid, flat = Grid(3), Grid(2)
    resolutions = [16, 23, 31, 43, 59, 81, 112, 154, 213, 295, 407, 562, 777, 1073, 1483, 2048]
    assert solid.resolutions == flat.resolutions == resolutions
    assert solid.rows == [4920, 13824, 32768] + [65536] * 13
    assert flat.rows == [296, 576, 1024, 1936, 3600, 6728, 12776, 24032, 45800] + [65536] * 7
    assert solid.embeddings.shape == (903_480, 2) and flat.embeddings.shape == (555_520, 2)
    assert solid.embeddings.numel() == 1_806_960 and flat.embeddings.numel() == 1_111_040
    assert solid.width == flat.width == 32
    assert solid.embeddings.abs().max() <= 1e-4
    assert list(solid.state_dict()) == ["embeddings"]


def one_point(grid, point, kind, base=16, finest=2048, log2_rows=16):
    """The specification, a number at a time."""
    levels, dimensions, features = len(grid.rows), len(point), grid.embeddings.shape[1]
    table, start, found = grid.embeddings.detach().numpy(), 0, []
    for level in range(levels):
        scale = base * (finest / base) ** (level / (levels - 1)) - 1
        side = ceil(scale - 1e-9) + 2
        rows = ceil(min(2**log2_rows, side**dimensions) / 8) * 8
        lower = [floor(value * scale + 0.5) for value in point]
        fraction = [value * scale + 0.5 - low for value, low in zip(point, lower, strict=True)]
        blended = np.zeros(features)
        for corner in range(2**dimensions):
            bits = [corner >> axis & 1 for axis in range(dimensions)]
            weight = np.prod([part if bit else 1 - part for part, bit in zip(fraction, bits, strict=True)])
            row, stride, mixed = 0, 1, 0
            for axis in range(dimensions):
                mixed ^= (lower[axis] + bits[axis]) * PRIMES[axis] % 2**32
                if stride <= rows:  # the release's loop ends here
                    row += (lower[axis] + bits[axis]) * stride
                    stride *= side
            if kind == "hashed" and stride > rows:
                row = mixed
            blended += weight * table[start + row % rows]
        found.append(blended)
        start += rows
    return np.concatenate(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_grid_against_the_specification(dimensions, kind):
    grid = Grid(dimensions, kind=kind).double()
    torch.nn.init.normal_(grid.embeddings)
    points = torch.cat((torch.rand(12, dimensions), torch.zeros(1, dimensions), torch.ones(1, dimensions))).double()
    expected = np.stack([one_point(grid, point, kind) for point in points.tolist()])
    assert np.allclose(grid(points).detach().numpy(), expected, atol=2e-3)  # the scales are float32: 2048 x 6e-8


def test_the_release_s_fine_levels_are_flat_and_hashed_ones_are_not():
    left, right = torch.tensor([[0.4, 0.5, 0.3]]), torch.tensor([[0.4, 0.5, 0.8]])
    tiled, hashed = Grid(3), Grid(3, kind="hashed")
    same = torch.isclose(tiled(left), tiled(right), rtol=1e-4, atol=0)[0].view(16, 2).all(1)
    assert same.tolist() == [resolution >= 295 for resolution in tiled.resolutions]
    assert not (hashed(left) == hashed(right)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_outside_is_zero_and_has_no_gradient(kind):
    grid = Grid(3, levels=4, kind=kind)
    points = torch.tensor([[-0.01, 0.5, 0.5], [0.5, 1.01, 0.5], [0.5, 0.5, 40.0], [0.0, 1.0, 0.5]], requires_grad=True)
    features = grid(points)
    assert (features[:3] == 0).all() and (features[3] != 0).all()
    features.sum().backward()
    assert (points.grad[:3] == 0).all() and (points.grad[3] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_gradients(dimensions, kind):
    grid = Grid(dimensions, levels=3, base=4, finest=11, log2_rows=5, kind=kind).double()
    torch.nn.init.normal_(grid.embeddings)
    points = torch.rand(6, dimensions, dtype=torch.float64, requires_grad=True)

    def features(points, embeddings):
        return torch.func.functional_call(grid, {"embeddings": embeddings}, (points,))

    assert torch.autograd.gradcheck(features, (points, grid.embeddings))


def test_no_points():
    assert Grid(2)(torch.zeros(0, 2)).shape == (0, 32)


def test_to_unit():
    assert to_unit(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 0.5, 1]
