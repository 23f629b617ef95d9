"""The network against the specification's figures, and against what it promises of flow, masks and lengths."""

from dataclasses import replace

import pytest
import torch

from models.motion.config import PRESETS
from models.motion.network import MotionVAE
from models.motion.training import divergence
from tests.models.motion.corpus import CONFIG, WIDTH, randomised

Z = CONFIG.latent_channels


def inputs(frames, batch=2, seed=1):
    """Motion, speech, mask."""
    torch.manual_seed(seed)
    return torch.randn(batch, frames, 204), torch.randn(batch, 2 * frames, WIDTH), torch.ones(batch, frames, dtype=torch.bool)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Specification §1.3, §13
def test_sizes_of_the_release():
    with torch.device("meta"):
        network = MotionVAE(PRESETS["lrs3"])
    parts = (network.ear, network.squeeze, network.encoder, network.decoder, network.flow)
    assert [size(part) for part in parts] == [209_024, 32_832, 6_938_400, 3_292_108, 655_136]
    assert size(network) == 11_127_500


def test_what_the_other_priors_do_without():
    sizes = []
    for prior in ("flow", "gaussian", "none"):
        with torch.device("meta"):
            sizes.append(size(MotionVAE(replace(PRESETS["lrs3"], prior=prior))))
    assert sizes == [11_127_500, 11_127_500 - 655_136, 209_024 + 3_292_108]


@pytest.mark.parametrize("frames", [4, 8, 44])
@pytest.mark.parametrize("prior", ["flow", "gaussian"])
def test_a_latent_for_each_four_frames(frames, prior):
    network = randomised(replace(CONFIG, prior=prior))
    motion, speech, mask = inputs(frames)
    mean, log_std = network.encode(motion, speech, mask)
    assert mean.shape == log_std.shape == (2, Z, frames // 4)
    noise = network.prior(mean, speech)
    assert torch.equal(noise, mean) == (prior == "gaussian")
    assert (network.prior_inverse(noise, speech) - mean).abs().max() < 1e-5
    assert network.decode(mean, speech, mask).shape == motion.shape
    assert torch.equal(network.sample(noise, speech, mask), network.decode(network.prior_inverse(noise, speech), speech, mask))


def test_an_untrained_flow_is_the_identity():
    network, z = MotionVAE(CONFIG).eval(), torch.randn(2, Z, 5)
    assert torch.equal(network.prior(z, torch.randn(2, 40, WIDTH)), z)


def test_the_flow_changes_no_volume():
    network = randomised(replace(CONFIG, flow_steps=3)).double()
    speech, z = torch.randn(1, 16, WIDTH).double(), torch.randn(Z * 2).double()
    jacobian = torch.func.jacrev(lambda flat: network.prior(flat.view(1, Z, 2), speech).flatten())(z)
    assert not torch.allclose(jacobian.abs(), jacobian.abs().round(), atol=1e-2), "it does something"
    assert torch.linalg.slogdet(jacobian).logabsdet.abs() < 1e-10


def test_only_the_first_of_a_frame_s_two_rows_is_heard():
    network = randomised(CONFIG)
    motion, speech, mask = inputs(8)
    before = network(motion, speech, mask, torch.Generator().manual_seed(0)).motion
    speech[:, 1::2] += 1
    assert torch.equal(network(motion, speech, mask, torch.Generator().manual_seed(0)).motion, before)
    speech[:, 4] += 1
    assert not torch.equal(network(motion, speech, mask, torch.Generator().manual_seed(0)).motion, before)


def test_what_is_masked_is_zero_and_far_padding_changes_nothing():
    network = randomised(CONFIG)
    motion, speech, mask = inputs(60)
    mask[0, 30:] = False
    z = torch.randn(2, Z, 15)
    made = network.decode(z, speech, mask)
    assert not made[0, 30:].any() and made[0, :30].abs().min() > 0
    alone = network.decode(z[:1, :, :8], speech[:1, :64], mask[:1, :32])
    assert torch.allclose(made[0, :26], alone[0, :26], atol=1e-5), "masks are not airtight near the end, where sound leaks in"
    changed = motion.clone()
    changed[0, 50:] += 9
    for ours, theirs in zip(network.encode(motion, speech, mask), network.encode(changed, speech, mask), strict=True):
        assert torch.equal(ours[0, :, :8], theirs[0, :, :8])


# §1.3: 17 frames of the decoder's four layers of kernel 5, where the dilation is 1 as in the release
@pytest.mark.parametrize("rate, frames", [(1, 8), (2, 2 * 15)])
def test_how_far_the_decoder_sees(rate, frames):
    network = randomised(replace(CONFIG, decoder_layers=4, dilation_rate=rate)).double()
    _, speech, mask = inputs(160, batch=1)
    speech, z = speech.double(), torch.randn(1, Z, 40).double()
    changed = z.clone()
    changed[:, :, 20] += 1  # frames 80 … 83
    reached = (network.decode(z, speech, mask) - network.decode(changed, speech, mask))[0].abs().amax(1) > 0
    assert reached.nonzero().flatten()[[0, -1]].tolist() == [80 - frames, 83 + frames]


def test_divergence_of_the_prior_from_itself_is_nothing():
    torch.manual_seed(0)
    network = MotionVAE(CONFIG).eval()
    torch.nn.init.zeros_(network.encoder.out.weight)
    torch.nn.init.zeros_(network.encoder.out.bias)
    motion, speech, mask = inputs(400, batch=8)
    assert divergence(network(motion, speech, mask), mask).abs() < 1e-6, "the flow is the identity, and z its own noise"


def test_divergence_is_that_of_two_gaussians():
    """Its mean over samples, without a flow: KL(N(μ, σ) || N(0, 1)) in closed form."""
    network = randomised(replace(CONFIG, prior="gaussian"))
    motion, speech, mask = inputs(8)
    mask[1, 4:] = False
    with torch.inference_mode():
        many = [tensor.repeat(1000, 1, 1) if tensor.ndim == 3 else tensor.repeat(1000, 1) for tensor in (motion, speech, mask)]
        sampled = divergence(network(*many, torch.Generator().manual_seed(0)), many[2])
        mean, log_std = network.encode(motion, speech, mask)
    exact = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
    exact = (exact[0].sum() + exact[1, :, :1].sum()) / (3 * Z)
    assert sampled.item() == pytest.approx(exact.item(), rel=0.05) and exact > 0.1


def test_a_regressor_has_nothing_to_draw():
    network = randomised(replace(CONFIG, prior="none"))
    motion, speech, mask = inputs(8)
    made = network(motion, speech, mask)
    assert not made.z.any() and divergence(made, mask) == 0
    noise = torch.randn(2, Z, 2)
    assert torch.equal(network.sample(noise, speech, mask), made.motion)
    with pytest.raises(ValueError, match="regressor"):
        network.encode(motion, speech, mask)


def test_latents_are_drawn_by_the_generator():
    network, (motion, speech, mask) = randomised(CONFIG), inputs(8)
    first, again, other = (network(motion, speech, mask, torch.Generator().manual_seed(seed)).z for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    mean, log_std = network.encode(motion, speech, mask)
    epsilon = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(first, mean + epsilon * log_std.exp(), atol=1e-6)
