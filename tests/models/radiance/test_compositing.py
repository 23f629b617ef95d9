import math

import pytest
import torch

from models.radiance.compositing import STOP, composite, weights

COLORS = torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(0))
BACKGROUND = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))


def test_nothing_shows_the_background_exactly():
    shares, left = weights(torch.zeros(6, 5))
    assert (shares == 0).all() and (left == 1).all()
    assert torch.equal(composite(shares, left, COLORS, BACKGROUND), BACKGROUND)


@pytest.mark.parametrize("depth", [1e4, math.inf])
def test_an_opaque_first_sample_shows_its_colour_exactly(depth):
    depths = torch.rand(6, 5)
    depths[:, 0] = depth
    shares, left = weights(depths)
    assert torch.equal(composite(shares, left, COLORS, BACKGROUND), COLORS[:, 0])


def one_ray(depths, stop):
    """The specification, a sample at a time: weights, and the light that is left."""
    light, found = 1.0, []
    for index, depth in enumerate(depths):
        alpha = 1 - math.exp(-depth)
        found.append(light * alpha)
        light *= 1 - alpha
        if light < stop:
            return found + [0.0] * (len(depths) - index - 1), light
    return found, light


@pytest.mark.parametrize("stop", [0.0, STOP, 0.2])
def test_weights_against_the_specification(stop):
    depths = 3 * torch.rand(50, 8, dtype=torch.float64) ** 2
    shares, left = weights(depths, stop)
    for row, ray in enumerate(depths.tolist()):
        expected, light = one_ray(ray, stop)
        assert shares[row].tolist() == pytest.approx(expected, abs=1e-12)
        assert left[row].item() == pytest.approx(light, abs=1e-12)
    assert torch.allclose(shares.sum(1) + left, torch.ones(50, dtype=torch.float64))


def test_what_is_left_and_the_weights_are_one_in_single_precision_too():
    depths = 10 ** (6 * torch.rand(1000, 16) - 5)
    shares, left = weights(depths, STOP)
    assert torch.allclose(shares.sum(1) + left, torch.ones(1000), atol=1e-6)


def test_gradients():
    depths = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    colors = torch.rand(3, 4, 3, dtype=torch.float64, requires_grad=True)
    background = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)

    def painted(depths, colors, background):
        return composite(*weights(depths, STOP), colors, background)

    assert torch.autograd.gradcheck(painted, (depths, colors, background))


def test_an_endless_depth_has_finite_gradients():
    depths = torch.tensor([[0.5, math.inf, 1.0]], requires_grad=True)
    shares, left = weights(depths)
    (shares.sum() + left.sum() + shares[0, 0]).backward()
    assert depths.grad.isfinite().all()
