"""A sound said by a person that has learnt nothing, through the command line."""

import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from data.media.audio import samples_at, wav_bytes
from data.media.video import frames_at
from flows.cli import app
from models.checkpoint import write_checkpoint
from models.geneface import generate
from models.geneface.config import SAMPLE
from models.geneface.examples import HEAD, POSTNET
from models.geneface.network import build as build_torso
from models.head.network import build as build_head
from models.motion.network import MotionVAE
from models.postnet.examples import MOTION
from stages.params import output, system_params
from tests.media import RATE, voice
from tests.models.head import corpus as heads
from tests.models.postnet import corpus as voices
from tests.project import ROOT, change_params

LIVELY = {"pose_octaves": 4, "shaded": True}  # a torso that has learnt nothing shows its pose in its colours alone
TORSO = replace(SAMPLE, image_size=heads.CONFIG.image_size, frames=8, levels=4, finest=32, log2_rows=10, **LIVELY)
HEARS = replace(voices.MOTION_CONFIG, audio="mel", audio_width=256, audio_mean=-40.0, audio_std=20.0)
KNOWING = replace(voices.CONFIG, frames=30)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with the committed parameters, shards of clips of four frames, a checkpoint, and a sound of 0.41 s."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(ROOT / "params.yaml", folder)
    sampling = {"sampler": "adapted", "steps": 4, "against": [], "against_clips": 1, "batch_size": 1, "seed": 0}
    change_params(folder, evaluate={"geneface": sampling})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        corpus, checkpoint = system_params("geneface").corpus, output("checkpoints", "geneface")
        for split, indices in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
            heads.write_set(output("shards", corpus) / split, [heads.made_clip(index, 4) for index in indices])
        torch.manual_seed(0)
        torso, head, motion = build_torso(TORSO), build_head(heads.CONFIG), MotionVAE(HEARS)
        for network in (torso, head):
            for weights in network.parameters():
                weights.data *= 3  # so that pose and motion show
        motion.decoder.up.weight.data *= 30  # and so does what is drawn
        write_checkpoint(Path("motion"), motion, HEARS, "# untrained\n")
        write_checkpoint(Path("postnet"), voices.randomised(KNOWING), KNOWING, "# untrained\n", {MOTION: Path("motion")})
        write_checkpoint(Path("head"), head, head.config, "# untrained\n")
        write_checkpoint(checkpoint, torso, TORSO, "# untrained\n", {HEAD: Path("head"), POSTNET: Path("postnet")})
        for below in ("motion", "postnet", "head"):
            shutil.rmtree(below)
    (folder / "voice.wav").write_bytes(wav_bytes(voice(0.41), RATE))
    return folder


@pytest.fixture
def place(made, monkeypatch) -> Iterator[Path]:
    monkeypatch.chdir(made)
    before = {path.name for path in made.iterdir()}
    yield made
    for path in made.iterdir():
        if path.name not in before:
            path.unlink()


def command(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["render", *words])
    return done.exit_code, done.output


def said(*options: str) -> bytes:
    """The film, all of it."""
    code, told = command("voice.wav", "said.mp4", *options)
    assert code == 0, told
    return Path("said.mp4").read_bytes()


def shown(path: Path) -> np.ndarray:
    """(T, H, W, 3) every frame of a film."""
    return np.stack(list(frames_at(path, 25)))


def test_the_film_is_as_long_as_the_sound_and_has_it(place):
    code, told = command("voice.wav", "out.mp4")
    assert (code, "synthetic" in told) == (0, True), told
    frames, sound = shown(place / "out.mp4"), samples_at(place / "out.mp4", 16_000)
    assert frames.shape == (11, 32, 32, 3)  # a begun one counts
    assert abs(len(sound) / 16_000 - 0.41) < 0.06  # AAC's blocks at both ends
    assert np.abs(sound).max() > 0.05
    assert frames.std() > 5
    assert {path.name for path in place.iterdir()} == {"params.yaml", "data", "voice.wav", "out.mp4"}
    assert said() == (place / "out.mp4").read_bytes(), "the same again"


def test_the_head_moves_in_a_loop_and_stands_still_if_told_so(place):
    said()
    moving = shown(place / "said.mp4").astype(int)
    said("--pose", "still")
    still = shown(place / "said.mp4").astype(int)
    assert np.abs(moving - still).mean(axis=(1, 2, 3))[1::3].min() > 1  # poses 1, 2, 3 of four are others
    assert np.abs(np.diff(moving, axis=0)).mean() > 1.5 * np.abs(np.diff(still, axis=0)).mean()


def test_seed_eyes_source_and_clip_are_those_asked_for(place):
    asked = ["--like", "person/clip00"], ["--no-blink"], ["--source", "generic"], ["--seed", "1"], ["--like", "person/clip03"]
    films = [said(*options) for options in asked]
    alike = [(one, other) for one, other in combinations(range(len(asked)), 2) if films[one] == films[other]]
    assert not alike
    assert films[0] == said(), "the first that was trained on"


def test_what_fails_midway_leaves_nothing_and_an_older_film_stays(place, monkeypatch):
    (place / "old.mp4").write_bytes(b"an older film")

    def failing(*_):
        yield from [np.zeros((32, 32, 3), np.uint8)] * 3
        raise ValueError("the painter broke: run it again")

    monkeypatch.setattr(generate, "paint", failing)
    for name in ("old.mp4", "new.mp4"):
        code, told = command("voice.wav", name)
        assert (code, told.splitlines()[-1]) == (1, "voice.wav was not said: the painter broke: run it again")
    assert (place / "old.mp4").read_bytes() == b"an older film"
    assert {path.name for path in place.iterdir()} == {"params.yaml", "data", "voice.wav", "old.mp4"}


def test_pictures_go_to_the_film_one_by_one(place, monkeypatch):
    alive: weakref.WeakSet[np.ndarray] = weakref.WeakSet()
    most = 0

    class Picture(np.ndarray):
        __hash__ = object.__hash__

    def watched(person, motion_TX, *_):
        nonlocal most
        for _ in motion_TX:
            picture = np.zeros((32, 32, 3), np.uint8).view(Picture)
            alive.add(picture)
            most = max(most, len(alive))
            yield picture
            del picture

    monkeypatch.setattr(generate, "paint", watched)
    said()
    assert 0 < most < 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gone.wav", "out.mp4"), "there is no file gone.wav"),
        (("voice.wav", "out.avi"), "the film is an .mp4"),
        (("voice.wav", "gone/out.mp4"), "there is no folder gone"),
        (("params.yaml", "out.mp4"), "params.yaml was not said"),
        (("voice.wav", "out.mp4", "--pose", "fast"), "--pose fast: it is one of film, still, loop"),
        (("voice.wav", "out.mp4", "--pose", "film"), "4 poses, and the sound 11 frames: take a still, or a loop"),
        (("voice.wav", "out.mp4", "--source", "filmed"), "--source filmed: it is one of adapted, generic"),
        (("voice.wav", "out.mp4", "--like", "person/clip09"), "has no clip person/clip09: it has person/clip00"),
    ],
)
def test_what_cannot_be_had_is_told_in_a_line(place, words, message):
    code, told = command(*words)
    assert code == 1
    assert message in told
    assert len(told.splitlines()) == 1
    assert not (place / "out.mp4").exists()


def test_without_a_trained_person_the_next_step_is_told(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "voice.wav"):
        shutil.copy(place / name, tmp_path)
    code, told = command("voice.wav", "out.mp4")
    assert (code, "talkingface person VIDEO" in told) == (1, True)


def test_a_person_who_is_not_learnt_yet_does_not_borrow_anothers_head(place):
    """As after `talkingface person anna.mp4 --no-train`: params.yaml names anna, the checkpoint is still of the one before."""

    def learnt(corpus: str) -> None:
        section = {"systems.geneface": {"corpus": corpus, "source": "heads"}}
        (place / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train@geneface": {"params": {"params.yaml": section}}}}))

    learnt("anna")
    code, told = command("voice.wav", "out.mp4")
    assert (code, "geneface has learnt anna, and params.yaml says webcam" in told) == (1, True)
    assert not (place / "out.mp4").exists()
    learnt("webcam")
    assert command("voice.wav", "out.mp4")[0] == 0


def test_the_shut_eyes_of_a_checkpoint_that_knows_none_are_not_made_up(place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    postnet = output("checkpoints", "geneface") / POSTNET
    below = shutil.move(postnet / MOTION, tmp_path / "motion")
    stranger = replace(voices.CONFIG, clamp_std=0.0, upper_share=1.0)
    write_checkpoint(postnet, voices.randomised(stranger), stranger, "# untrained\n", {MOTION: Path(below)})
    code, told = command("voice.wav", "out.mp4")
    assert (code, "give --no-blink" in told) == (1, True)
    assert command("voice.wav", "out.mp4", "--no-blink")[0] == 0
