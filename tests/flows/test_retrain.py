"""Whether a new version becomes champion: the rule in closed form, and the flow on a system trained in a second."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from dvc.repo import Repo
from prefect.states import StateType
from typer.testing import CliRunner

from flows import registry
from flows.cli import app
from flows.retrain import _alone, mlflow_page, retrain
from flows.server import prefect_api
from flows.verdict import decide, decide_first
from tests.flows import trained
from tests.project import change_params

SYSTEM = trained.SYSTEM
RULE = {"metric": "lve_mm", "better": "lower", "margin": 0.5, "min_clips": 2, "baseline": "template"}
METRICS = f"data/evaluation/{SYSTEM}/metrics.json"


@pytest.mark.parametrize(
    ("champion", "challenger", "margin", "min_clips", "better", "promoted", "gain", "clips"),
    [
        ({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.5}, 0.5, 2, "higher", True, 0.5, 2),  # just enough
        ({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.25}, 0.5, 2, "higher", False, 0.375, 2),
        ({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.5}, 0.5, 2, "lower", False, -0.5, 2),
        ({"a": 4.0, "b": 2.0}, {"a": 1.0, "b": 3.0}, 1.0, 2, "lower", True, 1.0, 2),  # one clip is worse, the mean is not
        ({"a": 1.0, "b": 2.0}, {"b": 9.0, "c": 9.0}, 0.5, 2, "higher", False, 7.0, 1),  # only b is scored of both
        ({"a": 1.0, "b": None}, {"a": 2.0, "b": 3.0}, 0.5, 1, "higher", True, 1.0, 1),  # undefined scores do not count
        ({"a": 1.0}, {"a": float("nan")}, 0.0, 0, "higher", False, None, 0),
        ({}, {}, -9.0, 0, "higher", False, None, 0),
    ],
)
def test_a_champion_falls_to_a_margin_in_the_mean_of_paired_differences(
    champion, challenger, margin, min_clips, better, promoted, gain, clips
):
    decision = decide(champion, challenger, margin, min_clips, better)
    assert (decision.promoted, decision.gain, decision.clips) == (promoted, gain, clips)


@pytest.mark.parametrize(
    ("own", "baseline", "min_clips", "better", "promoted", "gain"),
    [
        (3.0, 2.0, 1, "higher", True, 1.0),
        (2.0, 2.0, 1, "higher", False, 0.0),
        (1.5, 2.0, 1, "lower", True, 0.5),
        (3.0, 2.0, 2, "higher", False, 1.0),
        (3.0, None, 1, "higher", False, None),
    ],
)
def test_the_first_champion_beats_its_baseline(own, baseline, min_clips, better, promoted, gain):
    decision = decide_first({"a": own, "b": None}, own, baseline, min_clips, better)
    assert (decision.promoted, decision.gain) == (promoted, gain)


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_api():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A trained project in a DVC repository of shell stages, whose scores are what stands in given.json."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        patch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        trained.trained_project(folder)
        Path("data/shards/sample").rename("shards")
        Path(METRICS).rename("given.json")
        Path("dvc.lock").unlink()
        copy = {"cmd": f"cp given.json {METRICS}", "deps": ["given.json"], "outs": [METRICS]}
        render = f"data/renders/{SYSTEM}"
        shown = {"cmd": f"mkdir -p {render} && cp {METRICS} {render}/shown", "deps": [METRICS], "outs": [render]}
        page = f"data/published/{SYSTEM}"
        publish = {"cmd": f"mkdir -p {page} && cp {render}/shown {page}/page", "deps": [render], "outs": [page]}
        stages = {"shards": {"cmd": "cp -r shards data/shards/sample", "deps": ["shards"], "outs": ["data/shards/sample"]}}
        for name, do in (("evaluate", copy), ("render", shown), ("publish", publish)):
            stages[name] = {"foreach": [SYSTEM], "do": do}
        Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["retrain"]["systems"] = {SYSTEM: RULE}
        Path("params.yaml").write_text(yaml.safe_dump(params))
        with Repo.init(no_scm=True) as repo:
            repo.reproduce("shards")
    return folder


@pytest.fixture
def project(server, made, tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("mlruns"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    return folder


def learnt(seed: int, lve_mm: float) -> None:
    """Another training, of these scores."""
    trained.train(seed)
    scores = json.loads(Path("given.json").read_text())
    scores["own"]["lve_mm"] = lve_mm
    for clip in scores["clips"].values():
        clip["lve_mm"] = lve_mm
    Path("given.json").write_text(json.dumps(scores))


def aliases() -> tuple[int | None, int | None]:
    """Numbers of the champion and of the challenger."""
    found = registry.champion(SYSTEM), registry.challenger(SYSTEM)
    return tuple(one and one.number for one in found)  # type: ignore[return-value]


def shown() -> float:
    return json.loads(Path(f"data/renders/{SYSTEM}/shown").read_text())["own"]["lve_mm"]


def told(*words: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, [*words], env={"COLUMNS": "200"})
    assert done.exit_code == status, done.output
    return done.output


@pytest.mark.slow
def test_only_what_is_better_by_the_margin_becomes_champion_and_is_shown(project):
    assert "diffspeaker promoted" in told("retrain")  # 3 mm, the template's are 4
    assert aliases() == (1, None) and shown() == 3.0
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("retrain").experiment_id
    dead = client.create_run(experiment).info.run_id  # of a retraining that was killed
    assert "nothing is new" in told("retrain")
    assert client.get_run(dead).info.status == "KILLED"
    shutil.rmtree("data/renders")  # as where a kill came after its promotion
    told("retrain")
    assert aliases() == (1, None) and shown() == 3.0
    learnt(1, 2.75)  # on clips where the champion has 3 and 4: better by 0.75
    assert "diffspeaker promoted" in told("retrain", SYSTEM)
    assert aliases() == (2, None) and shown() == 2.75
    learnt(2, 2.5)
    assert "diffspeaker kept" in told("retrain")
    assert aliases() == (2, 3) and shown() == 2.75
    listed = told("champions")
    assert f"{SYSTEM}  champion: version 2" in listed and f"{SYSTEM}  challenger: version 3" in listed and "+0.25" in listed
    assert "version 1" in told("rollback", SYSTEM)
    assert "nothing is new" in told("retrain"), "what was decided is not decided again"
    assert aliases()[0] == 1
    assert "first champion" in told("rollback", SYSTEM, status=1)
    parents = client.search_runs([experiment])
    assert [one.info.status for one in parents if one.info.run_id != dead] == ["FINISHED"] * 4
    assert "TALKINGFACE_PARENT_RUN" not in os.environ


def test_a_stage_that_fails_fails_the_retraining_and_moves_nothing(project):
    Path("given.json").unlink()
    Path("given.json").mkdir()  # cp refuses
    state = retrain(return_state=True)
    assert state.type == StateType.FAILED
    assert aliases() == (None, None)
    client = mlflow.MlflowClient()
    (parent,) = client.search_runs([client.get_experiment_by_name("retrain").experiment_id])
    assert parent.info.status == "FAILED"
    assert f"evaluate@{SYSTEM}" in parent.data.tags["failure"]


def test_two_retrainings_of_one_folder_do_not_meet(project):
    held = _alone()
    state = retrain(return_state=True)
    assert state.type == StateType.CANCELLED
    assert "another retraining is at work" in told("retrain", status=1)
    held.give_back()
    assert not Path(METRICS).exists(), "nothing was made"


def test_a_system_without_a_rule_is_told(project):
    assert "retrain.systems has no wav2lip; it has diffspeaker" in told("retrain", "wav2lip", status=1)
    change_params(project, retrain={"systems": {SYSTEM: RULE | {"better": "more"}}})
    assert "better" in told("retrain", status=1)


def test_a_link_to_the_store_has_no_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@example.org:8443/mlflow")
    assert mlflow_page() == "https://example.org:8443"
