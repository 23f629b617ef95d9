"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

from dataclasses import replace

import pytest
import torch

from models.video_editing.config import PRESETS
from models.video_editing.generate import load
from models.video_editing.network import VideoEditingUNet
from models.video_editing.official import NotTheRelease, block_names, convert, read_official, release_name, release_shape
from tests.models.video_editing import reference
from tests.models.video_editing.test_network import inputs

MULTI = replace(PRESETS["multi_speaker"], image_size=32, channels=(32, 64, 96), head_channels=32)
SINGLE = replace(PRESETS["single_speaker"], image_size=32, channels=(32, 64, 128, 256), head_channels=64)
SCHEDULE = ("gammas", "sqrt_recip_gammas", "sqrt_recipm1_gammas", "posterior_log_variance_clipped")
TABLES = {name: torch.rand(1000) for name in (*SCHEDULE, "posterior_mean_coef1", "posterior_mean_coef2")}


@pytest.fixture(scope="module")
def released():
    torch.manual_seed(0)
    return reference.randomised(reference.layout(32, (1, 2, 3), {2}))


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "preset, multipliers, attends, tensors, parameters",
    [("multi_speaker", (1, 2, 3), {2}, 324, 13_698_691), ("single_speaker", (1, 2, 4, 8), set(), 386, 66_655_619)],
)
def test_presets_have_the_tensors_of_the_release(preset, multipliers, attends, tensors, parameters):
    shapes = reference.layout(64, multipliers, attends)
    assert len(shapes) == tensors
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters
    with torch.device("meta"):
        ours = VideoEditingUNet(PRESETS[preset]).state_dict()
    names = block_names(PRESETS[preset])
    assert {release_name(name, names): release_shape(name, tuple(tensor.shape)) for name, tensor in ours.items()} == shapes


@pytest.mark.parametrize("config, multipliers, attends", [(MULTI, (1, 2, 3), {2}), (SINGLE, (1, 2, 4, 8), set())])
def test_computes_what_the_release_does(tmp_path, config, multipliers, attends):
    torch.manual_seed(1)
    weights = reference.randomised(reference.layout(32, multipliers, attends))
    convert(saved(tmp_path / "735_Network.pth", weights | TABLES), config, tmp_path / "checkpoint")
    network = load(tmp_path / "checkpoint")
    assert network.config == config
    noisy, previous, identity, mel, gamma = inputs(config)
    with torch.inference_mode():
        ours = network(noisy, previous, identity, mel, gamma)
        images = torch.cat([noisy, previous, identity], dim=1)
        theirs = reference.u_net(weights, images, gamma, mel, config.head_channels)
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5


def test_the_averaged_copy_converts_too(tmp_path, released):
    network = read_official(saved(tmp_path / "735_Network_ema.pth", released), MULTI)
    assert torch.equal(network.unet.conv_in.weight, released["denoise_fn.input_blocks.0.0.weight"])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda all_: all_.pop("denoise_fn.out.2.bias"), r"lacks denoise_fn.out.2.bias \(3,\)"),
        (
            lambda all_: all_.pop("denoise_fn.middle_block.1.qkv.weight"),
            r"lacks denoise_fn.middle_block.1.qkv.weight \(288, 96, 1\)",
        ),
        (lambda all_: all_.update({"denoise_fn.lips": torch.zeros(1)}), "has denoise_fn.lips, which is nowhere"),
        (
            lambda all_: all_.update({"denoise_fn.audio_cond_embed.0.weight": torch.zeros(128, 1280)}),
            r"has denoise_fn.audio_cond_embed.0.weight \(128, 1280\), not \(128, 1024\)",
        ),
    ],
)
def test_differences_are_named(tmp_path, released, change, message):
    altered = dict(released)
    change(altered)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "altered.pth", altered), MULTI)


def test_all_differences_are_named(tmp_path, released):
    with pytest.raises(NotTheRelease) as refused:
        read_official(saved(tmp_path / "small.pth", released), replace(MULTI, channels=(32, 64), attention_levels=()))
    assert sum(line.startswith(("lacks", "has")) for line in str(refused.value).splitlines()) > 100


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("content", [{"epoch": 735, "optimizers": [{}]}, [torch.zeros(1)]])
def test_another_file_of_the_release_is_refused(tmp_path, content):
    with pytest.raises(NotTheRelease, match=r"take <epoch>_Network\.pth"):
        read_official(saved(tmp_path / "735.state", content), MULTI)


def test_nothing_in_the_file_runs(tmp_path, capsys):
    with pytest.raises(NotTheRelease, match="save its state dict alone"):
        read_official(saved(tmp_path / "bad.pth", {"denoise_fn.out.2.bias": Dangerous()}), MULTI)
    assert "this ran" not in capsys.readouterr().out
    (tmp_path / "short.pth").write_bytes((saved(tmp_path / "whole.pth", {"a": torch.zeros(9)})).read_bytes()[:-40])
    with pytest.raises(NotTheRelease, match="damaged"):
        read_official(tmp_path / "short.pth", MULTI)
