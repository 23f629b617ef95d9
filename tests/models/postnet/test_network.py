from dataclasses import replace

import pytest
import torch

from models.postnet.config import MAY
from models.postnet.network import FrameDiscriminator, PostNet
from tests.models.postnet.corpus import CONFIG, randomised

AS_RELEASED = replace(CONFIG, padding="release")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def whole(motion):
    return torch.ones(motion.shape[:2], dtype=torch.bool)


def two_clips():
    """Of 20 and 12 frames, padded to 20."""
    motion, mask = torch.randn(2, 20, 204), torch.ones(2, 20, dtype=torch.bool)
    mask[1, 12:] = False
    return motion * mask[..., None], mask


def test_published_sizes():
    with torch.device("meta"):
        network, discriminator = PostNet(MAY), FrameDiscriminator(MAY)
    assert sum(parameter.numel() for parameter in network.parameters()) == 796_620
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 158_080


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
def test_any_number_of_frames(frames):
    motion = torch.randn(2, frames, 204)
    assert randomised(CONFIG)(motion, whole(motion)).shape == motion.shape


def test_without_its_last_layer_it_is_the_identity():
    motion = torch.randn(2, 9, 204)
    network = randomised(CONFIG)
    assert not torch.allclose(network(motion, whole(motion)), motion, atol=0.1)
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.zeros_(network.last.bias)
    assert torch.equal(network(motion, whole(motion)), motion)
    assert torch.equal(PostNet(replace(CONFIG, zero_start=True))(motion, whole(motion)), motion)


@pytest.mark.parametrize("config", [CONFIG, AS_RELEASED])
def test_padding_is_returned_as_it_is(config):
    motion, mask = two_clips()
    made = randomised(config)(motion, mask)
    assert torch.equal(made[~mask], motion[~mask]) and (made[mask] != motion[mask]).all(1).any()


def test_padding_is_neither_seen_nor_counted():
    motion, mask = two_clips()
    network = randomised(CONFIG)
    alone = network(motion[1:, :12], mask[1:, :12])
    assert torch.allclose(network(motion, mask)[1:, :12], alone, atol=1e-5)
    dirty = torch.where(mask[..., None], motion, 9.0)
    assert torch.equal(network(dirty, mask)[mask], network(motion, mask)[mask])
    # In training: the mean that the first norm keeps is that of the real frames.
    network.train()(motion, mask)
    first = network.block1[0]
    seen = torch.cat([first.convolution(clip.T[None])[0].T for clip in (motion[0], motion[1, :12])])
    before = randomised(CONFIG).block1[0].norm.running_mean
    assert torch.allclose(first.norm.running_mean, 0.9 * before + 0.1 * seen.mean(0), atol=1e-5)


def test_released_padding_differs_only_where_there_is_some():
    motion, mask = two_clips()
    ours, released = randomised(CONFIG), randomised(AS_RELEASED)
    assert torch.allclose(ours(motion, whole(motion)), released(motion, whole(motion)), atol=1e-5)
    assert not torch.allclose(ours(motion, mask)[1, :12], released(motion, mask)[1, :12], atol=1e-3)
    assert torch.allclose(ours(motion, mask)[0], released(motion, mask)[0], atol=1e-5)


def test_the_discriminator_knows_no_time():
    discriminator = FrameDiscriminator(CONFIG).eval()
    frames = torch.randn(6, 204)
    told = discriminator(frames)
    assert told.shape == (6, 1)
    assert torch.allclose(told.flip(0), discriminator(frames.flip(0)), atol=1e-6)
    assert not discriminator(torch.zeros(1, 204)).isnan().any()


def test_the_person_is_remembered():
    network = PostNet(replace(CONFIG, frames=50))
    motion = 3 + 2 * torch.randn(50, 204)
    network.remember(motion)
    assert torch.equal(network.motion_NX, motion)
    normal = (motion - network.mean_X) / network.std_X
    assert normal.mean(0).abs().max() < 1e-5 and torch.allclose(normal.square().mean(0), torch.ones(204), atol=1e-4)
