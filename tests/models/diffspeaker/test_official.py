"""A checkpoint laid out as the authors' are, made of random numbers: every tensor finds its place, or the file is refused."""

from dataclasses import replace

import pytest
import torch

from models.diffspeaker import network as network_module
from models.diffspeaker.config import PRESETS
from models.diffspeaker.generate import load
from models.diffspeaker.network import DiffSpeaker
from models.diffspeaker.official import NotTheRelease, convert, read_official, release_name
from tests.models.diffspeaker.corpus import randomised
from tests.models.diffspeaker.test_network import tiny_encoder

CONFIG = replace(PRESETS["vocaset"], vertices=40, audio="hubert-base")
C, X, K = 512, 120, 8


def layout():
    """Names and shapes of specs: official_checkpoints §1, as transformers 4.26 wrote them."""
    shapes = {"denoiser.PPE.pe": (1, 5010, C)}

    def linear(name, out, into):
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name, width):
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    linear("denoiser.audio_feature_map", C, 768)
    linear("denoiser.vertice_map", C, X)
    linear("denoiser.motion_decoder", X, C)
    linear("denoiser.time_embedding.linear_1", C, 768)
    linear("denoiser.time_embedding.linear_2", C, C)
    shapes["denoiser.obj_vector.weight"] = (K, C)
    layer = "denoiser.transformer_decoder.layers.0"
    for attention in ("self_attn", "multihead_attn"):
        shapes |= {f"{layer}.{attention}.in_proj_weight": (3 * C, C), f"{layer}.{attention}.in_proj_bias": (3 * C,)}
        linear(f"{layer}.{attention}.out_proj", C, C)
    linear(f"{layer}.linear1", 2 * C, C)
    linear(f"{layer}.linear2", C, 2 * C)
    for index in (1, 2, 3):
        norm(f"{layer}.norm{index}", C)

    audio = "audio_encoder"
    shapes[f"{audio}.masked_spec_embed"] = (768,)
    for index, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        shapes[f"{audio}.feature_extractor.conv_layers.{index}.conv.weight"] = (512, 512 if index else 1, kernel)
    norm(f"{audio}.feature_extractor.conv_layers.0.layer_norm", 512)
    norm(f"{audio}.feature_projection.layer_norm", 512)
    linear(f"{audio}.feature_projection.projection", 768, 512)
    convolution = f"{audio}.encoder.pos_conv_embed.conv"
    shapes |= {f"{convolution}.bias": (768,), f"{convolution}.weight_g": (1, 1, 128), f"{convolution}.weight_v": (768, 48, 128)}
    norm(f"{audio}.encoder.layer_norm", 768)
    for index in range(12):
        one = f"{audio}.encoder.layers.{index}"
        for name in "qkv":
            linear(f"{one}.attention.{name}_proj", 768, 768)
        linear(f"{one}.attention.out_proj", 768, 768)
        norm(f"{one}.layer_norm", 768)
        linear(f"{one}.feed_forward.intermediate_dense", 3072, 768)
        linear(f"{one}.feed_forward.output_dense", 768, 3072)
        norm(f"{one}.final_layer_norm", 768)
    return shapes


@pytest.fixture(scope="module")
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in layout().items()}


def saved(path, tensors):
    torch.save({"state_dict": tensors, "epoch": 9000, "pytorch-lightning_version": "1.9.0", "optimizer_states": [{}]}, path)
    return path


def test_every_tensor_finds_its_place(tensors, tmp_path):
    assert len(tensors) == 241 and sum(name.startswith("denoiser.") for name in tensors) == 30
    network = read_official(saved(tmp_path / "diffspeaker_hubert_vocaset.ckpt", tensors), CONFIG)
    ours, theirs = network.denoiser, {name.removeprefix("denoiser."): tensor for name, tensor in tensors.items()}
    layer, name = ours.layers[0], "transformer_decoder.layers.0"
    for mine, tensor in (
        (ours.audio_in.weight, theirs["audio_feature_map.weight"]),
        (ours.motion_in.weight, theirs["vertice_map.weight"]),
        (ours.motion_out.bias, theirs["motion_decoder.bias"]),
        (ours.step1.weight, theirs["time_embedding.linear_1.weight"]),
        (ours.step2.bias, theirs["time_embedding.linear_2.bias"]),
        (ours.style.weight, theirs["obj_vector.weight"]),
        (layer.self_attention.projection.weight, theirs[f"{name}.self_attn.in_proj_weight"]),
        (layer.self_attention.out.weight, theirs[f"{name}.self_attn.out_proj.weight"]),
        (layer.cross_attention.projection.bias, theirs[f"{name}.multihead_attn.in_proj_bias"]),
        (layer.cross_attention.out.bias, theirs[f"{name}.multihead_attn.out_proj.bias"]),
        (layer.norm3.weight, theirs[f"{name}.norm3.weight"]),
        (layer.linear2.weight, theirs[f"{name}.linear2.weight"]),
    ):
        assert torch.equal(mine, tensor)
    encoder = network.encoder.encoder
    assert torch.equal(
        encoder.layers[7].attention.k_proj.weight, tensors["audio_encoder.encoder.layers.7.attention.k_proj.weight"]
    )
    convolution = "audio_encoder.encoder.pos_conv_embed.conv"
    v, g = tensors[f"{convolution}.weight_v"], tensors[f"{convolution}.weight_g"]
    effective = g * v / v.square().sum(dim=(0, 1), keepdim=True).sqrt()
    assert torch.allclose(encoder.pos_conv_embed.conv.weight, effective, atol=1e-6)
    assert network.motion_scale == 1 and not network.motion_mean_X.any()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda all_: all_.pop("denoiser.motion_decoder.bias"), r"lacks denoiser.motion_decoder.bias \(120,\)"),
        (lambda all_: all_.update({"denoiser.lips": torch.zeros(1)}), "has denoiser.lips, which is nowhere"),
        (
            lambda all_: all_.update({"denoiser.obj_vector.weight": torch.zeros(6, C)}),
            r"has denoiser.obj_vector.weight \(6, 512\), not \(8, 512\)",
        ),
    ],
)
def test_differences_are_all_named(tensors, tmp_path, change, message):
    altered = dict(tensors)
    change(altered)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "altered.ckpt", altered), CONFIG)


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


def test_nothing_in_the_file_runs(tmp_path, capsys):
    torch.save({"state_dict": {}, "callbacks": Dangerous()}, tmp_path / "bad.ckpt")
    with pytest.raises(NotTheRelease, match="save its state dict alone"):
        read_official(tmp_path / "bad.ckpt", CONFIG)
    assert "this ran" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(NotTheRelease, match="no state_dict"):
        read_official(tmp_path / "list.ckpt", CONFIG)


def test_what_is_converted_generates(tmp_path, monkeypatch):
    monkeypatch.setattr(network_module, "speech_encoder", tiny_encoder)
    released = randomised(CONFIG)
    content = {release_name(name): tensor for name, tensor in released.state_dict().items() if not name.startswith("motion_")}
    content["denoiser.PPE.pe"] = torch.zeros(1, 30, C)
    convert(saved(tmp_path / "small.ckpt", content), CONFIG, tmp_path / "checkpoint")
    network = load(tmp_path / "checkpoint")
    assert network.config == CONFIG
    for name, tensor in released.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_presets_have_the_sizes_of_the_release():
    for preset, x, k, width in (("vocaset", 15069, 8, 512), ("biwi", 70110, 6, 1024)):
        with torch.device("meta"):
            network = DiffSpeaker(PRESETS[preset])
        assert network.denoiser.motion_in.weight.shape == (width, x)
        assert network.denoiser.style.weight.shape == (k, width)
