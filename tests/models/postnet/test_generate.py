from dataclasses import replace

import numpy as np
import pytest
import torch

from models.checkpoint import BadCheckpoint, write_checkpoint
from models.motion import generate as motion_generate
from models.postnet.generate import adapt, load, speak
from models.postnet.guards import Guards, guarded
from tests.models.postnet.corpus import CONFIG, randomised, write_generator
from tests.models.syncnet.corpus import spoken

OFF = Guards(lle_share=0.0, lle_neighbours=10, clamp_std=0.0, upper_share=1.0, smoothing=0.0, blink="none")
KNOWING = replace(CONFIG, frames=30)


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    folder = tmp_path_factory.mktemp("person")
    generator = write_generator(folder / "generator")
    write_checkpoint(folder / "checkpoint", randomised(KNOWING), KNOWING, "", {"motion": generator})
    return load(folder / "checkpoint")


@pytest.mark.parametrize("frames", [1, 5, 30])
def test_speaks_for_as_long_as_the_sound(person, frames):
    speech, _ = spoken(frames, 3)
    motion = speak(person, speech, 1.0, 0, KNOWING.guards)
    assert motion.shape == (frames, 204) and motion.dtype == np.float32 and np.isfinite(motion).all()


def test_says_what_the_networks_and_the_guards_say(person):
    speech, _ = spoken(20, 3)
    guards = Guards(lle_share=0.3, lle_neighbours=5, clamp_std=1.0, upper_share=0.5, smoothing=0.2, blink="period")
    drawn = torch.from_numpy(motion_generate.move(person.motion, speech, 0.7, 4))
    network = person.network
    plain = network(drawn[None], torch.ones(1, 20, dtype=torch.bool))[0]
    assert np.allclose(speak(person, speech, 0.7, 4, OFF), plain.numpy(), atol=1e-6)
    rails = guarded(plain, guards, network.motion_NX, network.mean_X, network.std_X)
    assert np.allclose(speak(person, speech, 0.7, 4, guards), rails.numpy(), atol=1e-5)
    assert not np.allclose(rails.numpy(), plain.numpy(), atol=1e-2)


def test_seeds_and_temperature_are_the_generator_s(person):
    speech, _ = spoken(20, 3)
    first, again, other = (speak(person, speech, 1.0, seed, OFF) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(speak(person, speech, 0.0, 1, OFF), speak(person, speech, 0.0, 2, OFF))


def test_guards_that_know_a_person_need_one():
    stranger, motion = randomised(CONFIG), np.zeros((8, 204), np.float32)
    assert adapt(stranger, motion, replace(OFF, smoothing=0.2)).shape == (8, 204)
    for guards in (
        replace(OFF, lle_share=0.1),
        replace(OFF, clamp_std=2.0),
        replace(OFF, upper_share=0.0),
        replace(OFF, blink="period"),
    ):
        with pytest.raises(ValueError, match="holds no motion of the person"):
            adapt(stranger, motion, guards)
    with pytest.raises(ValueError, match="in training mode"):
        adapt(stranger.train(), motion, OFF)


def test_a_checkpoint_without_its_generator_is_refused(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", randomised(CONFIG), CONFIG, "")
    with pytest.raises(BadCheckpoint, match="motion"):
        load(tmp_path / "checkpoint")
