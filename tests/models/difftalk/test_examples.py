from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.media.video import decode_frames
from data.mesh import LANDMARKS_68
from data.shardset import Clip, npy_array, npy_bytes
from models.autoencoder.generate import load
from models.difftalk.examples import (
    AUTOENCODER,
    TrainingExamples,
    audio_windows,
    read_clip,
    reference_of,
    upper_face,
    validation_examples,
)
from models.difftalk.masks import hidden
from models.images import box_mask, to_unit
from tests.models.difftalk.corpus import BOX, CONFIG, clips_of, made_clip, write_corpus


def test_a_frame_hears_eight_windows_about_it():
    rows = np.arange(40, dtype=np.float32)[:, None]
    windows = audio_windows(rows, "speech")
    assert windows.shape == (20, 30, 1)
    assert windows[8, :, 0].tolist() == list(range(2, 32))  # frames 5 … 12; window of frame 8: rows 8 … 23, centred on row 16
    assert windows[0, :14].tolist() == [[0.0]] * 14 and windows[0, 14:16, 0].tolist() == [0, 1]
    assert windows[19, -2:].tolist() == [[0.0]] * 2 and windows[19, 14, 0] == 38
    assert audio_windows(rows, "mel")[0, 0, 0] == -80
    assert np.shares_memory(windows[3], windows[4]), "no copy of a row for each of the windows that hear it"


def test_the_landmarks_are_those_of_the_upper_face():
    points = np.random.default_rng(0).normal(size=(3, 478, 3))
    of_68 = points[:, LANDMARKS_68, :2]
    chosen = [*range(4), *range(13, 48)]  # of the 68 (difftalk.md §2.1)
    assert np.array_equal(upper_face(points), of_68[:, chosen].astype(np.float32))
    assert np.array_equal(upper_face(of_68), upper_face(points))


def test_cached_latents_are_fresh_ones(tmp_path):
    """Exactly: encoding is deterministic, and nothing else is done to a frame in training."""
    train, _ = write_corpus(tmp_path, [5])
    (stored,) = clips_of(train)
    clip, network = read_clip(stored, CONFIG), load(tmp_path / AUTOENCODER)
    frames = decode_frames(made_clip(0, 5).members["mp4"])
    inside = box_mask(torch.from_numpy(BOX[None]), 32)[0].numpy()
    black = hidden(frames, np.repeat(inside, 5, axis=0))
    assert black[3][inside[0]].max() == 0 and np.array_equal(black[3][~inside[0]], frames[3][~inside[0]])
    with torch.inference_mode():
        for cached, images in ((clip.latents, frames), (clip.masked, black)):
            for index, image in enumerate(images):
                fresh = network.encode(to_unit(torch.from_numpy(image[None].copy())))[0]
                assert torch.equal(torch.from_numpy(cached[index]), fresh)


def test_a_reference_is_some_way_off_and_drawn_afresh():
    random = np.random.default_rng(0)
    drawn = Counter(reference_of(50, 200, 60, random) for _ in range(2000))
    assert set(drawn) <= set(range(111, 200)) and len(drawn) > 80  # 0 … 49 are within 60 frames
    assert {reference_of(3, 10, 60, random) for _ in range(20)} == {9}
    assert {reference_of(8, 10, 60, random) for _ in range(20)} == {0}
    assert reference_of(0, 1, 60, random) == 0


def test_every_frame_is_as_likely_and_its_reference_is_of_its_clip(tmp_path):
    train, _ = write_corpus(tmp_path, [3, 9, 1])
    clips = [read_clip(clip, CONFIG) for clip in clips_of(train)]
    frames = {
        clip.latents[index].tobytes(): (number, index) for number, clip in enumerate(clips) for index in range(len(clip.latents))
    }
    seen = Counter()
    for example in islice(TrainingExamples(train, CONFIG), 1300):
        target, reference = (frames[latents.numpy().tobytes()] for latents in (example.latents, example.reference))
        assert target[0] == reference[0]
        assert target[0] != 1 or abs(target[1] - reference[1]) > CONFIG.reference_distance
        assert torch.equal(example.masked, torch.from_numpy(clips[target[0]].masked[target[1]]))
        assert example.audio[14, 0] == 2 * target[1]
        seen[target] += 1
    assert len(seen) == 13 and min(seen.values()) > 60


def test_the_order_depends_on_the_seed_alone(tmp_path):
    train, _ = write_corpus(tmp_path, [4, 4, 4])

    def drawn(seed):
        return [batch.audio for batch in islice(DataLoader(TrainingExamples(train, replace(CONFIG, seed=seed)), 4), 6)]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))


def test_validation_is_against_the_first_frame(tmp_path):
    _, val = write_corpus(tmp_path, [9])
    (clip,) = (read_clip(clip, CONFIG) for clip in clips_of(val))
    examples = validation_examples(val, CONFIG)
    assert [int(example.audio[14, 0]) for example in examples] == [0, 8, 16]
    assert all(torch.equal(example.reference, torch.from_numpy(clip.latents[0])) for example in examples)


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("latents.npy", lambda z: z[:, :, :4], "latents of the shape.*set latent_size"),
        ("masked_latents.npy", lambda z: z[:-1], "not have|latents of the shape"),
        ("speech.npy", lambda rows: rows[:, :3], "speech.npy has the shape.*set audio_width"),
        ("speech.npy", lambda rows: rows[:-1], "speech.npy has the shape.*run its stage again"),
        ("speech.npy", lambda rows: rows * np.float16("inf"), "not finite"),
        ("landmarks.npy", None, "has no landmarks.npy: run the stage"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, member, change, message):
    train, _ = write_corpus(tmp_path, [5])
    (clip,) = clips_of(train)
    members = dict(clip.members)
    data = members.pop(member)
    if change is not None:
        members[member] = npy_bytes(change(npy_array(data)))
    if member == "masked_latents.npy":
        message = "latents of the shape"
    with pytest.raises(ValueError, match=f"clip speaker/clip00.*{message}"):
        read_clip(Clip(clip.key, members), CONFIG)


def test_shards_are_no_latents(tmp_path):
    with pytest.raises(ValueError, match=r"has no latents.npy and no masked_latents.npy"):
        read_clip(made_clip(0, 3), CONFIG)
