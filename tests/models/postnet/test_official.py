"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

from dataclasses import replace

import pytest
import torch

from models.motion import official as motion_official
from models.motion.network import MotionVAE
from models.postnet.config import MAY
from models.postnet.generate import load, speak
from models.postnet.network import FrameDiscriminator, PostNet
from models.postnet.official import convert, layout, read_official
from models.released import NotTheRelease
from models.syncnet import official as syncnet_official
from tests.models.postnet import reference
from tests.models.postnet.corpus import CONFIG, MOTION_CONFIG
from tests.models.syncnet import corpus as spoken

SMALL = replace(CONFIG, frames=9, clamp_std=3.0)  # the file knows neither frames nor guards


@pytest.fixture
def released():
    """What the release's task saves: children by name."""
    torch.manual_seed(0)
    expert = {syncnet_official.release_name(name): x for name, x in spoken.randomised(spoken.CONFIG).state_dict().items()}
    generator = {motion_official.release_name(name): x for name, x in MotionVAE(MOTION_CONFIG).state_dict().items()}
    return {
        "model": reference.randomised(reference.layout(8, 16)),
        "disc_model": reference.randomised(reference.discriminator_layout(16, 8)),
        "audio2motion_task": {f"model.{name}": x for name, x in generator.items()}
        | {f"syncnet_task.model.{name}": x for name, x in expert.items()},
        "syncnet_task": {f"model.{name}": x for name, x in expert.items()},
    }


def saved(path, state):
    torch.save({"state_dict": state, "global_step": 6000, "optimizer_states": [{"state": {}}]}, path)
    return path


def test_the_preset_has_the_tensors_of_the_release():
    """§4.3 and §4.4 of the layouts."""
    shapes, told = reference.layout(128, 256), reference.discriminator_layout(128, 256, 256, 128)
    assert len(shapes) == 51 and len(told) == 9
    with torch.device("meta"):
        networks = PostNet(MAY), FrameDiscriminator(MAY)
    for network, expected in zip(networks, (shapes, told), strict=True):
        state = network.state_dict()
        assert {theirs: tuple(state[ours].shape) for ours, theirs in layout(network).items()} == expected


@pytest.mark.parametrize("flat", [False, True])
def test_computes_what_the_release_does(tmp_path, released, flat):
    state = {f"{child}.{name}": x for child, found in released.items() for name, x in found.items()} if flat else released
    network, discriminator = read_official(saved(tmp_path / "model.ckpt", state), CONFIG)
    network, discriminator = network.double(), discriminator.double()
    postnet, backbone = ({name: x.double() for name, x in released[child].items()} for child in ("model", "disc_model"))
    motion = torch.randn(2, 25, 204, dtype=torch.double)
    with torch.no_grad():
        ours, theirs = network(motion, torch.ones(2, 25, dtype=torch.bool)), reference.adapt(postnet, motion)
        assert (ours - theirs).abs().max() < 1e-10 and (ours - motion).abs().max() > 0.1
        ours, theirs = discriminator(motion[0]), reference.tell(backbone, motion[0])
        assert (ours - theirs).abs().max() < 1e-10 and theirs.std() > 0.01


def test_a_converted_file_speaks(tmp_path, released):
    file = saved(tmp_path / "model_ckpt_steps_6000.ckpt", released)
    convert(file, SMALL, MOTION_CONFIG, spoken.CONFIG, tmp_path / "checkpoint")
    person = load(tmp_path / "checkpoint")
    speech, _ = spoken.spoken(10, 0)
    assert speak(person, speech, 1.0, 0, person.network.config.guards).shape == (10, 204)
    theirs = released["audio2motion_task"]["model.vae.decoder.out_proj.weight"]
    assert torch.equal(person.motion.decoder.out.weight, theirs)
    assert "model_ckpt_steps_6000.ckpt" in (tmp_path / "checkpoint" / "card.md").read_text()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda all_: all_["model"].pop("block3.1.bias"), r"lacks model.block3.1.bias \(204,\)"),
        (lambda all_: all_["disc_model"].pop("backbone.6.weight"), r"lacks disc_model.backbone.6.weight \(1, 8\)"),
        (lambda all_: all_.update(lips={"weight": torch.zeros(1)}), "has lips.weight, which is nowhere"),
        (
            lambda all_: all_["model"].update({"block1.0.conv_block.0.weight": torch.zeros(8, 268, 3)}),
            r"has model.block1.0.conv_block.0.weight \(8, 268, 3\), not \(8, 204, 3\)",
        ),
        (lambda all_: all_.update(pitch_embed={"weight": torch.zeros(300, 64)}), "hears pitch too"),
        (lambda all_: all_.update(model=[1]), "where tensors should be"),
    ],
)
def test_differences_are_named(tmp_path, released, change, message):
    change(released)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "model.ckpt", released), CONFIG)


def test_a_generator_that_does_not_fit_is_refused_and_nothing_written(tmp_path, released):
    released["audio2motion_task"].pop("model.vae.decoder.out_proj.bias")
    with pytest.raises(NotTheRelease, match=r"vae\.decoder\.out_proj\.bias"):
        convert(saved(tmp_path / "model.ckpt", released), CONFIG, MOTION_CONFIG, spoken.CONFIG, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_a_file_of_another_kind_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(NotTheRelease, match="has no state_dict"):
        read_official(tmp_path / "other.ckpt", CONFIG)
