from dataclasses import replace

import numpy as np
import pytest
import torch

from models.checkpoint import BadCheckpoint, write_checkpoint
from models.motion.generate import load, move
from tests.models.motion.corpus import CONFIG, WIDTH, randomised, spoken


def rows(frames):
    return spoken(frames, 3)[0]


@pytest.mark.parametrize("frames", [1, 2, 4, 7, 33])
def test_any_length(frames):
    made = move(randomised(CONFIG), rows(frames), 1.0, 0)
    assert made.shape == (frames, 204) and made.dtype == np.float32 and np.isfinite(made).all()


def test_the_last_row_is_held():
    network, heard = randomised(CONFIG), rows(6)
    held = np.concatenate((heard, np.repeat(heard[-1:], 4, axis=0)))
    assert np.array_equal(move(network, heard, 1.0, 0), move(network, held, 1.0, 0)[:6])


def test_is_what_the_network_samples():
    network, heard = randomised(CONFIG), rows(8)
    noise = np.random.default_rng(5).standard_normal((2, CONFIG.latent_channels), np.float32).T
    with torch.inference_mode():
        expected = network.sample(
            0.7 * torch.from_numpy(noise)[None], torch.from_numpy(heard)[None], torch.ones(1, 8, dtype=torch.bool)
        )
    assert np.allclose(move(network, heard, 0.7, 5), expected[0].numpy(), atol=1e-6)


def test_seeds_and_temperature():
    network, heard = randomised(CONFIG), rows(16)
    assert np.array_equal(move(network, heard, 1.0, 1), move(network, heard, 1.0, 1))
    spread = {heat: np.std([move(network, heard, heat, seed) for seed in range(6)], axis=0).mean() for heat in (0.0, 0.2, 1.0)}
    assert spread[0.0] < 1e-6 < spread[0.2] < spread[1.0]


def test_the_sound_moves_the_face():
    network = randomised(CONFIG)
    assert np.abs(move(network, rows(16), 0.0, 0) - move(network, -rows(16), 0.0, 0)).max() > 1e-2


def test_its_beginning_does_not_hang_on_its_end():
    """Neither noise nor sound: but for what the network sees of the future."""
    network = randomised(CONFIG)
    assert np.allclose(move(network, rows(200)[:240], 1.0, 0)[:60], move(network, rows(200), 1.0, 0)[:60], atol=1e-5)


def test_a_regressor_says_it_one_way():
    network = randomised(replace(CONFIG, prior="none"))
    assert np.array_equal(move(network, rows(8), 1.0, 0), move(network, rows(8), 1.0, 1))


def test_wrong_use_is_refused():
    network = randomised(CONFIG)
    with pytest.raises(ValueError, match="7 rows of speech"):
        move(network, rows(4)[:7], 1.0, 0)
    with pytest.raises(ValueError, match="0 rows of speech"):
        move(network, rows(4)[:0], 1.0, 0)
    with pytest.raises(ValueError, match=f"trained on {WIDTH}"):
        move(network, rows(4)[:, :3], 1.0, 0)
    with pytest.raises(ValueError, match="training mode"):
        move(network.train(), rows(4), 1.0, 0)


def test_a_checkpoint_is_read_back(tmp_path):
    network = randomised(CONFIG)
    write_checkpoint(tmp_path / "checkpoint", network, CONFIG, "# A card\n")
    loaded = load(tmp_path / "checkpoint")
    assert loaded.config == CONFIG and not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert np.array_equal(move(loaded, rows(9), 1.0, 2), move(network, rows(9), 1.0, 2))
    write_checkpoint(tmp_path / "other", network, replace(CONFIG, channels=8), "# A card\n")
    with pytest.raises(BadCheckpoint, match="has the shape"):
        load(tmp_path / "other")
