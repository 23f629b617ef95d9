"""The fast sampler against the plain one, the samplers against their formulas, and clips in batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from data.shardset import ShardSet, npy_array
from models.checkpoint import write_checkpoint
from models.diffspeaker.config import PRESETS
from models.diffspeaker.generate import (
    denoise,
    fold,
    load,
    move,
    regenerate,
    sampler_steps,
    smoothed,
    style_weights,
    vertices,
)
from models.diffspeaker.network import DiffSpeaker
from tests.models.diffspeaker import reference
from tests.models.diffspeaker.corpus import SMALL, VERTICES, clip, randomised, write_corpus

SCHEDULE = SMALL.noise_schedule
SAMPLERS = ["ddim", "release"]


# Specification §12.5
def test_the_schedule_is_the_release_s():
    gammas = SCHEDULE.alphas_cumprod(1000)
    assert gammas[0] == pytest.approx(0.99915)
    assert gammas[999] == pytest.approx(0.00466, abs=5e-6)
    theirs = DDIMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    assert torch.allclose(gammas.float(), theirs, atol=2e-6)
    assert torch.allclose(gammas, reference.alphas_cumprod())


def test_steps_of_the_release():
    steps = sampler_steps("release", 50, SCHEDULE)
    assert [step.n for step in steps] == list(range(981, 0, -20))
    assert steps[-1].a == pytest.approx(1.02873, abs=5e-6)
    assert 1.04 < min(step.a for step in steps[:-1]) < max(step.a for step in steps[:-1]) < 1.4143
    assert not any(step.b for step in steps)


@pytest.mark.parametrize("count", [1, 4, 50])
def test_ddim_is_that_of_a_library_without_the_release_s_bug(count):
    theirs = DDIMScheduler(
        1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="sample", clip_sample=False,
        set_alpha_to_one=True, timestep_spacing="trailing",
    )  # fmt: skip
    theirs.set_timesteps(count)
    steps = sampler_steps("ddim", count, SCHEDULE)
    assert [step.n for step in steps] == theirs.timesteps.tolist()
    x, x0 = torch.randn(2, 1, 4, 9)
    for step in steps:
        expected = theirs.step(x0, step.n, x).prev_sample
        x = step.a * x0 + step.b * x
        assert torch.allclose(x, expected, atol=1e-4)
    assert steps[0].n == 999
    assert steps[-1].a == pytest.approx(1) and steps[-1].b == 0


@pytest.mark.parametrize("sampler, steps", [("ddpm", 5), ("ddim", 0), ("release", 1001)])
def test_impossible_sampling_is_refused(sampler, steps):
    with pytest.raises(ValueError, match="no such sampling"):
        sampler_steps(sampler, steps, SCHEDULE)


# §12.6
@pytest.mark.parametrize("sampler, factor", [("ddim", 1.0), ("release", 1.02873)])
def test_a_network_that_is_sure_is_believed(sampler, factor):
    network = randomised(SMALL)
    network.denoiser.motion_out.weight.data.zero_()
    template = np.zeros((VERTICES, 3), np.float32)
    (made,) = move(
        network, [np.zeros((18, 16), np.float32)], [9], [np.array([1, 0], np.float32)], [template], [0], sampler, 50, 1
    )
    expected = factor * network.denoiser.motion_out.bias.detach().reshape(-1, 3).numpy()
    assert np.allclose(made, expected[None], rtol=1e-5)


# §12.4
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_untrained_network_gives_the_template(sampler):
    network, template = DiffSpeaker(SMALL).eval(), np.random.default_rng(0).normal(size=(VERTICES, 3)).astype(np.float32)
    heard = np.random.default_rng(1).normal(size=(18, 16)).astype(np.float32)
    (made,) = move(network, [heard], [9], [style_weights(SMALL, None)], [template], [5], sampler, 7, 1)
    assert made.shape == (9, VERTICES, 3) and made.dtype == np.float32
    assert np.array_equal(made, np.broadcast_to(template, made.shape))


def both_forms(network, frames, sampler, count, dtype):
    """Motion (T, X) of one clip by the fast form and by the release's, from the same noise."""
    config, network = network.config, network.to(dtype)
    torch.manual_seed(3)
    x = torch.randn(1, frames, 3 * config.vertices, dtype=dtype)
    heard = torch.randn(1, frames, config.audio_width, dtype=dtype)
    style = torch.eye(config.styles, dtype=dtype)[:1]
    steps = sampler_steps(sampler, count, config.noise_schedule)
    weights, denoiser = dict(network.named_parameters()), network.denoiser
    table = reference.bias_table(config.heads, config.period, frames)

    def plain(x, n):
        return reference.denoise(weights, x, torch.tensor([n]), style, heard, table, config.period, config.heads)

    with torch.inference_mode():
        noise = x @ denoiser.motion_in.weight.T
        summed, share = denoise(network, fold(network), noise, [heard], style, torch.tensor([frames]), steps)
        fast = summed[0] @ denoiser.motion_out.weight.T + share * denoiser.motion_out.bias
        return fast, reference.sample(x, plain, sampler, [step.n for step in steps], 1000 // count)[0]


# §12.7
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [1, 4, 50])
def test_the_fast_form_is_the_plain_one(sampler, count):
    fast, plain = both_forms(randomised(SMALL), 23, sampler, count, torch.float64)
    assert plain.std() > 0.1
    assert (fast - plain).norm() / plain.norm() < 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("preset", ["vocaset", pytest.param("biwi", marks=pytest.mark.slow)])
def test_the_fast_form_of_the_paper_s_networks(preset, sampler):
    network = randomised(replace(PRESETS[preset], audio="speech", speech_encoder="hubert-base"))
    fast, plain = both_forms(network, 20, sampler, 50, torch.float32)
    assert plain.std() > 0.1
    assert (fast - plain).norm() / plain.norm() < 1e-4
    assert (fast - plain).abs().max() < 1e-4 * plain.abs().max()


def test_noise_is_distributed_as_that_of_the_vertices():
    network = randomised(SMALL)
    weight, noise = network.denoiser.motion_in.weight, fold(network).noise
    assert torch.allclose(noise @ noise.T, weight @ weight.T, atol=1e-5)


@pytest.fixture
def spoken_clips():
    frames = [12, 5, 20, 1, 9]
    random = np.random.default_rng(0)
    return {
        "audio": [random.normal(size=(2 * count, 16)).astype(np.float32) for count in frames],
        "frames": frames,
        "styles": [style_weights(SMALL, name) for name in ("anna", "ben", "ben", "anna", "anna")],
        "templates": [random.normal(size=(VERTICES, 3)).astype(np.float32) for _ in frames],
        "seeds": range(5),
    }


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, audio_context=2, smoothing=True, layers=2, guidance=0.5, silence=0.1)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_is_its_clips(spoken_clips, config, sampler):
    network = randomised(config)
    alone = move(network, **spoken_clips, sampler=sampler, steps=3, batch_size=1)
    assert [len(made) for made in alone] == spoken_clips["frames"]
    for batch_size in (2, 3, 5):
        for one, other in zip(alone, move(network, **spoken_clips, sampler=sampler, steps=3, batch_size=batch_size), strict=True):
            assert np.abs(one - other).max() < 1e-4


def test_noise_follows_from_the_seed(spoken_clips):
    network = randomised(SMALL)
    first = move(network, **spoken_clips, sampler="ddim", steps=3, batch_size=2)
    again = move(network, **spoken_clips, sampler="ddim", steps=3, batch_size=2)
    other = move(network, **spoken_clips | {"seeds": range(5, 10)}, sampler="ddim", steps=3, batch_size=2)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert all(not np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_motion_is_in_the_units_of_the_training_set():
    network, summed = randomised(SMALL), torch.randn(6, 32)
    template = np.ones((VERTICES, 3), np.float32)
    plain = vertices(network, summed, 0.7, template) - 1
    network.motion_scale.fill_(0.5)
    network.motion_mean_X.fill_(2.0)
    assert np.allclose(vertices(network, summed, 0.7, template), 1 + 2 + 0.5 * plain, atol=1e-5)
    x = torch.randn(1, 4, 3 * VERTICES)
    assert torch.allclose(network.normalised(2 + 0.5 * x), x, atol=1e-6)


def test_smoothing_leaves_the_ends():
    frames = torch.arange(5.0)[:, None] ** 2
    assert smoothed(frames)[:, 0].tolist() == pytest.approx([0, 5 / 3, 14 / 3, 29 / 3, 16])
    assert torch.equal(smoothed(frames[:2]), frames[:2]) and torch.equal(smoothed(frames[:1]), frames[:1])
    config = replace(SMALL, smoothing=True)
    network, summed, template = randomised(config), torch.randn(6, 32), np.zeros((VERTICES, 3), np.float32)
    rough = torch.from_numpy(vertices(randomised(SMALL), summed, 1.0, template)).flatten(1)
    assert np.allclose(vertices(network, summed, 1.0, template).reshape(6, -1), smoothed(rough), atol=1e-5)


def test_guidance_goes_away_from_silence(spoken_clips):
    """With half of what silence says taken off, each step's answer is x0 + 1/2 (x0 − x0 of silence)."""
    config = replace(SMALL, guidance=0.5, silence=0.1)
    network = randomised(config)
    only = {name: values[:1] for name, values in spoken_clips.items()}
    silent = only | {"audio": [np.full_like(only["audio"][0], -80)]}
    (guided,) = move(network, **only, sampler="release", steps=1, batch_size=1)
    network.config = SMALL
    (plain,), (quiet,) = (move(network, **one, sampler="release", steps=1, batch_size=1) for one in (only, silent))
    assert np.allclose(guided, plain + 0.5 * (plain - quiet), atol=1e-4)
    assert np.abs(guided - plain).max() > 0.01


def test_styles():
    assert style_weights(SMALL, None).tolist() == [0.5, 0.5]
    assert style_weights(SMALL, "ben").tolist() == [0, 1]
    assert style_weights(SMALL, {"anna": 1, "ben": 3}).tolist() == [0.25, 0.75]
    with pytest.raises(ValueError, match="no style carl: this checkpoint has anna, ben"):
        style_weights(SMALL, "carl")
    with pytest.raises(ValueError, match="add up to 0"):
        style_weights(SMALL, {"anna": 0})


def test_wrong_use_is_refused(spoken_clips):
    with pytest.raises(ValueError, match="training mode"):
        move(randomised(SMALL).train(), **spoken_clips, sampler="ddim", steps=1, batch_size=1)
    with pytest.raises(ValueError, match="batch_size"):
        move(randomised(SMALL), **spoken_clips, sampler="ddim", steps=1, batch_size=0)
    with pytest.raises(ValueError, match=r"template has the shape \(9, 3\), not \(10, 3\)"):
        wrong = spoken_clips | {"templates": [np.zeros((9, 3))] * 5}
        move(randomised(SMALL), **wrong, sampler="ddim", steps=1, batch_size=1)


def test_regenerate_from_a_checkpoint(tmp_path):
    network = randomised(SMALL)
    write_checkpoint(tmp_path / "checkpoint", network, SMALL, "")
    loaded = load(tmp_path / "checkpoint")
    assert loaded.config == SMALL and not loaded.training
    clips = list(ShardSet(write_corpus(tmp_path / "set", [8, 5])).clips())
    clips.append(clip("carl/clip", 7, 9))
    all_three = regenerate(tmp_path / "checkpoint", clips, "ddim", 2, 2, seed=7)
    assert [made.shape for made in all_three] == [npy_array(one.members["vertices.npy"]).shape for one in clips]
    (second,) = regenerate(tmp_path / "checkpoint", clips[1:2], "ddim", 2, 2, seed=7)
    assert np.allclose(all_three[1], second, atol=1e-5)
