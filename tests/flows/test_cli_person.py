"""`talkingface person`: what it tells, and that only what geneface needs is made."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.repo import Repo
from typer.testing import CliRunner

import flows.reproduce
import flows.stale
from data import manifest as committed
from flows.cli import app
from flows.reproduce import Outcome, StagesFailed
from flows.stale import Meta, Plan, Stage, plan
from stages import person
from tests.flows.repository import repository
from tests.media import voice, write_video
from tests.project import ROOT

STAGES = {
    "up": {"cmd": "cp source up.txt", "deps": ["source"], "outs": ["up.txt"]},
    "goal": {
        "foreach": ["one", "other"],
        "do": {"cmd": "cp up.txt ${item}.txt", "deps": ["up.txt"], "params": ["${item}"], "outs": ["${item}.txt"]},
    },
    "beyond": {"cmd": "cp one.txt beyond.txt", "deps": ["one.txt"], "outs": ["beyond.txt"]},
}


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Without a face, which is not looked for here."""
    frames = [np.full((48, 64, 3), 100 + index, np.uint8) for index in range(51)]
    return write_video(tmp_path_factory.mktemp("film") / "anna.mp4", frames, [index / 5 for index in range(51)], voice(10.2))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "data/manifests", tmp_path / "data/manifests")
    for module in (committed, person):
        monkeypatch.setattr(module, "HERE", tmp_path / "data")
    return tmp_path


def command(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["person", *words])
    return done.exit_code, done.output


def test_without_training_it_says_what_to_type(project, film):
    code, told = command(str(film), "--no-train")
    assert code == 0, told
    assert "anna: 10 s of film" in told and "geneface learns it now, instead of" in told
    assert f"next: talkingface person {film} --name anna --crop bust" in told
    assert yaml.safe_load((project / "params.yaml").read_text())["heads"] == ["anna"]


def test_a_film_that_cannot_be_used_is_told_in_a_line(project):
    code, told = command("gone.mp4")
    assert (code, told) == (1, "nobody was learnt: there is no file gone.mp4\n")


def planned(tell, targets):
    assert targets == ["render@geneface"]
    return Plan([Stage("render@geneface", "params.yaml modified", frozenset(), Meta(), 1)], ["render@geneface"], frozenset())


def test_training_runs_up_to_the_rendering_and_says_what_comes_next(project, film, monkeypatch):
    def made(found, jobs, tell):
        tell("render@geneface: starts")
        return [Outcome(stage.name, "ran", 1.0, stage.why) for stage in found.stages]

    monkeypatch.setattr(flows.stale, "plan", planned)
    monkeypatch.setattr(flows.reproduce, "reproduce", made)
    code, told = command(str(film), "--name", "anna")
    assert code == 0, told
    for words in ("1 stages to make", "render@geneface: starts", "next: talkingface render SOUND OUT.mp4"):
        assert words in told


def test_a_stage_that_failed_is_the_command_s_failure(project, film, monkeypatch):
    def made(found, jobs, tell):
        raise StagesFailed([Outcome("render@geneface", "failed", 1.0, "stale", "no face")])

    monkeypatch.setattr(flows.stale, "plan", planned)
    monkeypatch.setattr(flows.reproduce, "reproduce", made)
    code, told = command(str(film))
    assert code == 1
    assert "render@geneface failed; its last words:\nno face" in told
    assert "next:" not in told


def test_a_plan_for_a_target_holds_what_it_needs_and_nothing_else(tmp_path, monkeypatch):
    folder = repository(tmp_path / "here", STAGES, {"one": 1, "other": 1})
    monkeypatch.chdir(folder)
    found = plan(print, ["goal@one"])
    assert [stage.name for stage in found.stages] == ["up", "goal@one"]
    assert found.stages[1].upstream == {"up"}
    assert [stage.name for stage in plan(print).stages] == found.order
    with Repo() as repo:
        repo.reproduce()
    (folder / "params.yaml").write_text("{one: 1, other: 2}")
    assert plan(print, ["goal@one"]).stages == []
    assert [stage.name for stage in plan(print, ["goal@other"]).stages] == ["goal@other"]
