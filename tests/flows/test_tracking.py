"""What a run remembers: whose child it is, what it is, and on what it was tested; in a real MLflow store."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from flows.publish import publish
from flows.tracking import training_run
from stages.params import output
from tests.flows import trained
from tests.project import ROOT, environment

SYSTEM = trained.SYSTEM
PARAMS = {"preset": "sample", "corpus": "sample"}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return trained.copied(tmp_path / "project", monkeypatch)


def test_a_training_stands_below_the_retraining_that_asked_for_it(project, monkeypatch):
    with mlflow.start_run(run_name="retrain") as parent:
        pass
    with training_run(SYSTEM, Path("alone.json"), PARAMS, "data/shards/sample") as alone:
        pass
    monkeypatch.setenv("TALKINGFACE_PARENT_RUN", parent.info.run_id)
    with pytest.raises(KeyboardInterrupt), training_run(SYSTEM, Path("state.json"), PARAMS, "data/shards/sample") as child:
        raise KeyboardInterrupt
    with training_run(SYSTEM, Path("state.json"), PARAMS, "data/shards/sample") as again:
        assert again == child
    found = mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
    )
    assert [run.info.run_id for run in found] == [child]
    assert "mlflow.parentRunId" not in mlflow.get_run(alone).data.tags
    assert "`diffspeaker` on `data/shards/sample`" in mlflow.get_run(child).data.tags["mlflow.note.content"]


@pytest.mark.slow
def test_a_new_store_may_be_found_by_several_at_once(tmp_path):
    words = (sys.executable, "-c", "import sys; from flows.tracking import open_experiment; open_experiment(sys.argv[1])")
    variables = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    several = [subprocess.Popen([*words, f"{number}"], cwd=tmp_path, env=variables) for number in range(4)]
    assert [one.wait(300) for one in several] == [0] * 4
    store = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {found.name for found in store.search_experiments()} == {"Default", "0", "1", "2", "3"}


def test_a_run_killed_before_it_was_described_is_described_by_the_next(project, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow, "set_tags", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with training_run(SYSTEM, Path("state.json"), PARAMS, "data/shards/sample"):
            pytest.fail("the run had begun")
    with training_run(SYSTEM, Path("state.json"), PARAMS, "data/shards/sample") as again:
        pass
    run = mlflow.get_run(again)
    assert run.data.params == PARAMS
    assert (len(run.inputs.dataset_inputs), "git.commit" in run.data.tags) == (1, True)
    assert len(mlflow.search_runs([run.info.experiment_id], output_format="list")) == 2, "with the one of the project"


def test_a_published_run_tells_what_it_is_and_on_what_it_was_tested(project):
    for folder, name in (("renders", "clip.mp4"), ("report", "index.html")):
        made = output(folder, SYSTEM if folder == "renders" else "site")
        made.mkdir(parents=True)
        (made / name).write_bytes(b"made")
    publish(SYSTEM)
    publish(SYSTEM)
    run = mlflow.get_run(json.loads(Path("data/published/diffspeaker/run.json").read_text())["run_id"])
    contexts = {one.dataset.name: {tag.value for tag in one.tags} for one in run.inputs.dataset_inputs}
    assert contexts == {"data/shards/sample": {"training"}, "data/shards/sample/test": {"testing"}}
    assert len(run.inputs.dataset_inputs) == 2
    (found,) = mlflow.search_runs(
        search_all_experiments=True,
        filter_string="dataset.name = 'data/shards/sample/test' AND dataset.context = 'testing'",
        output_format="list",
    )
    assert found.info.run_id == run.info.run_id
    note = run.data.tags["mlflow.note.content"]
    assert "`diffspeaker`, preset `tiny`, on `sample`" in note
    assert "LVE is 0.50 of template's" in note
    assert run.info.run_id in note and "report/index.html" in note
    kept = {
        item.path for folder in ("renders", "report") for item in mlflow.MlflowClient().list_artifacts(run.info.run_id, folder)
    }
    assert kept == {"renders/clip.mp4", "report/index.html"}
    assert run.data.metrics["test/template/lve_mm"] == 4.0
