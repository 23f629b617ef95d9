"""Films in the inbox: which are taken, where they go, and that what is held out comes after all that was trained on."""

import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml

from data import manifest as committed
from data.corpora import corpus_clips
from data.manifest import manifest, splits
from data.shardset import json_object
from stages import inbox
from tests.media import write_video
from tests.miniatures.person import speech
from tests.project import ROOT

INBOX = Path("data/inbox")


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[float, Path]:
    """By their seconds; without a face, which nothing here looks for."""
    folder = tmp_path_factory.mktemp("films")
    return {seconds: grey(folder / f"{seconds}.mp4", seconds) for seconds in (12.0, 6.0)}


def grey(path: Path, seconds: float, silent: bool = False) -> Path:
    frames = [np.full((48, 64, 3), 100 + index % 50, np.uint8) for index in range(round(5 * seconds))]
    times = [index / 5 for index in range(len(frames))]
    return write_video(path, frames, times, None if silent else speech(seconds, ()), rate=Fraction(5))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The committed manifests, and anna, a person."""
    monkeypatch.chdir(tmp_path)
    for folder in ("manifests", "splits"):
        shutil.copytree(ROOT / "data" / folder, tmp_path / "data" / folder)
    settings = {"shortest": 0.4, "longest": 1.0}
    anna = {"like": "person", "about": "anna", "crop": "face", "split": "person", "settings": settings}
    (tmp_path / "data/manifests/anna.yaml").write_text(yaml.safe_dump(anna))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"corpora": ["sample", "anna"]}))
    monkeypatch.setattr(committed, "HERE", tmp_path / "data")
    return tmp_path


def drop(film: Path, where: str, age_s: float = 100.0) -> Path:
    target = INBOX / where
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(film, target)
    then = target.stat().st_mtime - age_s
    os.utime(target, (then, then))
    return target


def divided() -> dict[str, str]:
    """Which split each clip of anna's is in."""
    clips = [one for one in corpus_clips(manifest("anna"), Path("data/raw/anna"))]
    about = {one.key: json_object(one.members["json"]) for one in clips}
    return splits("person").divide([(key, one["end"] - one["start"]) for key, one in about.items()])


def test_whole_films_are_moved_to_their_persons(project, films):
    content = films[12.0].read_bytes()
    drop(films[12.0], "anna/Evening at home.MOV")
    drop(films[6.0], "anna/ben/porch.mp4")
    moved = inbox.take(inbox.look(INBOX))
    assert [path.parent for path in moved] == [Path("data/raw/anna/anna"), Path("data/raw/anna/ben")]
    assert moved[0].name.endswith("-Evening at home.MOV")
    assert moved[0].read_bytes() == content
    assert not [path for path in INBOX.rglob("*") if path.is_file()]
    assert inbox.look(INBOX) == [] and inbox.look(Path("data/none")) == []


def test_what_is_held_out_is_always_the_newest(project, films):
    Path("data/raw/anna").mkdir(parents=True)
    shutil.copy(films[12.0], "data/raw/anna/anna.mp4")
    before = divided()
    drop(films[6.0], "anna/a first name.mp4")
    inbox.take(inbox.look(INBOX))
    after = divided()
    seen = {key for key, split in before.items() if split == "train"}
    assert seen and seen < set(after)
    assert not seen & {key for key, split in after.items() if split == "test"}
    assert all("first" in key for key, split in after.items() if split == "test")


@pytest.mark.parametrize(
    ("where", "age_s", "why_not"),
    [
        ("anna.mp4", 100, "it is to stand in data/inbox/CORPUS/"),
        ("anna/ben/june/1.mp4", 100, "it is to stand in"),
        ("bob/1.mp4", 100, "params.yaml names no corpus bob"),
        ("grid/1.mp4", 100, "params.yaml names no corpus grid"),
        ("sample/1.mp4", 100, "sample is none of films of your own"),
        ("anna/1.mp4", 3, "may still grow"),
    ],
)
def test_what_cannot_be_taken_is_left_with_a_reason(project, films, where, age_s, why_not):
    film = drop(films[6.0], where, age_s)
    (found,) = inbox.look(INBOX)
    assert why_not in found.why_not
    assert inbox.take([found]) == []
    assert film.exists() and not Path("data/raw").exists()


def test_a_broken_or_silent_film_is_left_and_the_others_are_taken(project, films, tmp_path):
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(films[12.0].read_bytes()[:-2000])
    drop(torn, "anna/torn.mp4")
    drop(grey(tmp_path / "silent.mp4", 6.0, silent=True), "anna/silent.mp4")
    drop(films[6.0], "anna/whole.mp4")
    (tmp_path / "data/inbox/anna/notes.txt").write_text("no film")
    assert [path.name.rpartition("-")[2] for path in inbox.take(inbox.look(INBOX))] == ["whole.mp4"]
    assert sorted(path.name for path in (INBOX / "anna").iterdir()) == ["notes.txt", "silent.mp4", "torn.mp4"]


def test_the_same_film_is_not_taken_twice(project, films):
    drop(films[6.0], "anna/1.mp4")
    (moved,) = inbox.take(inbox.look(INBOX))
    drop(films[6.0], "anna/2.mp4")
    (found,) = inbox.look(INBOX)
    assert found.why_not == f"it is {moved} already: remove it"
