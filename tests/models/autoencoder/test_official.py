"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from models.autoencoder.config import PRESETS
from models.autoencoder.generate import load
from models.autoencoder.network import Autoencoder
from models.autoencoder.official import convert, layout, read_official, release_name
from models.released import NotTheRelease
from tests.models.autoencoder import reference
from tests.models.video_editing.reference import randomised

CONFIG = replace(PRESETS["paper_256"], channels=(32, 64, 96), codes=64, crop=32)


@pytest.fixture(scope="module")
def released():
    torch.manual_seed(0)
    return randomised(reference.layout(32, (1, 2, 3), 2, 64))


def saved(path, content):
    torch.save(content, path)
    return path


def test_the_preset_has_the_tensors_of_the_release():
    shapes = reference.layout(128, (1, 2, 4), 2, 8192)
    assert len(shapes) == 205 and sum(torch.Size(shape).numel() for shape in shapes.values()) == 55_322_782
    with torch.device("meta"):
        network = Autoencoder(PRESETS["paper_256"])
    assert sum(parameter.numel() for parameter in network.parameters()) == 55_322_782
    assert layout(network) == shapes


def test_names_are_those_of_diffusers_own_conversion():
    with torch.device("meta"):
        network = Autoencoder(CONFIG)
    ours = {name: release_name(name, 3) for name in network.vq.state_dict()}
    tags = list(ours.values())  # each tensor holds the place of its own name
    theirs = convert_ldm_vae_checkpoint({name: torch.tensor(tag) for tag, name in enumerate(tags)}, network.vq.config)
    assert {name: tags[tag] for name, tag in theirs.items()} | {"quantize.embedding.weight": "quantize.embedding.weight"} == ours


def test_computes_what_the_release_does(tmp_path, released):
    losses = {"loss.perceptual_loss.net.slice1.0.weight": torch.zeros(1), "loss.discriminator.main.0.bias": torch.zeros(64)}
    content = {"state_dict": released | losses, "epoch": 7, "optimizer_states": [{"state": {}}]}
    convert(saved(tmp_path / "model.ckpt", content), CONFIG, tmp_path / "checkpoint")
    network = load(tmp_path / "checkpoint")
    assert network.config == CONFIG
    # In double precision: in single, rounding alone comes to 1e-5.
    network, weights = network.double(), {name: tensor.double() for name, tensor in released.items()}
    images = torch.rand(2, 3, 32, 32, dtype=torch.double) * 2 - 1
    with torch.inference_mode():
        latents, theirs = network.encode(images), reference.encode(weights, images)
        assert latents.shape == (2, 3, 8, 8) and latents.std() > 0.1
        assert (latents - theirs).abs().max() <= 1e-10
        ours, theirs = network.decode(latents), reference.decode(weights, latents)
        assert ours.shape == images.shape and ours.std() > 0.1
        assert (ours - theirs).abs().max() <= 1e-10


def test_a_file_of_lightning_1_2_is_read(tmp_path, monkeypatch, released):
    """Its callbacks' states have classes for keys, of a library that need not be installed."""
    module = ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    written_by = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = written_by
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    file = saved(tmp_path / "model.ckpt", {"state_dict": released, "callbacks": {written_by: {"best_model_path": "a.ckpt"}}})
    monkeypatch.undo()
    network = read_official(file, CONFIG)
    assert torch.equal(network.vq.quantize.embedding.weight, released["quantize.embedding.weight"])
    assert "pytorch_lightning" not in sys.modules


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda all_: all_.pop("quant_conv.bias"), r"lacks quant_conv.bias \(3,\)"),
        (lambda all_: all_.pop("decoder.mid.attn_1.q.weight"), r"lacks decoder.mid.attn_1.q.weight \(96, 96, 1, 1\)"),
        (lambda all_: all_.pop("decoder.up.2.upsample.conv.bias"), r"lacks decoder.up.2.upsample.conv.bias \(96,\)"),
        (lambda all_: all_.update({"encoder.lips": torch.zeros(1)}), "has encoder.lips, which is nowhere"),
        (
            lambda all_: all_.update({"quantize.embedding.weight": torch.zeros(64, 4)}),
            r"has quantize.embedding.weight \(64, 4\), not \(64, 3\)",
        ),
    ],
)
def test_differences_are_named(tmp_path, released, change, message):
    altered = dict(released)
    change(altered)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "altered.ckpt", {"state_dict": altered}), CONFIG)


def test_of_another_preset_all_differences_are_named(tmp_path, released):
    file = saved(tmp_path / "model.ckpt", {"state_dict": released})
    with pytest.raises(NotTheRelease, match="is not what the configuration says") as refused:
        read_official(file, PRESETS["sample"])
    told = str(refused.value).splitlines()
    assert "has encoder.conv_in.weight (32, 3, 3, 3), not (64, 48, 3, 3)" in told
    assert sum(line.startswith(("lacks", "has")) for line in told) > 100


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize(
    "content", [{}, [torch.zeros(1)], {"state_dict": [1]}, {"state_dict": {"a": 1}}, {"state_dict": {1: torch.zeros(1)}}]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    with pytest.raises(NotTheRelease, match="no dictionary of tensors under `state_dict`"):
        read_official(saved(tmp_path / "model.ckpt", content), CONFIG)


def test_nothing_in_the_file_runs(tmp_path, capsys, released):
    with pytest.raises(NotTheRelease, match="save its state dict alone"):
        read_official(saved(tmp_path / "bad.ckpt", {"state_dict": released, "callbacks": Dangerous()}), CONFIG)
    assert "this ran" not in capsys.readouterr().out
    (tmp_path / "short.ckpt").write_bytes(
        saved(tmp_path / "whole.ckpt", {"state_dict": {"a": torch.zeros(9)}}).read_bytes()[:-40]
    )
    with pytest.raises(NotTheRelease, match="damaged"):
        read_official(tmp_path / "short.ckpt", CONFIG)
