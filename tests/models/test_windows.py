"""AD-NeRF's encoder of windows and its attention to neighbouring ones, against the numbers of the papers that use them."""

import pytest
import torch
import torch.nn.functional as F

from models.windows import CODE, STRIDES, WindowAttention, WindowEncoder


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (WindowEncoder(204, 1), 49_600),  # geneface.md §4.2
        (WindowEncoder(29, 16), 32_800),  # difftalk.md
        (WindowAttention(5, 64), 3_643),  # geneface.md §4.2
        (WindowAttention(8, 32), 2_149),  # difftalk.md
    ],
    ids=["landmarks", "letters", "of 5 landmarks", "of 8 sounds"],
)
def test_sizes_of_the_released_networks(module, count):
    assert parameters(module) == count


def test_tensors_are_named_and_shaped_as_those_of_the_releases():
    """official_checkpoints.md §4.5, N(204) and S(5)."""
    encoder = {name: tuple(tensor.shape) for name, tensor in WindowEncoder(204, 1).state_dict().items()}
    assert encoder == {
        **{"convolutions.0.weight": (32, 204, 3), "convolutions.0.bias": (32,)},
        **{"convolutions.2.weight": (32, 32, 3), "convolutions.2.bias": (32,)},
        **{"convolutions.4.weight": (64, 32, 3), "convolutions.4.bias": (64,)},
        **{"convolutions.6.weight": (64, 64, 3), "convolutions.6.bias": (64,)},
        **{f"linear.{index}.{kind}": shape for index in (0, 2) for kind, shape in (("weight", (64, 64)), ("bias", (64,)))},
    }
    attention = {name: tuple(tensor.shape) for name, tensor in WindowAttention(5, 64).state_dict().items()}
    widths = (64, 16, 8, 4, 2, 1)
    convolutions = [f"convolutions.{index}" for index in (0, 2, 4, 6, 8)]
    expected = {"linear.weight": (5, 5), "linear.bias": (5,)}
    for name, before, after in zip(convolutions, widths, widths[1:], strict=False):
        expected |= {f"{name}.weight": (after, before, 3), f"{name}.bias": (after,)}
    assert attention == expected


@pytest.mark.parametrize("rows", STRIDES)
def test_windows_of_every_length_become_one_code_to_which_every_row_contributes(rows):
    torch.manual_seed(0)
    encoder, windows = WindowEncoder(6, rows), torch.randn(3, rows, 6)
    windows.requires_grad_()
    codes = encoder(windows)
    assert codes.shape == (3, CODE) and encoder.convolutions(windows.movedim(1, 2)).shape == (3, CODE, 1)
    codes[1].sum().backward()
    assert (windows.grad[1].abs().amax(1) > 0).all() and not windows.grad[[0, 2]].any()


def test_an_encoder_computes_what_the_layout_says():
    """Leaky ReLU of 0.02 after every convolution and between the two linear layers."""
    torch.manual_seed(0)
    encoder, windows = WindowEncoder(6, 8), torch.randn(3, 8, 6)
    w, x = encoder.state_dict(), windows.transpose(1, 2)
    for index, stride in ((0, 2), (2, 2), (4, 2), (6, 1)):
        x = F.leaky_relu(F.conv1d(x, w[f"convolutions.{index}.weight"], w[f"convolutions.{index}.bias"], stride, 1), 0.02)
    x = F.leaky_relu(x[..., 0] @ w["linear.0.weight"].T + w["linear.0.bias"], 0.02)
    assert torch.allclose(encoder(windows), x @ w["linear.2.weight"].T + w["linear.2.bias"], atol=1e-6)


def test_attention_computes_what_the_layout_says():
    torch.manual_seed(0)
    attention, codes = WindowAttention(5, 32), 3 * torch.randn(2, 5, CODE)
    w, x = attention.state_dict(), codes[..., :32].transpose(1, 2)
    for index in (0, 2, 4, 6, 8):
        x = F.leaky_relu(F.conv1d(x, w[f"convolutions.{index}.weight"], w[f"convolutions.{index}.bias"], 1, 1), 0.02)
    weights = (x[:, 0] @ w["linear.weight"].T + w["linear.bias"]).softmax(1)
    assert torch.allclose(attention(codes), torch.einsum("bf,bfe->be", weights, codes), atol=1e-5)


def test_attention_to_equal_codes_is_that_code():
    attention, code = WindowAttention(5, 64), torch.randn(2, 1, CODE)
    assert torch.allclose(attention(code.expand(2, 5, CODE)), code[:, 0], atol=1e-5)
