import pickle

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips

from models.perceptual import BACKBONE, SOURCE, NoBackbone, Perceptual

# VGG-16's, torchvision's configuration D: widths of convolutions, and pools.
CONVOLUTIONS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


@pytest.fixture(scope="module")
def trunk():
    """A stand-in for torchvision's VGG-16 `features`, of random weights and numbered as there."""
    torch.manual_seed(0)
    layers, before = [], 3
    for width in CONVOLUTIONS:
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)
            nn.init.normal_(layers[-2].bias, std=0.1)
            before = width
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, trunk):
    path = tmp_path_factory.mktemp("backbone") / BACKBONE
    state = {f"features.{name}": tensor for name, tensor in trunk.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(3)}, path)
    return path


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(2, 3, 3, 40, 32) * 2 - 1


def test_equals_torchmetrics(monkeypatch, trunk, backbone, images):
    # The installed function wants torchvision, which is not there.
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained: {"vgg16": trunk}[net])
    theirs = lpips._NoTrainLpips(net="vgg")
    ours = Perceptual.load(backbone)
    with torch.inference_mode():
        expected = theirs(*images).flatten()
        distance = ours(*images)
    assert distance.shape == (3,) and expected.min() > 0.01
    assert torch.allclose(distance, expected, rtol=0, atol=1e-5)


def test_is_a_distance_that_trains_images_and_is_not_trained(backbone, images):
    network, (one, other) = Perceptual.load(backbone), images
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network(one, one).abs().max() == 0
    assert torch.allclose(network(one, other), network(other, one))
    nearer = one + 0.1 * (other - one)
    assert (network(one, nearer) < network(one, other)).all()
    other = other.clone().requires_grad_()
    network(one, other).sum().backward()
    assert other.grad.isfinite().all() and other.grad.any()


@pytest.mark.parametrize("bias", [-100.0, 0.0])
def test_features_that_are_all_zero_have_a_gradient(backbone, images, bias):
    network = Perceptual.load(backbone)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.bias, bias)
    black = torch.zeros_like(images[1]).requires_grad_()
    network(images[0], black).sum().backward()
    assert black.grad.isfinite().all()


def test_without_the_backbone_it_says_what_to_fetch(tmp_path):
    with pytest.raises(NoBackbone, match="set perceptual_weight to 0") as refused:
        Perceptual.load(tmp_path / BACKBONE)
    assert SOURCE in str(refused.value) and str(tmp_path / BACKBONE) in str(refused.value)


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


def wrong_files():
    features = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    return {
        "another network": lambda path: torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path),
        "other shapes": lambda path: torch.save(features | {"features.0.bias": torch.zeros(63)}, path),
        "half of it": lambda path: torch.save(features, path),
        "numbers": lambda path: torch.save({"features.0.weight": 1, "features.0.bias": 1}, path),
        "a list": lambda path: torch.save([1, 2], path),
        "code": lambda path: torch.save({"features.0.weight": Dangerous()}, path),
        "a plain pickle": lambda path: path.write_bytes(pickle.dumps({"a": Dangerous()}, protocol=2)),
        "a web page": lambda path: path.write_text("<!DOCTYPE html><html>not found"),
        "nothing": lambda path: path.write_bytes(b""),
        "cut off": lambda path: (torch.save(features, path), path.write_bytes(path.read_bytes()[:-100])),
    }


@pytest.mark.parametrize("what", wrong_files())
def test_of_a_wrong_backbone_it_says_what_to_fetch(tmp_path, capsys, what):
    wrong_files()[what](tmp_path / BACKBONE)
    with pytest.raises(NoBackbone, match="does not hold VGG-16") as refused:
        Perceptual.load(tmp_path / BACKBONE)
    assert SOURCE in str(refused.value) and str(tmp_path / BACKBONE) in str(refused.value)
    assert "this ran" not in capsys.readouterr().out
