"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
import torch.nn.functional as F

from models.released import NotTheRelease
from models.syncnet.config import PRESETS
from models.syncnet.expert import load
from models.syncnet.network import SyncNet
from models.syncnet.official import convert, read_official, release_name

CONFIG = replace(PRESETS["lrs3"], channels=(16, 24, 32), mouth_channels=12, audio_width=20)


def blocks(stem, values, first, strides, widths):
    """official_checkpoints.md §4.2: name, channels before and after, kernel, stride, padding, whether residual."""
    low, middle, high = widths
    rows = [(values, first, 3, 1, 1, False), (first, low, 3, 1, 1, False), *[(low, low, 3, 1, 1, True)] * 2]
    rows += [(low, middle, 3, strides[0], 1, False), *[(middle, middle, 3, 1, 1, True)] * 2]
    rows += [(middle, high, 3, strides[1], 1, False), *[(high, high, 3, 1, 1, True)] * 2]
    rows += [(high, high, 3, 1, 1, False), (high, high, 3, 1, 0, False), (high, high, 1, 1, 0, False)]
    return [(f"{stem}.{number}.conv_block", *row) for number, row in enumerate(rows)]


def both(config):
    return {
        "hear": blocks("hubert_encoder", config.audio_width, config.channels[0], (2, 2), config.channels),
        "see": blocks("mouth_encoder", 60, config.mouth_channels, (2, 1), config.channels),
    }


def layout(config):
    shapes = {}
    for name, before, after, kernel, *_ in chain(*both(config).values()):
        shapes |= {f"{name}.0.weight": (after, before, kernel), f"{name}.0.bias": (after,)}
        shapes |= {f"{name}.1.{kind}": (after,) for kind in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.1.num_batches_tracked"] = ()
    return shapes


def embedded(w, rows, x):
    """The released encoder, written from the specification."""
    x = x.transpose(1, 2)
    for name, _, _, _, stride, padding, residual in rows:
        h = F.conv1d(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], stride, padding)
        moments = (w[f"{name}.1.running_mean"], w[f"{name}.1.running_var"])
        h = F.batch_norm(h, *moments, w[f"{name}.1.weight"], w[f"{name}.1.bias"], training=False)
        x = torch.relu(h + x) if residual else torch.relu(h)
    assert x.shape[2] == 1
    return x[:, :, 0] / x[:, :, 0].norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    made = {}
    for name, shape in layout(CONFIG).items():
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(40_000)
        elif name.endswith("running_var"):
            made[name] = torch.rand(shape) + 0.2
        else:
            made[name] = torch.randn(shape) * (0.7 / torch.Size(shape[1:]).numel() ** 0.5 if len(shape) == 3 else 0.5)
    return made


def saved(path, tensors, flat=False):
    state = {f"model.{name}": tensor for name, tensor in tensors.items()} if flat else {"model": tensors}
    torch.save({"state_dict": state, "epoch": 0, "global_step": 40_000, "optimizer_states": [{"state": {}}]}, path)
    return path


def test_the_preset_has_the_tensors_of_the_release():
    shapes = layout(PRESETS["lrs3"])
    with torch.device("meta"):
        ours = SyncNet(PRESETS["lrs3"]).state_dict()
    assert len(shapes) == 182
    assert {release_name(name): tuple(tensor.shape) for name, tensor in ours.items()} == shapes


@pytest.mark.parametrize("flat", [False, True])
def test_computes_what_the_release_does(tmp_path, tensors, flat):
    convert(saved(tmp_path / "model_ckpt_steps_40000.ckpt", tensors, flat), CONFIG, tmp_path / "checkpoint")
    network = load(tmp_path / "checkpoint").double()
    assert network.config == CONFIG and "40000" in (tmp_path / "checkpoint/card.md").read_text()
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    inputs = {"hear": torch.randn(6, 10, 20).double(), "see": torch.randn(6, 5, 60).double()}
    for encode, rows in both(CONFIG).items():
        ours, theirs = getattr(network, encode)(inputs[encode]), embedded(weights, rows, inputs[encode])
        assert theirs.std() > 0.05 and (ours - theirs).abs().max() < 1e-6  # embeddings are in single precision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda all_: all_.pop("mouth_encoder.12.conv_block.1.bias"), r"lacks mouth_encoder.12.conv_block.1.bias \(32,\)"),
        (lambda all_: all_.update({"logloss.weight": torch.zeros(1)}), "has logloss.weight, which is nowhere"),
        (
            lambda all_: all_.update({"hubert_encoder.0.conv_block.0.weight": torch.zeros(16, 80, 3)}),
            r"has hubert_encoder.0.conv_block.0.weight \(16, 80, 3\), not \(16, 20, 3\)",
        ),
        (lambda all_: all_.update({"mouth_encoder": {"weight": torch.zeros(1)}}), "has mouth_encoder where tensors should be"),
    ],
)
def test_differences_are_named(tmp_path, tensors, change, message):
    altered = dict(tensors)
    change(altered)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "altered.ckpt", altered), CONFIG)


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


def test_what_is_no_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path, capsys):
    torch.save({"state_dict": {}, "callbacks": Dangerous()}, tmp_path / "bad.ckpt")
    with pytest.raises(NotTheRelease, match="save its state dict alone"):
        read_official(tmp_path / "bad.ckpt", CONFIG)
    assert "this ran" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(NotTheRelease, match="no state_dict"):
        read_official(tmp_path / "list.ckpt", CONFIG)
