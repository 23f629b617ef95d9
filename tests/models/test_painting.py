"""What the editor asks of a painter, asked of the one there is with a network of random weights."""

import numpy as np
import pytest
import torch

from models.checkpoint import BadCheckpoint, write_checkpoint
from models.painting import Unpainted
from models.video_editing.generate import Painter, generate, load
from tests.models.video_editing.corpus import CONFIG, decoded_clip
from tests.models.video_editing.test_network import randomised

SEED, STEPS = 3, 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("painter") / "checkpoint"
    write_checkpoint(folder, randomised(CONFIG), CONFIG, "")
    return folder


def unpainted(clip) -> list[Unpainted]:
    """Its frames but the first, which is the identity; what is in the boxes is hidden."""
    reals = clip.frames.copy()
    for real, (x0, y0, x1, y1) in zip(reals[1:], clip.boxes[1:], strict=True):
        real[y0:y1, x0:x1] = 128
    points, identity = np.zeros((68, 2), np.float32), clip.frames[0]
    return [Unpainted(i, reals[i], identity, clip.boxes[i], points, clip.windows[i]) for i in range(1, len(reals))]


@pytest.mark.parametrize("sampler", ["ddpm", "unipc"])
def test_a_run_is_painted_as_a_held_out_clip_is(checkpoint, sampler):
    clip = decoded_clip(6)
    (expected,) = generate(load(checkpoint), [clip], [SEED], sampler, STEPS, 1)
    painter, frames = Painter(checkpoint, sampler, STEPS, 4, SEED), unpainted(clip)
    faces = list(painter.paint(iter(frames), None))
    outside = np.ones((len(faces), 32, 32), bool)
    for one, (x0, y0, x1, y1) in zip(outside, clip.boxes[1:], strict=True):
        one[y0:y1, x0:x1] = False
    assert np.array_equal(faces, expected[1:])
    assert np.array_equal(np.stack(faces)[outside], clip.frames[1:][outside])
    # It goes on from the face before, as if it had not broken off.
    assert np.array_equal([*painter.paint(frames[:3], None), *painter.paint(frames[3:], faces[2])], faces)
    assert not np.array_equal([*painter.paint(frames[:3], None), *painter.paint(frames[3:], None)], faces)


def test_a_painter_hears_what_the_network_was_trained_on(checkpoint):
    clip, random = decoded_clip(5, seed=1), np.random.default_rng(1)
    random.integers(0, 256, (5, 32, 32, 3), np.uint8), random.integers(0, 12, (2, 5))  # as in decoded_clip
    painter = Painter(checkpoint, "ddim", 1, 1, 0)
    assert (painter.size, painter.audio) == (32, "mel")
    rows_SD = random.uniform(-80, 0, (10, 256)).astype(np.float32)
    assert np.array_equal(painter.windows(rows_SD), clip.windows)
    with pytest.raises(ValueError, match="mel has 80 numbers in a row"):
        painter.windows(rows_SD[:, :80])


def test_what_there_is_not_is_refused(checkpoint, tmp_path):
    for sampler, steps, batch_size in (("dpm", 1, 1), ("ddim", 0, 1), ("ddim", 1, 0)):
        with pytest.raises(ValueError, match="no such sampling"):
            Painter(checkpoint, sampler, steps, batch_size, 0)
    with pytest.raises(BadCheckpoint, match="train the system"):
        Painter(tmp_path, "ddim", 1, 1, 0)
