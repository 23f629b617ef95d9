"""Versions of a system in a real MLflow store: made once, promoted, rolled back, and leading to what they were made of."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException

from flows import registry, serving
from flows.registry import challenger, champion, promote, register, rollback, set_challenger, versions
from tests.flows import trained
from tests.project import change_params

SYSTEM = trained.SYSTEM


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return trained.copied(tmp_path / "project", monkeypatch)


def another(seed: int) -> registry.Version:
    trained.train(seed)
    return register(SYSTEM)


@pytest.fixture
def packed(project, monkeypatch) -> None:
    """Versions whose models are an empty file each, for tests of what is done with them."""
    monkeypatch.setattr(serving, "save", lambda system, path, described: (path.mkdir(), (path / "MLmodel").touch()))


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_version_leads_back_to_its_run_its_data_and_its_bytes(project):
    version = register(SYSTEM)
    run = json.loads((project / "data/training/diffspeaker/run.json").read_text())["run_id"]
    assert (version.name, version.number, version.run_id) == ("talkingface-diffspeaker", 1, run)
    assert version.model_uri == "models:/talkingface-diffspeaker/1"
    client = mlflow.MlflowClient()
    remembered = client.get_model_version(version.name, "1")
    assert remembered.run_id == run
    assert remembered.tags["dataset.digest"] == "0" * 32 + ".dir"
    assert len(remembered.tags["test.digest"]) == 32
    assert remembered.description == "# training 0\n"
    assert [output.model_id for output in client.get_run(run).outputs.model_outputs] == [version.model_id]
    model = client.get_logged_model(version.model_id)
    assert (model.status, model.source_run_id, model.params["steps"]) == (LoggedModelStatus.READY, run, "7")
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": version.name, "version": 1}], "as its page shows it"
    assert model.tags["mlflow.note.content"] == "# training 0\n"
    (score,) = [one for one in model.metrics if one.key == "test/diffspeaker/lve_mm"]
    assert (score.value, score.dataset_name, score.dataset_digest) == (3.0, "data/shards/sample/test", "0" * 32 + ".dir")
    assert registry.evaluation(version)["clips"] == {
        "anna/2": {"lve_mm": 3.0, "regions": "mediapipe478-v1"},
        "ben/2": {"lve_mm": 4.0, "regions": "mediapipe478-v1"},
    }
    kept = registry.checkpoint(version, project / "kept")
    assert files(kept) == files(project / "data/checkpoints/diffspeaker")
    told = mlflow.models.get_model_info(version.model_uri)
    assert told.signature.inputs.to_dict() == [{"type": "binary", "name": "audio", "required": True}]
    assert (told.signature.outputs.input_names(), told.run_id) == (["film"], run)


def test_the_same_run_is_the_same_version(project, packed):
    first = register(SYSTEM)
    assert register(SYSTEM) == first
    assert another(1).number == 2
    assert [version.number for version in versions(SYSTEM)] == [2, 1]
    assert len(mlflow.search_logged_models(output_format="list")) == 2


def test_a_registration_that_broke_off_is_made_whole_by_the_next(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(serving, "save", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
        with pytest.raises(OSError, match="the disk is full"):
            register(SYSTEM)
    assert versions(SYSTEM) == []
    with monkeypatch.context() as patch:  # all logged, but no version yet
        patch.setattr(mlflow.MlflowClient, "create_model_version", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            register(SYSTEM)
    version = register(SYSTEM)
    (model,) = mlflow.search_logged_models(output_format="list")
    assert (version.number, model.model_id) == (1, version.model_id)


def test_scores_are_taken_anew_where_what_they_rest_on_has_changed(project, packed):
    before = register(SYSTEM)
    trained.evaluate(lve_mm=1.0)
    assert registry.evaluation(register(SYSTEM))["own"]["lve_mm"] == 3.0, "as registered"
    trained.write_shards("sample", {"train": ("anna/0", "anna/1", "ben/0")})
    assert registry.held_out_digest(SYSTEM) == before.test_digest, "a training clip more changes no held-out score"
    trained.write_shards("sample", {"test": ("anna/2",)})
    after = register(SYSTEM)
    assert (after.number, after.test_digest != before.test_digest) == (1, True)
    assert registry.evaluation(after)["own"]["lve_mm"] == 1.0
    change_params(project, evaluate={SYSTEM: {"sampler": "ddim", "steps": 3}})
    assert registry.held_out_digest(SYSTEM) != after.test_digest


def test_champion_and_challenger_are_those_named_last(project, packed):
    assert champion(SYSTEM) is None and challenger(SYSTEM) is None
    first = register(SYSTEM)
    assert champion(SYSTEM) is None, "nobody is champion by being there"
    set_challenger(first)
    assert challenger(SYSTEM) == first
    promote(first)
    assert (champion(SYSTEM), challenger(SYSTEM)) == (first, None)
    second = another(1)
    set_challenger(second)
    assert (champion(SYSTEM), challenger(SYSTEM)) == (first, second)
    assert mlflow.MlflowClient().get_model_version_by_alias("talkingface-diffspeaker", "champion").version == 1


def test_a_rollback_goes_back_one_champion_at_a_time(project, packed):
    with pytest.raises(LookupError, match="diffspeaker has no champion"):
        rollback(SYSTEM)
    first, second, third = register(SYSTEM), another(1), another(2)
    promote(first)
    promote(third)
    promote(third)  # once more is nothing more
    assert rollback(SYSTEM) == first
    with pytest.raises(LookupError, match="version 1 is the first champion"):
        rollback(SYSTEM)
    assert champion(SYSTEM) == first
    promote(second)
    promote(third)
    assert [rollback(SYSTEM), rollback(SYSTEM)] == [second, first]


def test_a_rollback_to_a_version_that_is_gone_says_so_and_changes_nothing(project, packed):
    first, second = register(SYSTEM), another(1)
    promote(first)
    promote(second)
    mlflow.MlflowClient().delete_model_version(first.name, "1")
    with pytest.raises(LookupError, match="talkingface-diffspeaker has no version 1"):
        rollback(SYSTEM)
    assert champion(SYSTEM) == second


def test_what_is_not_there_is_named(project):
    with pytest.raises(FileNotFoundError, match=r"dvc repro train@video_editing"):
        register("video_editing")
    shutil.rmtree("data/evaluation")
    with pytest.raises(FileNotFoundError, match=r"dvc repro evaluate@diffspeaker"):
        register(SYSTEM)
    (project / "data/training/diffspeaker/run.json").write_text(json.dumps({"run_id": "0" * 32}))
    with pytest.raises(LookupError, match="which this MLflow store does not have"):
        register(SYSTEM)


def test_a_version_that_is_not_the_store_s_cannot_be_promoted(project, packed):
    with pytest.raises(MlflowException):
        promote(replace(register(SYSTEM), number=7))
    assert champion(SYSTEM) is None
