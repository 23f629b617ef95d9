from dataclasses import replace

import pytest
import torch

from models.autoencoder.config import PRESETS
from models.autoencoder.network import Autoencoder, PatchDiscriminator
from tests.models.autoencoder.corpus import CONFIG


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(count=2, size=16):
    return torch.rand(count, 3, size, size) * 2 - 1


def test_size_of_the_released_network():
    with torch.device("meta"):
        network = Autoencoder(PRESETS["paper_256"])
    assert sum(parameter.numel() for parameter in network.parameters()) == 55_322_782


@pytest.mark.parametrize(
    "patch, channels, latent_channels", [(1, (32, 32, 64), 3), (2, (32, 32), 3), (4, (32,), 3), (4, (32, 64), 4)]
)
def test_latents_are_smaller_by_the_factor(patch, channels, latent_channels):
    config = replace(CONFIG, patch=patch, channels=channels, latent_channels=latent_channels)
    network = Autoencoder(config).eval()
    height, width = 4 * config.factor, 6 * config.factor
    with torch.inference_mode():
        latents = network.encode(torch.rand(2, 3, height, width))
        assert latents.shape == (2, latent_channels, 4, 6)
        assert network.decode(latents).shape == (2, 3, height, width)


def test_codes_are_the_nearest_and_decoding_quantises():
    network = Autoencoder(CONFIG).eval()
    network.draw_codes(network.encode(images()))
    latents = network.encode(images(3))
    codes, distance = network.quantise(latents)
    codebook = network.vq.quantize.embedding.weight
    pixels, coded = (x.movedim(1, -1).reshape(-1, 3) for x in (latents, codes))
    nearest = torch.cdist(pixels, codebook).argmin(1)
    assert torch.allclose(coded, codebook[nearest], atol=1e-6) and len(nearest.unique()) > 4
    # VQ-VAE's two terms (van den Oord et al., arXiv 1711.00937, eq. 3), the one with beta 0.25.
    assert distance.item() == pytest.approx(1.25 * (pixels - codebook[nearest]).square().mean().item(), rel=1e-4)
    assert torch.allclose(network.decode(latents), network.render(codes), atol=1e-6)
    assert torch.allclose(network.decode(codes.detach()), network.render(codes), atol=1e-5), "codes are their own codes"


def test_gradients_pass_straight_through_the_codes():
    network = Autoencoder(CONFIG)
    latents = network.encode(images()).detach().requires_grad_()
    weights = torch.randn_like(latents)
    (network.quantise(latents)[0] * weights).sum().backward()
    assert torch.allclose(latents.grad, weights)


def test_codes_are_drawn_from_the_latents():
    network = Autoencoder(CONFIG)
    latents = network.encode(images(4)).detach()
    network.draw_codes(latents)
    codebook = network.vq.quantize.embedding.weight
    pixels = latents.movedim(1, -1).reshape(-1, 3)
    nearest = torch.cdist(codebook, pixels)
    assert nearest.min(1).values.max() < 0.02 * pixels.std()
    assert len(nearest.argmin(1).unique()) > CONFIG.codes // 2
    assert codebook.requires_grad


def test_more_codes_than_latent_pixels_are_no_twins():
    network = Autoencoder(replace(CONFIG, codes=100))
    network.draw_codes(network.encode(images(1)).detach())
    codebook = network.vq.quantize.embedding.weight
    assert torch.pdist(codebook).min() > 0


@pytest.mark.parametrize("patch, channels", [(2, (32, 32)), (1, (32, 64))])
def test_standardising_moves_the_latents_and_not_the_images(patch, channels):
    network, seen = Autoencoder(replace(CONFIG, patch=patch, channels=channels)).eval(), images(4)
    with torch.no_grad():
        network.vq.quant_conv.weight *= 7.0
        network.vq.quant_conv.bias += torch.tensor([3.0, -2.0, 1.0])
        before = network.encode(seen)
        network.draw_codes(before)
        decoded = network.decode(before)
        mean = before.mean((0, 2, 3))
        scale = (before - mean[:, None, None]).square().mean().sqrt()
        network.standardise(mean, float(scale))
        after = network.encode(seen)
        assert (network.decode(after) - decoded).abs().max() <= 1e-5
    assert mean.abs().max() > 1 and decoded.std() > 0.01
    assert torch.allclose(after, (before - mean[:, None, None]) / scale, atol=1e-5)
    assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert after.square().mean().item() == pytest.approx(1, abs=1e-5)


def test_the_discriminator_judges_patches():
    """30 x 30 of them in 256²; each of 70² pixels (pix2pix §6.1.2)."""
    network = PatchDiscriminator().eval()
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1) + 64 + 1  # biases where no norm follows
    norms = 2 * (128 + 256 + 512)
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + norms
    image = torch.zeros(1, 3, 256, 256, requires_grad=True)
    logits = network(image)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70
