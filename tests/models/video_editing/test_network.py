from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D

from models.video_editing.config import PRESETS
from models.video_editing.network import VideoEditingUNet
from tests.models.video_editing.corpus import CONFIG

SPEECH = replace(CONFIG, audio="speech", audio_width=24, speech_encoder="moonshine-tiny")


def randomised(config):
    """A network whose every weight matters, none being zero or one."""
    network = VideoEditingUNet(config).eval()
    for name, parameter in network.named_parameters():
        is_norm = "norm" in name and name.endswith("weight")
        std = 0.3 if parameter.ndim == 1 else 0.7 / parameter[0].numel() ** 0.5
        torch.nn.init.normal_(parameter, mean=float(is_norm), std=std)
    return network


def inputs(config, count=2):
    images = torch.rand(3, count, 3, config.image_size, config.image_size) * 2 - 1
    return *images, torch.randn(count, 4 * config.audio_width), torch.rand(count)


@pytest.mark.parametrize(
    "preset, parameters, audio, residual_blocks, attention_blocks",
    [("multi_speaker", 13_698_691, 1_775_616, 21, 6), ("single_speaker", 66_655_619, None, 28, 1)],
)
def test_size_of_the_released_networks(preset, parameters, audio, residual_blocks, attention_blocks):
    with torch.device("meta"):
        network = VideoEditingUNet(PRESETS[preset])
    assert sum(p.numel() for p in network.parameters()) == parameters
    if audio:
        assert sum(p.numel() for name, p in network.named_parameters() if "audio" in name) == audio
    assert sum(isinstance(m, ResnetBlock2D) for m in network.modules()) == residual_blocks
    assert sum(isinstance(m, Attention) for m in network.modules()) == attention_blocks


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("config", [CONFIG, SPEECH], ids=["mel", "speech"])
def test_every_input_reaches_the_output(config, index):
    network, values = randomised(config), list(inputs(config, count=1))
    with torch.inference_mode():
        before = network(*values)
        values[index] = values[index] * 0.5
        assert not torch.equal(before, network(*values))


def test_patches_keep_the_size_of_the_image():
    assert CONFIG.patch == 2
    with torch.inference_mode():
        output = VideoEditingUNet(CONFIG)(*inputs(CONFIG))
    assert output.shape == (2, 3, 32, 32) and not output.any(), "an untrained network gives zeros"


def test_audio_is_normalised():
    config = replace(PRESETS["multi_speaker"], image_size=16, channels=(32, 32), head_channels=32, attention_levels=())
    network = randomised(config)
    *others, mel, gamma = inputs(config, count=1)
    with torch.inference_mode():
        expected = network(*others, mel, gamma)
        network.config = replace(config, audio_mean=-50.0, audio_std=20.0)
        assert torch.allclose(network(*others, mel * 20 - 50, gamma), expected, atol=1e-5)
