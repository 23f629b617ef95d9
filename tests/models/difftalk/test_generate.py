from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from data.shardset import Clip
from models.checkpoint import write_checkpoint
from models.difftalk.config import PRESETS
from models.difftalk.examples import AUTOENCODER
from models.difftalk.generate import SMOOTHING, Painter, regenerate, smoothed, timesteps
from models.painting import Unpainted
from tests.models.difftalk.corpus import BOX, CONFIG, made_clip, write_autoencoder
from tests.models.difftalk.test_network import randomised

MODES = ["ddim", "dpm++", "unipc", "ddim progressive", "unipc smoothed"]


def write(folder, **changes):
    torch.manual_seed(0)
    config = replace(CONFIG, **changes)
    below = {AUTOENCODER: write_autoencoder(folder / "below")}
    write_checkpoint(folder / "checkpoint", randomised(config), config, "", below)
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("difftalk"))


@pytest.fixture(scope="module")
def clips():
    """Two clips whose frames are noise, so that what is painted is not what was there."""
    random, noisy = np.random.default_rng(0), []
    from data.media.video import encode_frames

    for index, length in enumerate((7, 4)):
        frames = random.integers(0, 256, (length, 32, 32, 3), np.uint8)
        noisy.append(Clip(f"speaker/{index}", made_clip(index, length).members | {"mp4": encode_frames(frames, 25, 0)}))
    return noisy


def inside(length):
    mask = np.zeros((length, 32, 32), bool)
    x0, y0, x1, y1 = BOX
    mask[:, y0:y1, x0:x1] = True
    return mask


def test_the_published_schedule():
    """Golden values of difftalk.md §4, and diffusers' schedule as §3 names it."""
    config = PRESETS["release"]
    gammas = config.noise_schedule.alphas_cumprod(config.train_timesteps)
    assert gammas[-1].item() == pytest.approx(1.423e-4, rel=1e-3) and gammas[0].item() == pytest.approx(0.9985, rel=1e-6)
    steps = timesteps(1000, 200)
    assert steps[::-1] == list(range(1, 1000, 5))
    theirs = DDIMScheduler(
        1000,
        0.0015,
        0.0195,
        "scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
    for count in (200, 25, 10, 5, 1):
        theirs.set_timesteps(count)
        assert theirs.timesteps.tolist() == timesteps(1000, count)


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_ddim_is_diffusers_own(tmp_path, clips, prediction):
    checkpoint = write(tmp_path, prediction=prediction)
    painter = Painter(checkpoint, "ddim", 10, 3, 5)
    frames = painter.frames_of(clips[0])[1:4]
    schedule = DDIMScheduler(
        1000, 0.0015, 0.0195, "scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        prediction_type="sample" if prediction == "x0" else "epsilon",
    )  # fmt: skip
    schedule.set_timesteps(10)
    network, asked = painter._network, []
    with torch.inference_mode():
        reference = painter._encoded([frames[0].identity]).expand(3, -1, -1, -1)
        forward = network.forward
        network.forward = lambda *inputs: asked.append(inputs) or forward(*inputs)
        ours = painter._sampled(frames, reference, 5)
        x_t, masked, biases = asked[0][0], asked[0][1], asked[0][4]
        for step in schedule.timesteps:
            output = forward(x_t, masked, reference, step.expand(3), biases)
            x_t = schedule.step(output, step, x_t).prev_sample
    assert torch.allclose(ours, x_t, atol=1e-4 * x_t.abs().max())
    assert [int(inputs[3][0]) for inputs in asked] == schedule.timesteps.tolist()
    assert all(inputs[4] is biases for inputs in asked), "conditions are folded once for all steps"


@pytest.mark.parametrize("sampler", MODES)
def test_the_box_alone_is_painted(checkpoint, clips, sampler):
    for clip, made in zip(clips, regenerate(checkpoint, clips, sampler, 2, 3, 0), strict=True):
        frames = [frame.real for frame in Painter(checkpoint, sampler, 2, 3, 0).frames_of(clip)]
        mask = inside(len(frames))
        assert made.dtype == np.uint8 and np.array_equal(made[~mask], np.stack(frames)[~mask])
        assert np.array_equal(made[0], frames[0])
        assert (made[1:][mask[1:]] != np.stack(frames)[1:][mask[1:]]).mean() > 0.9


@pytest.mark.parametrize("shape", ["nose_tip", "nose_base", "jaw"])
@pytest.mark.parametrize("keeps", ["nothing", "real"])
def test_other_masks_paint_within_the_box_too(tmp_path, clips, shape, keeps):
    checkpoint = write(tmp_path, mask=shape, keeps=keeps)
    for clip, made in zip(clips, regenerate(checkpoint, clips, "ddim", 2, 3, 0), strict=True):
        real = np.stack([frame.real for frame in Painter(checkpoint, "ddim", 2, 3, 0).frames_of(clip)])
        assert np.array_equal(made[~inside(len(made))], real[~inside(len(made))])


@pytest.mark.parametrize("keeps", ["nothing", "real"])
def test_what_is_hidden_tells_nothing_unless_the_release_is_followed(tmp_path, keeps):
    """The real latents around the mask know the real mouth: an encoder's reach is wide."""
    painter = Painter(write(tmp_path, keeps=keeps), "ddim", 3, 4, 0)
    random = np.random.default_rng(1)
    identity, real = random.integers(0, 256, (2, 32, 32, 3), np.uint8)
    other = real.copy()
    other[inside(1)[0]] = 255 - other[inside(1)[0]]
    heard, points = random.normal(size=(30, 6)).astype(np.float32), random.uniform(8, 24, (68, 2)).astype(np.float32)
    faces = [next(painter.paint([Unpainted(4, image, identity, BOX, points, heard)], None)) for image in (real, other)]
    same = np.array_equal(faces[0][inside(1)[0]], faces[1][inside(1)[0]])
    assert same == (keeps == "nothing")


@pytest.mark.parametrize("sampler", MODES)
def test_a_batch_changes_no_more_than_rounding(checkpoint, clips, sampler):
    alone, together = (regenerate(checkpoint, clips, sampler, 2, batch, 0) for batch in (1, 4))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    again, other_seed = (regenerate(checkpoint, clips, sampler, 2, 4, seed) for seed in (0, 1))
    assert all(map(np.array_equal, together, again))
    assert not any(map(np.array_equal, together, other_seed))


@pytest.mark.parametrize("sampler", ["ddim", "ddim progressive", "ddim smoothed"])
def test_a_run_goes_on_from_the_face_before(checkpoint, clips, sampler):
    painter = Painter(checkpoint, sampler, 2, 2, 0)
    frames = painter.frames_of(clips[0])[1:]
    whole = list(painter.paint(iter(frames), None))
    assert len(whole) == len(frames)
    broken = [*painter.paint(frames[:4], None), *painter.paint(frames[4:], whole[3])]
    assert np.array_equal(whole[:3], broken[:3])
    if sampler == "ddim":
        assert np.array_equal(whole, broken)
    if sampler == "ddim progressive":
        assert np.array_equal(whole, broken)
        assert not np.array_equal(whole, [*painter.paint(frames[:4], None), *painter.paint(frames[4:], None)])


def test_smoothing_averages_neighbours_and_holds_the_ends():
    latents = [torch.full((1, 1, 1), float(value)) for value in (0, 4, 8, 0)]
    run = [(index, one) for index, one in enumerate(latents)]
    values = [one.item() for _, one in smoothed(iter(run), None)]
    a, b, c = SMOOTHING
    assert values == pytest.approx([4 * c, 4 * b + 8 * c, 4 * a + 8 * b, 8 * a])
    held = [one.item() for _, one in smoothed(iter(run[2:3]), torch.full((1, 1, 1), 4.0))]
    assert held == pytest.approx([4 * a + 8 * b + 8 * c])
    assert list(smoothed(iter([]), None)) == []
    assert sum(SMOOTHING) == 1


def test_smoothed_frames_begin_from_one_noise(checkpoint, clips):
    painter = Painter(checkpoint, "ddim smoothed", 1, 4, 0)
    frame = painter.frames_of(clips[0])[2]
    first, second = painter.paint([frame, replace(frame, index=9)], None)
    assert np.abs(first.astype(int) - second).max() <= 1
    painter = Painter(checkpoint, "ddim", 1, 4, 0)
    first, second = painter.paint([frame, replace(frame, index=9)], None)
    assert np.abs(first.astype(int) - second).max() > 10


@pytest.mark.parametrize(
    ("sampler", "steps", "batch"), [("ddpm", 5, 1), ("ddim backwards", 5, 1), ("ddim", 0, 1), ("ddim", 1000, 1), ("ddim", 5, 0)]
)
def test_what_there_is_not_is_refused(checkpoint, sampler, steps, batch):
    with pytest.raises(ValueError, match=f"no such sampling: {sampler}, {steps} steps, batch {batch}; there are ddim"):
        Painter(checkpoint, sampler, steps, batch, 0)


def test_clips_that_do_not_fit_are_named(checkpoint, clips):
    painter = Painter(checkpoint, "ddim", 1, 1, 0)
    with pytest.raises(ValueError, match=r"clip speaker/0 has no speech.npy"):
        painter.frames_of(Clip("speaker/0", {name: data for name, data in clips[0].members.items() if name != "speech.npy"}))
    with pytest.raises(ValueError, match="speech has 7 numbers in a row"):
        painter.windows(np.zeros((10, 7), np.float32))
