import pytest
import torch

from models.radiance.fields import Field, density, mlp


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_size_of_the_published_field():
    # Two of them, the landmarks' encoder and its attention are the released head of 1,244,931 numbers.
    assert 2 * size(Field(127, 27)) + 49_600 + 3_643 == 1_244_931


@pytest.mark.parametrize(
    ("widths", "parameters"),
    [
        ((96, 128, 128, 2), 28_928),
        ((64, 128, 128, 129), 41_088),
        ((148, 128, 3), 19_328),
        ((104, 64, 64, 2), 10_880),
        ((136, 32, 32, 4), 5_504),
    ],
)
def test_sizes_of_the_published_small_networks(widths, parameters):
    network = mlp(widths)
    assert size(network) == parameters
    assert network(torch.zeros(2, widths[0])).abs().max() == 0  # no biases
    assert list(network.state_dict()) == [f"{2 * layer}.weight" for layer in range(len(widths) - 1)]


def test_the_small_networks_are_rectified_between_their_layers():
    network = mlp((2, 3, 1))
    x = torch.randn(5, 2)
    expected = (x @ network[0].weight.T).clamp(min=0) @ network[2].weight.T
    assert torch.allclose(network(x), expected, atol=1e-6)


def test_the_field_takes_its_input_twice_and_the_direction_for_the_colour_alone():
    torch.manual_seed(0)
    field = Field(7, 5, hidden=16, color_hidden=8)
    position, direction = torch.randn(4, 7), torch.randn(4, 5)
    hidden = position
    for index in range(8):
        layer = field.density_layers[index]
        given = torch.cat((position, hidden), 1) if index == 5 else hidden
        hidden = (given @ layer.weight.T + layer.bias).clamp(min=0)
    expected = (hidden @ field.density_out.weight.T + field.density_out.bias)[:, 0].clamp(min=0)
    color, sigma = field(position, direction)
    assert torch.allclose(sigma, expected, atol=1e-6)
    other_color, other_sigma = field(position, direction + 1)
    assert torch.equal(sigma, other_sigma) and not torch.equal(color, other_color)
    assert color.shape == (4, 3) and ((color > 0) & (color < 1)).all() and sigma.shape == (4,)


def test_density_is_an_exponential_whose_gradient_is_bounded():
    logarithm = torch.tensor([-40.0, -1.0, 0.0, 2.0, 15.0, 30.0], requires_grad=True)
    values = density(logarithm)
    assert torch.equal(values, logarithm.exp())
    values.sum().backward()
    assert torch.equal(logarithm.grad, logarithm.detach().clamp(-15, 15).exp())
    assert torch.autograd.gradcheck(density, (torch.randn(6, dtype=torch.float64, requires_grad=True),))


def test_density_of_half_precision_does_not_overflow():
    assert density(torch.tensor([14.0], dtype=torch.float16)).item() == pytest.approx(1_202_604, rel=1e-3)
