import numpy as np
import pytest
import torch

from data.shardset import ShardSet
from models.checkpoint import write_checkpoint
from models.video_editing.examples import to_uint8
from models.video_editing.generate import generate, load, regenerate
from tests.models.video_editing.corpus import CONFIG, decoded_clip, write_corpus
from tests.models.video_editing.test_network import randomised

LENGTHS = [4, 2, 5, 1, 3]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return randomised(CONFIG)


@pytest.fixture(scope="module")
def clips():
    return [decoded_clip(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_batched_is_alone_bit_for_bit(network, clips, sampler):
    seeds = range(len(clips))
    alone = [generate(network, [clip], [seed], sampler, 3, 1)[0] for clip, seed in zip(clips, seeds, strict=True)]
    for batch_size in (2, 3, 5):
        for one, other in zip(alone, generate(network, clips, seeds, sampler, 3, batch_size), strict=True):
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
    """With x0 prediction, a network that answers with the identity frame paints it, by either sampler."""
    (clip,) = clips[:1]

    class Copies(torch.nn.Module):
        config = CONFIG

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, noisy, previous, identity, mel, gamma):
            seen.append(to_uint8(noisy)[0].numpy())
            return identity

    for sampler in ("ddpm", "ddim"):
        seen: list[np.ndarray] = []
        (painted,) = generate(Copies().eval(), [clip], [0], sampler, 4, 1)
        for index, (x0, y0, x1, y1) in enumerate(clip.boxes[1:], start=1):
            assert np.array_equal(painted[index, y0:y1, x0:x1], painted[0, y0:y1, x0:x1])
            for noisy in seen[4 * (index - 1) : 4 * index]:
                noisy[y0:y1, x0:x1] = clip.frames[index, y0:y1, x0:x1]
                assert np.array_equal(noisy, clip.frames[index]), "outside the box every step sees the real pixels"


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
