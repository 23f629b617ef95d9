import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data.shardset import Clip, npy_bytes
from models.checkpoint import BadCheckpoint
from models.geneface.examples import Below, TrainingExamples, background_of, loaders, sound_windows, validation_examples
from models.head.examples import decode_clip as decode_filmed
from models.presets import WrongConfig
from tests.models.geneface.corpus import CONFIG, CONFIG_MLP, SIDE, made_clip, made_heads, npz, write_corpus
from tests.models.head.corpus import WALL, made_poses, openings_of, png


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("geneface"), [5, 4])


@pytest.fixture(scope="module")
def below(given):
    return Below.of(CONFIG, given.train)


def changed(clip, **members):
    kept = clip.members | {name.replace("_", "."): data for name, data in members.items()}
    return Clip(clip.key, {name: data for name, data in kept.items() if data is not None})


def test_a_frame_and_what_stands_behind_and_before_it(below):
    clip = made_clip(1, 4)
    example, film = below.decode(clip).example(2), decode_filmed(clip, below.head, below.person).example(2)
    for ours, theirs in ((example.image, film.image), (example.behind, film.behind), (example.pose, film.pose)):
        assert torch.equal(ours, theirs)
    assert (example.focal, example.number) == (film.focal, film.number) and torch.equal(example.center, film.center)
    assert np.array_equal(example.head.numpy(), made_heads(openings_of(4, 1), made_poses(4, 1))[2])
    assert (example.background.numpy() == WALL).all() and example.background.shape == (SIDE, SIDE, 3)
    assert example.sound.shape == (30, 0), "the grid form hears nothing"


def test_the_head_that_was_painted_is_where_the_film_has_it(below):
    """Over what is behind, it is the film's frame, at the smaller size."""
    painted = below.decode(made_clip(0, 5))
    for index in range(5):
        example = painted.example(index)
        head, opacity = example.head[..., :3].float(), example.head[..., 3:] / 255
        whole = head + (1 - opacity) * example.behind
        assert (whole - example.image).abs().mean() < 0.3 * (example.behind.float() - example.image).abs().mean()


def test_a_frame_hears_the_windows_about_it():
    """Eight of 16 rows, of the frames i - 4 to i + 3, each from 8 rows before the frame's own."""
    rows = np.arange(1, 41, dtype=np.float32)[:, None] * [1, 10]
    heard = sound_windows(rows.astype(np.float32), "speech")
    assert heard.shape == (20, 30, 2)
    for frame in range(20):
        for window in range(8):
            first = 2 * (frame - 4 + window) - 8
            expected = [row + 1 if 0 <= row < 40 else 0 for row in range(first, first + 16)]
            assert heard[frame, 2 * window : 2 * window + 16, 0].tolist() == expected
    assert (sound_windows(rows, "mel")[0, :16] == -80).all()


def test_the_mlp_form_hears_its_column(given):
    clip = made_clip(1, 12)
    below = Below.of(CONFIG_MLP, given.train)
    sound = below.decode(clip).example(9).sound
    assert sound.shape == (30, CONFIG_MLP.audio_width) and sound[16].tolist() == pytest.approx([1.9] * CONFIG_MLP.audio_width)
    with pytest.raises(ValueError, match=r"clip person/clip01 has no speech.npy"):
        below.decode(changed(clip, speech_npy=None))
    with pytest.raises(ValueError, match=r"person/clip01: speech.npy has the shape \(24, 3\).*set audio_width"):
        below.decode(changed(clip, speech_npy=npy_bytes(np.zeros((24, 3), np.float32))))


def test_a_clip_without_sound_serves_the_grid_form(below):
    clip = made_clip(1, 4)
    assert len(below.decode(changed(clip, speech_npy=None)).heads) == 4


@pytest.mark.parametrize(
    "heads, message",
    [
        (None, r"clip person/clip01 has no heads.npz"),
        (b"no archive", "clip person/clip01: heads.npz: heads is damaged"),
        (npz(heads=np.zeros((4, SIDE, SIDE, 4), np.uint8))[:-200], "clip person/clip01: heads.npz: heads is damaged"),
        (npz(labels=np.zeros((4, SIDE, SIDE, 4), np.uint8)), "clip person/clip01: heads.npz: heads is damaged"),
        (npz(heads=np.zeros((3, SIDE, SIDE, 4), np.uint8)), r"clip person/clip01: heads.npz: heads is uint8 \(3, 32, 32, 4\)"),
        (npz(heads=np.zeros((4, 16, 16, 4), np.uint8)), r"not uint8 \(4, 32, 32, 4\): run the stage `heads` again"),
        (npz(heads=np.zeros((4, SIDE, SIDE, 4))), "clip person/clip01: heads.npz: heads is float64"),
        (npz(heads=np.array([{}], object)), "clip person/clip01: heads.npz: heads is object"),
    ],
)
def test_heads_that_do_not_fit_are_refused_by_name(below, heads, message):
    with pytest.raises(ValueError, match=message):
        below.decode(changed(made_clip(1, 4), heads_npz=heads))


def test_the_background_is_reduced_as_the_frames_are():
    big = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    clip = Clip("person/clip", {"background.png": png(big)})
    assert np.array_equal(background_of(clip, 48), big)
    expected = Image.open(io.BytesIO(png(big))).resize((24, 24), Image.Resampling.BOX)
    assert np.array_equal(background_of(clip, 24), np.asarray(expected))
    with pytest.raises(ValueError, match=r"clip person/clip has no background.png"):
        background_of(Clip("person/clip", {"json": b"{}"}), 24)


def test_a_head_of_another_size_or_none_is_refused(given, tmp_path):
    with pytest.raises(WrongConfig, match="image_size is 64, and the head paints 32: set both alike"):
        Below.of(replace(CONFIG, image_size=64), given.train)
    with pytest.raises(BadCheckpoint, match="does not exist"):
        Below.of(CONFIG, tmp_path / "train")


def test_every_frame_of_the_person_s_is_drawn(given, below):
    examples = iter(TrainingExamples(given.train, below))
    numbers = [int(next(examples).number) for _ in range(150)]
    assert set(numbers) == set(range(9))


def test_validation_has_the_same_frames_each_time_evenly(given, below):
    first, again = (validation_examples(given.val, below) for _ in range(2))
    assert len(first) == 2
    for one, other in zip(first, again, strict=True):
        assert all(map(torch.equal, one, other))
    whole = below.decode(made_clip(9, 4))
    assert torch.equal(first[0].head, whole.example(0).head) and torch.equal(first[1].head, whole.example(3).head)


@pytest.mark.parametrize("config", [CONFIG, CONFIG_MLP], ids=["grid", "mlp"])
def test_loaders_give_one_frame_at_a_time(given, config):
    for loader in loaders(config, given):
        batch = next(iter(loader))
        assert batch.image.shape == (1, SIDE, SIDE, 3) and batch.head.shape == (1, SIDE, SIDE, 4)
        assert batch.sound.shape == (1, 30, CONFIG.audio_width if config.form == "mlp" else 0)
