"""A film to a person's corpus: what is refused, what is placed, and what params.yaml says afterwards."""

import difflib
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from data import manifest as committed
from data.corpora import corpus_clips
from data.corpora.person import FPS, cut
from data.manifest import manifest, splits
from data.media.audio import wav_bytes
from data.shardset import json_object
from stages import person
from stages.params import WrongParams
from stages.person import CannotLearn, clip_lengths, make_corpus
from tests.media import RATE, write_video
from tests.miniatures.person import speech
from tests.project import ROOT

SECONDS = 12.0


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return grey(tmp_path_factory.mktemp("film") / "Anna at home.MP4", SECONDS, speech(SECONDS, ((5.0, 5.6),)))


def grey(path: Path, seconds: float, sound: np.ndarray | None) -> Path:
    """A film without a face, which nothing here looks for."""
    frames = [np.full((48, 64, 3), 100 + index % 50, np.uint8) for index in range(round(5 * seconds))]
    times = [index / 5 for index in range(len(frames))]
    return write_video(path.with_suffix(".mp4"), frames, times, sound, rate=Fraction(5)).rename(path)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The committed parameters, manifests and splits."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for folder in ("manifests", "splits"):
        shutil.copytree(ROOT / "data" / folder, tmp_path / "data" / folder)
    for module in (committed, person):
        monkeypatch.setattr(module, "HERE", tmp_path / "data")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_film_becomes_a_corpus_with_clips_in_each_split(project, film):
    made = make_corpus(film, "anna", "bust")
    assert (made.corpus, round(made.seconds)) == ("anna", 12)
    assert (project / "data/raw/anna/anna.mp4").read_bytes() == film.read_bytes()
    known = manifest("anna")
    assert (known.adapter, known.crop, known.split) == ("person", "bust", "person")
    found = [(clip.key, json_object(clip.members["json"])) for clip in corpus_clips(known, Path("data/raw/anna"))]
    lengths = [(key, about["end"] - about["start"]) for key, about in found]
    assert all(0.7 < seconds <= 2 for _, seconds in lengths)
    split_of = splits(known.split).divide(lengths)
    assert set(split_of.values()) == {"train", "val", "test"}
    assert list(split_of.values()).count("train") > 0.6 * len(split_of)


def test_params_change_in_the_person_s_places_alone(project, film):
    before = Path("params.yaml").read_text()
    make_corpus(film, "anna", "bust")
    after = Path("params.yaml").read_text()
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert len(changed) == 2 * (2 + len(person.LEARNERS))
    assert all(line.partition("#")[2] in after for line in changed), "comments stay"
    expected = yaml.safe_load(before)
    expected["corpora"].append("anna")
    expected["heads"] = ["anna"]
    for section, name in (("pretrain", "head"), ("upon", "postnet"), ("systems", "geneface")):
        expected[section][name]["corpus"] = "anna"
    assert yaml.safe_load(after) == expected


def test_the_same_again_changes_nothing_and_another_person_takes_the_place(project, film):
    until_now = yaml.safe_load(Path("params.yaml").read_text())["heads"]
    assert [make_corpus(film, "anna", "bust").before] == until_now
    whole = files(project)
    again = make_corpus(project / "data/raw/anna/anna.mp4", None, "bust")
    assert (again.corpus, again.before) == ("anna", "anna")
    assert files(project) == whole
    assert make_corpus(film, "ben", "portrait").before == "anna"
    params = yaml.safe_load(Path("params.yaml").read_text())
    assert params["corpora"][-2:] == ["anna", "ben"] and params["heads"] == ["ben"]
    assert manifest("ben").crop == "portrait"


def test_another_film_of_that_name_is_refused_and_nothing_changes(project, film, tmp_path):
    make_corpus(film, "anna", "bust")
    other = grey(tmp_path / "other.mp4", 11.0, speech(11.0, ()))
    whole = files(project)
    with pytest.raises(CannotLearn, match=r"data/raw/anna/anna.mp4 is another film of anna: give this one another --name"):
        make_corpus(other, "anna", "bust")
    with pytest.raises(CannotLearn, match="crop: bust, not portrait: change it there, or give --crop bust"):
        make_corpus(film, "anna", "portrait")
    with pytest.raises(CannotLearn, match="corpus sample already"):
        make_corpus(film, "sample", "bust")
    (project / "data/raw/anna/second.mov").write_bytes(b"of hers")
    with pytest.raises(CannotLearn, match=r"second.mov is another film"):
        make_corpus(film, "anna", "bust")
    (project / "data/raw/anna/second.mov").unlink()
    assert files(project) == whole


def test_what_a_kill_left_of_the_copy_is_done_again(project, film):
    folder = project / "data/raw/anna"
    folder.mkdir(parents=True)
    (folder / "anna.mp4.tmp").write_bytes(film.read_bytes()[:1000])
    make_corpus(film, "anna", "bust")
    assert [path.name for path in folder.iterdir()] == ["anna.mp4"]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("mute.mp4", lambda path: grey(path, 12.0, None), "no audio stream: film somebody who speaks"),
        ("sound.mp4", lambda path: path.write_bytes(wav_bytes(speech(12.0, ()), RATE)), "no video stream: film somebody"),
        ("words.mp4", lambda path: path.write_text("no film\n" * 99), "cannot be read .*: see whether it plays"),
        ("short.mp4", lambda path: grey(path, 4.0, speech(4.0, ())), "lasts 4.0 s: film 10 s or more"),
        ("film.txt", lambda path: path.write_text("no film"), "name it .mp4"),
        ("gone.mp4", lambda path: None, "there is no file"),
    ],
)
def test_an_unusable_film_is_refused_with_what_to_do(project, tmp_path, name, write, message):
    write(tmp_path / name)
    whole = files(project)
    with pytest.raises(CannotLearn, match=message) as refused:
        make_corpus(tmp_path / name, "anna", "bust")
    assert str(tmp_path / name) in str(refused.value)
    assert files(project) == whole


@pytest.mark.parametrize("name", ["Anna", "../anna", "no", "null", "1e3", "", "a" * 41, "anna.2"])
def test_a_name_that_means_something_else_is_refused(project, film, name):
    with pytest.raises(CannotLearn, match="no name of a corpus: give --name"):
        make_corpus(film, name, "bust")


def test_the_file_s_name_is_the_corpus_s_if_none_is_given(project, film):
    assert make_corpus(film, None, "bust").corpus == "anna_at_home"


def test_a_crop_that_is_not_taken_apart_is_refused(project, film):
    with pytest.raises(CannotLearn, match="--crop face: it is one of portrait, bust"):
        make_corpus(film, "anna", "face")


def test_params_without_geneface_are_told_before_anything_is_written(project, film):
    params = yaml.safe_load(Path("params.yaml").read_text())
    del params["systems"]["geneface"]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    whole = files(project)
    with pytest.raises(WrongParams, match=r"systems\.geneface"):
        make_corpus(film, "anna", "bust")
    assert files(project) == whole


@pytest.mark.parametrize("seconds", [10.0, 20.0, 60.0, 180.0, 1200.0])
def test_a_film_of_any_length_has_a_clip_in_each_split(seconds):
    shortest, longest = clip_lengths(seconds)
    assert 2 * shortest <= longest <= 8
    assert round(FPS * shortest) >= 12, "what align takes"
    frames = round(FPS * seconds)
    for quiet in (np.zeros(frames, bool), np.arange(frames) % 40 > 30):
        cuts = cut(quiet, round(FPS * shortest), round(FPS * longest))
        clips = [(f"anna/{index:03d}", (end - start) / FPS) for index, (start, end) in enumerate(pairwise(cuts))]
        held = list(splits("person").divide(clips).values())
        assert held.count("val") >= 1 and held.count("test") >= 1
        assert held.count("train") >= 0.6 * len(clips)
