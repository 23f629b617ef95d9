"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.autoencoder.config import PRESETS as AUTOENCODERS
from models.difftalk.config import PRESETS
from models.difftalk.generate import load
from models.difftalk.network import DiffTalkUNet
from models.difftalk.official import DERIVED, block_names, convert, read_official, release_name
from models.released import NotTheRelease
from tests.models.autoencoder import reference as first_stage
from tests.models.difftalk import reference
from tests.models.difftalk.test_network import inputs
from tests.models.video_editing.reference import randomised

CONFIG = replace(PRESETS["release"], image_size=64, latent_size=16, channels=(32, 64, 96), attention_levels=(1, 2))
BELOW = replace(AUTOENCODERS["paper_256"], channels=(32, 32, 64), codes=64, crop=64)
LAYOUT = reference.unet_layout(32, (1, 2, 3), {1, 2})
BELOW_LAYOUT = {f"first_stage_model.{name}": shape for name, shape in first_stage.layout(32, (1, 1, 2), 2, 64).items()}
BETAS = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
TABLES = {name: torch.zeros(1000) for name in DERIVED} | {"alphas_cumprod": torch.tensor(np.cumprod(1 - BETAS)).float()}


@pytest.fixture(scope="module")
def averaged():
    """The U-Net's averaged copy, by the names of the plain one."""
    torch.manual_seed(1)
    return randomised(LAYOUT)


@pytest.fixture(scope="module")
def released(averaged):
    torch.manual_seed(0)
    state = randomised(LAYOUT | reference.condition_layout() | BELOW_LAYOUT) | TABLES
    state |= {reference.averaged(name): tensor for name, tensor in averaged.items()}
    return state | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int)}


def saved(path, state):
    torch.save({"state_dict": state, "epoch": 7, "optimizer_states": [{"state": {}}]}, path)
    return path


def without_average(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("model_ema.")}


def test_the_preset_has_the_tensors_of_the_release():
    shapes = reference.unet_layout(256, (1, 2, 3, 4), {1, 2, 3})
    assert len(shapes) == 688 and sum(torch.Size(shape).numel() for shape in shapes.values()) == 530_152_963
    assert len({reference.averaged(name) for name in shapes}) == len(shapes)
    config = PRESETS["release"]
    with torch.device("meta"):
        ours = DiffTalkUNet(config).state_dict()
    names = block_names(config)
    assert {
        release_name(name, names): tuple(tensor.shape) for name, tensor in ours.items()
    } == shapes | reference.condition_layout()


@pytest.mark.parametrize("has_average", [True, False])
def test_computes_what_the_release_does(tmp_path, released, averaged, has_average):
    state = released if has_average else without_average(released)
    convert(saved(tmp_path / "last.ckpt", state), CONFIG, BELOW, tmp_path / "checkpoint")
    network, autoencoder = load(tmp_path / "checkpoint")
    assert network.config == CONFIG and autoencoder.config == BELOW
    assert (tmp_path / "checkpoint" / "card.md").exists() and (tmp_path / "checkpoint" / "autoencoder" / "card.md").exists()

    # In double precision: in single, rounding alone comes to 1e-5.
    state = {name: tensor.double() for name, tensor in state.items()}
    unet = {name: tensor.double() for name, tensor in averaged.items()} if has_average else state
    unet = {name: tensor for name, tensor in unet.items() if name in LAYOUT}
    noisy, masked, at, step, audio, landmarks = (
        value.double() if value.is_floating_point() else value for value in inputs(CONFIG)
    )
    windows = torch.stack([audio[:, 2 * frame : 2 * frame + 16] for frame in range(8)], dim=1)
    network.double(), autoencoder.double()
    with torch.inference_mode():
        token = network.condition(audio, landmarks)
        assert (token - reference.condition(state, windows, landmarks)).abs().max() <= 1e-10
        ours = network(noisy, masked, at, step, network.biases(token))
        theirs = reference.u_net(unet, torch.cat([noisy, masked, at], dim=1), step, token, CONFIG.head_channels)
        # The embedding of the step is in single precision in both.
        assert ours.std() > 0.1 and (ours - theirs).abs().max() <= 1e-5
        below = {name.removeprefix("first_stage_model."): tensor for name, tensor in state.items()}
        below = {name: tensor for name, tensor in below.items() if f"first_stage_model.{name}" in BELOW_LAYOUT}
        assert (autoencoder.decode(noisy) - first_stage.decode(below, noisy)).abs().max() <= 1e-10


def test_one_key_s_softmax_leaves_no_use_for_queries(released, averaged):
    """Of the released network, and not of our folding of it."""
    torch.manual_seed(2)
    latents, step, token = torch.randn(1, 9, 16, 16), torch.tensor([500]), torch.randn(1, 128)
    dead = [name for name in LAYOUT if any(part in name for part in ("attn2.to_q", "attn2.to_k", ".norm2."))]
    assert len(dead) == 4 * 11
    scrambled = averaged | {name: torch.randn(LAYOUT[name]) for name in dead}
    one, other = (reference.u_net(weights, latents, step, token, 32) for weights in (averaged, scrambled))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda all_: all_.pop("model.diffusion_model.out.2.bias"), r"lacks model.diffusion_model.out.2.bias \(3,\)"),
        (lambda all_: all_.pop("model_ema.diffusion_modelout2bias"), r"lacks model_ema.diffusion_modelout2bias \(3,\)"),
        (lambda all_: all_.pop("first_stage_model.quant_conv.bias"), r"lacks first_stage_model.quant_conv.bias \(3,\)"),
        (lambda all_: all_.update({"cond_stage_model.lips": torch.zeros(1)}), "has cond_stage_model.lips, which is nowhere"),
        (
            lambda all_: all_.update({"cond_stage_model_for_audio.encoder_conv.0.weight": torch.zeros(32, 44, 3)}),
            r"has cond_stage_model_for_audio.encoder_conv.0.weight \(32, 44, 3\), not \(32, 29, 3\)",
        ),
        (
            lambda all_: all_.update({"alphas_cumprod": torch.linspace(1, 0, 200)}),
            r"trained with another noise schedule, of 200 steps.* of 1000 steps",
        ),
        (lambda all_: all_.update({"alphas_cumprod": torch.linspace(1, 0, 1000)}), "trained with another noise schedule"),
    ],
)
def test_differences_are_named(tmp_path, released, change, message):
    altered = dict(released)
    change(altered)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "altered.ckpt", altered), CONFIG, BELOW)


def test_of_another_preset_all_differences_are_named(tmp_path, released):
    file = saved(tmp_path / "last.ckpt", released)
    with pytest.raises(NotTheRelease, match="is not what the configuration says") as refused:
        read_official(file, PRESETS["sample"], BELOW)
    told = str(refused.value).splitlines()
    assert "has cond_stage_model_for_audio.encoder_conv.0.weight (32, 29, 3), not (32, 288, 3)" in told
    assert sum(line.startswith(("lacks", "has")) for line in told) > 100


def test_the_first_stage_alone_is_not_enough(tmp_path, released):
    state = {name.removeprefix("first_stage_model."): released[name] for name in BELOW_LAYOUT}
    with pytest.raises(NotTheRelease, match=r"lacks model.diffusion_model.input_blocks.0.0.weight \(32, 9, 3, 3\)"):
        read_official(saved(tmp_path / "model.ckpt", state), CONFIG, BELOW)


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


def test_nothing_in_the_file_runs(tmp_path, capsys, released):
    with pytest.raises(NotTheRelease, match="save its state dict alone"):
        read_official(saved(tmp_path / "bad.ckpt", released | {"betas": Dangerous()}), CONFIG, BELOW)
    assert "this ran" not in capsys.readouterr().out
