from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from data.shardset import ShardSet
from models.checkpoint import write_checkpoint
from models.images import to_uint8, to_unit
from models.video_editing.generate import Sampler, generate, load, regenerate
from tests.models.video_editing.corpus import CONFIG, decoded_clip, write_corpus
from tests.models.video_editing.test_network import randomised

LENGTHS = [4, 2, 5, 1, 3]
SAMPLERS = get_args(Sampler)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder / "checkpoint", randomised(CONFIG), CONFIG, "")
    return load(folder / "checkpoint")


@pytest.fixture(scope="module")
def clips():
    return [decoded_clip(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batched_is_alone_bit_for_bit(network, clips, sampler):
    seeds = range(len(clips))
    alone = [generate(network, [clip], [seed], sampler, 4, 1)[0] for clip, seed in zip(clips, seeds, strict=True)]
    for batch_size in (2, 5):
        for one, other in zip(alone, generate(network, clips, seeds, sampler, 4, batch_size), strict=True):
            assert np.array_equal(one, other)


def test_only_the_box_is_painted(network, clips):
    before = [clip.frames.copy() for clip in clips]
    for clip, untouched, painted in zip(clips, before, generate(network, clips, range(5), "ddpm", 2, 5), strict=True):
        assert np.array_equal(clip.frames, untouched), "the input is left as it was"
        assert np.array_equal(painted[0], clip.frames[0]), "frame 0 is given"
        for index, (x0, y0, x1, y1) in enumerate(clip.boxes[1:], start=1):
            changed = (painted[index] != clip.frames[index]).any(axis=-1)
            assert changed[y0:y1, x0:x1].mean() > 0.9
            changed[y0:y1, x0:x1] = False
            assert not changed.any()


def test_each_frame_follows_from_the_painted_one_before(network, clips):
    """The real pixels inside the boxes, which a deployed system has not got, must have no influence."""
    clip = clips[0]
    hidden = decoded_clip(len(clip.frames), 0)
    for index, (x0, y0, x1, y1) in enumerate(clip.boxes[1:], start=1):
        hidden.frames[index, y0:y1, x0:x1] = 128
    with_them, without = (generate(network, [each], [0], "ddpm", 2, 1)[0] for each in (clip, hidden))
    assert np.array_equal(with_them, without)


def test_noise_follows_from_the_seed(network, clips):
    one, other = (generate(network, clips[:1], [seed], "ddim", 2, 1)[0] for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_what_the_network_predicts_is_painted(clips):
    """With x0 prediction, a network that answers with the identity frame paints it, by any sampler."""
    (clip,) = clips[:1]

    class Copies(torch.nn.Module):
        config = CONFIG

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, noisy, previous, identity, mel, gamma):
            seen.append(to_uint8(noisy)[0].numpy())
            return identity

    for sampler in SAMPLERS:
        seen: list[np.ndarray] = []
        (painted,) = generate(Copies().eval(), [clip], [0], sampler, 4, 1)
        for index, (x0, y0, x1, y1) in enumerate(clip.boxes[1:], start=1):
            assert np.array_equal(painted[index, y0:y1, x0:x1], painted[0, y0:y1, x0:x1])
            for noisy in seen[4 * (index - 1) : 4 * index]:
                noisy[y0:y1, x0:x1] = clip.frames[index, y0:y1, x0:x1]
                assert np.array_equal(noisy, clip.frames[index]), "outside the box every step sees the real pixels"


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
@pytest.mark.parametrize("sampler, theirs", [("dpm++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)])
def test_paints_as_the_schedulers_of_diffusers_do(clips, sampler, theirs, prediction):
    steps, clip = 6, clips[1]

    class Answers(torch.nn.Module):
        config = replace(CONFIG, prediction=prediction)

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, noisy, previous, identity, audio, gamma):
            blurred = torch.nn.functional.avg_pool2d(noisy, 3, stride=1, padding=1)  # pixels outside the box tell too
            return torch.sin(blurred + identity + gamma[:, None, None, None])

    network = Answers().eval()
    (painted,) = generate(network, [clip], [3], sampler, steps, 1)

    scheduler = theirs(
        steps, beta_schedule="squaredcos_cap_v2", solver_order=2, prediction_type="sample", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    real, identity = to_unit(torch.from_numpy(clip.frames[1:2])), to_unit(torch.from_numpy(clip.frames[:1]))
    inside = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    x0, y0, x1, y1 = clip.boxes[1]
    inside[..., y0:y1, x0:x1] = True
    noise = np.random.default_rng((3, 1, steps)).standard_normal((3, 32, 32), np.float32)
    x_t = torch.where(inside, torch.from_numpy(noise), real)
    for step in scheduler.timesteps:
        gamma = scheduler.alphas_cumprod[step]
        output = network(x_t, None, identity, None, gamma[None])
        clean = output if prediction == "x0" else (x_t - (1 - gamma).sqrt() * output) / gamma.sqrt()
        x_t = torch.where(inside, scheduler.step(clean.clamp(-1, 1), step, x_t).prev_sample, real)
    expected = to_uint8(x_t)[0].detach().numpy().astype(int)
    assert np.abs(painted[1].astype(int) - expected).max() <= 1
    (other,) = generate(network, [clip], [3], "ddim", steps, 1)
    assert np.abs(other[1].astype(int) - expected).max() > 3


def test_dropout_is_refused(clips):
    with pytest.raises(ValueError, match="training mode"):
        generate(randomised(CONFIG).train(), clips, range(5), "ddim", 1, 1)


@pytest.mark.parametrize("sampler, steps, batch_size", [("dpm", 1, 1), ("ddim", 0, 1), ("ddim", 1, 0)])
def test_impossible_sampling_is_refused(network, clips, sampler, steps, batch_size):
    with pytest.raises(ValueError, match="no such sampling"):
        generate(network, clips, range(5), sampler, steps, batch_size)


def test_regenerate_from_a_checkpoint(tmp_path, network):
    write_checkpoint(tmp_path / "checkpoint", network, CONFIG, "")
    loaded = load(tmp_path / "checkpoint")
    assert loaded.config == CONFIG and not loaded.training
    clips = list(ShardSet(write_corpus(tmp_path / "set", [3, 2])).clips())
    both = regenerate(tmp_path / "checkpoint", clips, "ddim", 2, 2, seed=7)
    (second,) = regenerate(tmp_path / "checkpoint", clips[1:], "ddim", 2, 2, seed=7)
    assert [frames.shape for frames in both] == [(3, 32, 32, 3), (2, 32, 32, 3)]
    assert np.array_equal(both[1], second)
