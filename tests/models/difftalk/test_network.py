from dataclasses import replace

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor

from models.difftalk.config import PRESETS
from models.difftalk.network import DiffTalkUNet

CONFIG = replace(
    PRESETS["release"], image_size=64, latent_size=16, channels=(32, 64), res_blocks=1, attention_levels=(1,), head_channels=32
)
SAMPLE = replace(PRESETS["sample"], image_size=64, latent_size=16, channels=(32, 64), audio_width=24)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(config):
    """A network whose every weight matters, none being zero or one."""
    network = DiffTalkUNet(config).eval()
    for name, parameter in network.named_parameters():
        is_norm = "norm" in name and name.endswith("weight")
        std = 0.3 if parameter.ndim == 1 else 0.7 / parameter[0].numel() ** 0.5
        torch.nn.init.normal_(parameter, mean=float(is_norm), std=std)
    return network


def inputs(config, count=2):
    """Noisy, masked, reference, step, audio, landmarks."""
    size = config.latent_size
    return (
        *torch.randn(3, count, config.latent_channels, size, size),
        torch.randint(config.train_timesteps, (count,)),
        torch.randn(count, 30, config.audio_width),
        torch.randn(count, 39, 2) * config.landmark_std + config.landmark_mean,
    )


def output(network, noisy, masked, reference, step, audio, landmarks):
    with torch.inference_mode():
        return network(noisy, masked, reference, step, network.biases(network.condition(audio, landmarks)))


def blocks(network):
    return [module for module in network.modules() if isinstance(module, BasicTransformerBlock)]


def test_sizes_of_the_released_networks():
    with torch.device("meta"):
        network = DiffTalkUNet(PRESETS["release"])
    sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    assert sizes == {"unet": 530_152_963, "audio_encoder": 32_800, "audio_attention": 2_149, "landmark_encoder": 22_528}
    assert len(blocks(network)) == 16


def test_what_cannot_matter_is_not_trained():
    network = DiffTalkUNet(CONFIG)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert len(frozen) == 4 * len(blocks(network))
    values = inputs(CONFIG)
    network(*values[:4], network.biases(network.condition(*values[4:]))).square().mean().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in network.named_parameters()} - frozen


@pytest.mark.parametrize("config", [CONFIG, SAMPLE], ids=["release", "sample"])
@pytest.mark.parametrize("index", range(6))
def test_every_input_reaches_the_output(config, index):
    network, values = randomised(config), list(inputs(config, count=1))
    before = output(network, *values)
    assert before.shape == values[0].shape
    values[index] = values[index] // 2 + 1 if index == 3 else values[index] * 0.5
    assert not torch.equal(before, output(network, *values))


@pytest.mark.parametrize("config", [CONFIG, SAMPLE], ids=["release", "sample"])
def test_biases_are_what_attention_to_the_token_gives(config):
    """diffusers' own attention, with queries, keys and softmax, on one token."""
    network = randomised(config)
    with torch.inference_mode():
        token_BE = network.condition(*inputs(config)[4:])
        biases_B1K = network.biases(token_BE)
        start = 0
        for block in blocks(network.unet):
            width = block.attn2.out_dim
            plain = AttnProcessor()(block.attn2, torch.randn(2, 9, width), token_BE[:, None])
            ours = biases_B1K[..., start : start + width]
            assert plain.std() > 0.1 and (plain - ours).abs().max() <= 1e-5
            start += width
        assert start == biases_B1K.shape[-1]


def test_the_network_computes_what_plain_attention_does():
    network, values = randomised(CONFIG), inputs(CONFIG)
    ours = output(network, *values)
    for block in blocks(network):
        block.attn2.set_processor(AttnProcessor())
    with torch.inference_mode():
        theirs = network(*values[:4], network.condition(*values[4:])[:, None])
    assert ours.std() > 0.1 and (ours - theirs).abs().max() <= 1e-5


def test_queries_keys_and_the_norm_before_them_change_nothing():
    network, values = randomised(CONFIG), inputs(CONFIG)
    before = output(network, *values)
    for block in blocks(network):
        for unused in (block.norm2, block.attn2.to_q, block.attn2.to_k):
            for parameter in unused.parameters():
                torch.nn.init.normal_(parameter, std=10.0)
    assert torch.equal(output(network, *values), before)


def test_examples_of_a_batch_do_not_mix():
    network, values = randomised(CONFIG), inputs(CONFIG, count=3)
    together = output(network, *values)
    for index in range(3):
        alone = output(network, *(value[index : index + 1] for value in values))
        assert torch.allclose(together[index], alone[0], atol=1e-5)


def test_audio_and_landmarks_are_normalised():
    plain = replace(CONFIG, audio_mean=0.0, audio_std=1.0)
    network, audio, landmarks = randomised(plain), torch.randn(2, 30, 29), torch.randn(2, 39, 2)
    with torch.inference_mode():
        expected = network.condition(audio, landmarks)
        network.config = replace(plain, audio_mean=-50.0, audio_std=20.0, landmark_mean=64.0, landmark_std=32.0)
        assert torch.allclose(network.condition(audio * 20 - 50, landmarks * 32 + 64), expected, atol=1e-4)
