import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.syncnet.config import PRESETS
from models.syncnet.network import SyncNet, cross_entropy
from tests.models.syncnet.corpus import CONFIG, WIDTH, randomised


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_of_the_released_network():
    """geneface.md §13, official_checkpoints.md §4.2."""
    with torch.device("meta"):
        network = SyncNet(PRESETS["lrs3"])
    assert (parameters(network.hearing), parameters(network.seeing)) == (4_846_336, 4_458_016)
    assert parameters(network) == 9_304_352 and len(network.state_dict()) == 182


@pytest.mark.parametrize("preset", PRESETS)
def test_embeddings_have_norm_1_and_nothing_below_0(preset):
    config = PRESETS[preset]
    network = randomised(config)
    with torch.inference_mode():
        heard, seen = network.hear(torch.randn(7, 10, config.audio_width)), network.see(torch.randn(7, 5, 60))
        cosine = network(torch.randn(7, 10, config.audio_width), torch.randn(7, 5, 60))
    for embeddings in (heard, seen):
        assert embeddings.shape == (7, config.channels[-1]) and embeddings.min() >= 0
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(7), atol=1e-5)
    assert cosine.shape == (7,) and cosine.min() >= 0 and cosine.max() <= 1 + 1e-6


def test_the_cosine_is_that_of_the_embeddings():
    network, speech, mouth = randomised(CONFIG), torch.randn(4, 10, WIDTH), torch.randn(4, 5, 60)
    with torch.inference_mode():
        expected = F.cosine_similarity(network.hear(speech), network.see(mouth))
        assert torch.allclose(network(speech, mouth), expected, atol=1e-6)


@pytest.mark.parametrize(("encode", "size"), [("hear", (10, WIDTH)), ("see", (5, 60))])
def test_every_row_and_frame_matters_and_examples_do_not_mix(encode, size):
    network = randomised(CONFIG)
    together = torch.randn(3, *size)
    with torch.inference_mode():
        before = getattr(network, encode)(together)
        for index in range(size[0]):
            changed = together.clone()
            changed[1, index] += 1
            after = getattr(network, encode)(changed)
            assert not torch.allclose(after[1], before[1], atol=1e-4)
            assert torch.allclose(after[[0, 2]], before[[0, 2]], atol=1e-6)


def test_sound_is_normalised():
    network, speech = randomised(CONFIG), torch.randn(4, 10, WIDTH)
    with torch.inference_mode():
        expected = network.hear(speech)
        network.config = replace(CONFIG, audio_mean=-40.0, audio_std=20.0)
        assert torch.allclose(network.hear(20 * speech - 40), expected, atol=1e-4)


def test_the_loss_is_binary_cross_entropy():
    cosine, synced = torch.rand(50), torch.rand(50) > 0.5
    assert torch.allclose(cross_entropy(cosine, synced), F.binary_cross_entropy(cosine, synced.float()))
    half = torch.full((4,), 0.5)
    assert cross_entropy(half, torch.tensor([True, False, True, True])).item() == pytest.approx(math.log(2))  # 0.693


@pytest.mark.parametrize("cosine", [0.0, 1.0, 1.0000002])
@pytest.mark.parametrize("synced", [True, False])
def test_the_loss_is_finite_and_not_below_0_at_the_ends(cosine, synced):
    loss = cross_entropy(torch.tensor([cosine]), torch.tensor([synced])).item()
    assert loss == pytest.approx(0 if synced == (cosine >= 1) else 16.1, abs=0.1) and loss >= 0
