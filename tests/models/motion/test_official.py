"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

from dataclasses import replace

import pytest
import torch

from models.motion.config import PRESETS, SYNCNET
from models.motion.generate import load
from models.motion.network import MotionVAE
from models.motion.official import convert, read_official, release_name
from models.released import NotTheRelease
from models.syncnet import expert
from models.syncnet.network import SyncNet
from models.syncnet.official import release_name as expert_name
from tests.models.motion import reference
from tests.models.motion.corpus import CONFIG, EXPERT, WIDTH

SMALL = reference.layout(WIDTH, g=8, z=4, h=16, encoder=2, decoder=2, flow_h=8, flow=2)


@pytest.fixture
def networks():
    """Tensors of the generator and of the expert, by the release's names."""
    torch.manual_seed(0)
    vae = {name: torch.randn(shape) * 0.3 for name, shape in SMALL.items()}
    vae["mel_encoder.1.running_var"].abs_()
    vae["mel_encoder.1.num_batches_tracked"] = torch.tensor(7)
    return vae, {expert_name(name): tensor for name, tensor in SyncNet(EXPERT).state_dict().items()}


def nested(vae, sync):
    return {"model": vae, "syncnet_task": {f"model.{name}": tensor for name, tensor in sync.items()}}


def flat(vae, sync):
    return {f"{task}.{name}": tensor for task, inner in nested(vae, sync).items() for name, tensor in inner.items()}


def saved(folder, state):
    torch.save({"state_dict": state, "epoch": 3, "global_step": 40_000, "optimizer_states": [{}]}, folder / "model_ckpt.ckpt")
    return folder / "model_ckpt.ckpt"


# official_checkpoints §4.1
def test_the_preset_has_the_tensors_of_the_release():
    shapes = reference.layout()
    assert len(shapes) == 219
    trained = [shape for name, shape in shapes.items() if ".running_" not in name and not name.endswith("num_batches_tracked")]
    assert sum(torch.Size(shape).numel() for shape in trained) == 11_127_500
    with torch.device("meta"):
        ours = MotionVAE(PRESETS["lrs3"]).state_dict()
    assert {release_name(name): tuple(tensor.shape) for name, tensor in ours.items()} == shapes


@pytest.mark.parametrize("laid_out", [nested, flat])
def test_computes_what_the_release_does(tmp_path, networks, laid_out):
    convert(saved(tmp_path, laid_out(*networks)), CONFIG, EXPERT, tmp_path / "checkpoint")
    network = load(tmp_path / "checkpoint").double()
    weights = {name: tensor.double() for name, tensor in networks[0].items()}
    motion, speech = torch.randn(2, 20, 204).double(), torch.randn(2, 40, WIDTH).double()
    mask = torch.arange(20) < torch.tensor([[20], [9]])
    fine, coarse = reference.condition(weights, speech)
    for ours, theirs in zip(
        network.encode(motion, speech, mask), reference.encode(weights, motion, coarse, mask.double()), strict=True
    ):
        assert ours.std() > 0.1 and (ours - theirs).abs().max() < 1e-10
    z = torch.randn(2, 4, 5).double()
    noise = network.prior(z, speech)
    assert (noise - z).abs().mean() > 0.1 and (noise - reference.flow(weights, z, coarse)).abs().max() < 1e-10
    made = network.decode(z, speech, mask)
    assert made.std() > 0.1 and (made - reference.decode(weights, z, fine, mask.double())).abs().max() < 1e-10


def test_the_expert_in_the_file_comes_along(tmp_path, networks):
    convert(saved(tmp_path, nested(*networks)), CONFIG, EXPERT, tmp_path / "checkpoint")
    below = expert.load(tmp_path / "checkpoint" / SYNCNET)
    for name, tensor in below.state_dict().items():
        assert torch.equal(tensor, networks[1][expert_name(name)])
    assert "BFM" in (tmp_path / "checkpoint/card.md").read_text()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda vae, sync: vae.pop("vae.g_pre_net.0.bias"), r"lacks vae.g_pre_net.0.bias \(8,\)"),
        (lambda vae, sync: vae.update({"vae.lips": torch.zeros(1)}), "has vae.lips, which is nowhere"),
        (
            lambda vae, sync: vae.update({"vae.decoder.wn.in_layers.1.weight_g": torch.zeros(9, 1, 1)}),
            r"in_layers.1.weight_g \(9, 1, 1\), not \(32, 1, 1\)",
        ),
        (lambda vae, sync: vae.update({"pitch_embed.weight": torch.zeros(300, 64)}), "hears pitch"),
        (lambda vae, sync: vae.update({"vae.lips": "red"}), "has model.vae.lips where tensors should be"),
        (lambda vae, sync: sync.clear(), "lacks hubert_encoder.0.conv_block.0.weight"),
        (lambda vae, sync: sync.popitem(), "lacks mouth_encoder"),
    ],
)
def test_differences_are_named(tmp_path, networks, change, message):
    change(*networks)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path, nested(*networks)), CONFIG, EXPERT)


def test_of_another_preset_all_differences_are_named(tmp_path, networks):
    with pytest.raises(NotTheRelease, match="is not what the configuration says") as refused:
        read_official(saved(tmp_path, nested(*networks)), replace(CONFIG, encoder_layers=3), EXPERT)
    assert "lacks vae.encoder.wn.in_layers.2.weight_v (32, 16, 5)" in str(refused.value).splitlines()


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


def test_nothing_in_the_file_runs(tmp_path, capsys, networks):
    with pytest.raises(NotTheRelease, match="save its state dict alone"):
        read_official(saved(tmp_path, nested(*networks) | {"callbacks": Dangerous()}), CONFIG, EXPERT)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1], {"state_dict": {}}, {"state_dict": [1]}, {}])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(NotTheRelease, match="no state_dict"):
        read_official(tmp_path / "other.ckpt", CONFIG, EXPERT)


def test_the_postnet_s_file_is_refused(tmp_path, networks):
    """It holds a generator too, but as another network's."""
    state = nested(*networks) | {"disc_model": {"backbone.0.bias": torch.zeros(128)}}
    with pytest.raises(NotTheRelease, match="of another training"):
        read_official(saved(tmp_path, state), CONFIG, EXPERT)
