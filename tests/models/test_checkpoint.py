from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.checkpoint import BadCheckpoint, read_config, read_weights, write_checkpoint


@dataclass(frozen=True)
class Size:
    size: int


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", nn.Linear(2, 3), Size(2), "# A card\n")
    return tmp_path / "checkpoint"


def test_round_trip_and_replacement(folder):
    layer, other = nn.Linear(2, 3), nn.Linear(2, 3)
    write_checkpoint(folder, layer, Size(3), "# Another card\n")
    read_weights(folder, other)
    assert torch.equal(layer.weight, other.weight) and read_config(folder, Size) == Size(3)
    assert (folder / "card.md").read_text() == "# Another card\n"
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"], "nothing is left behind"


def test_a_missing_file_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"model.safetensors does not exist"):
        read_weights(folder, nn.Linear(2, 3))
    with pytest.raises(BadCheckpoint, match=r"config.json does not exist"):
        read_config(folder / "nowhere", Size)


@pytest.mark.parametrize(
    "network, message",
    [
        (nn.Linear(2, 4), r"tensor bias has the shape \(3,\), not \(4,\)"),
        (nn.Linear(2, 3, bias=False), "has the tensor bias, which Linear does not"),
        (nn.Sequential(nn.Linear(2, 3)), "lacks the tensor 0.bias|has the tensor bias"),
    ],
)
def test_weights_of_another_network_are_named(folder, network, message):
    with pytest.raises(BadCheckpoint, match=message):
        read_weights(folder, network)


def test_damage_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadCheckpoint, match=r"model.safetensors is damaged"):
        read_weights(folder, nn.Linear(2, 3))
    save_file({"weight": torch.zeros(3, 2)}, path)
    with pytest.raises(BadCheckpoint, match="lacks the tensor bias"):
        read_weights(folder, nn.Linear(2, 3))
    for text in ("[", "[]", "{}", '{"size": 1, "shape": 2}'):
        (folder / "config.json").write_text(text)
        with pytest.raises(BadCheckpoint, match=r"config.json is not a configuration"):
            read_config(folder, Size)
