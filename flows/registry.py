"""The MLflow model registry: which checkpoint of a system is its champion, which its challenger, and what each was made of.

The registered model of a system is `talkingface-<system>`; a version of it is what one training run left, as a model that can be
served (flows/serving.py), with its card as description and its lineage as tags:

    git.commit        of the code that trained it
    dataset.digest    DVC's hash of what it was trained on
    test.digest       of what its held-out scores rest on: the clips, how they were sampled, and the code that judged
    run_id            the MLflow run that trained it
    champion.before   number of the version that was champion before it became so: where a rollback goes

Everything here reads the present store, MLFLOW_TRACKING_URI, and the present folder's `data/`.
"""

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS, MLFLOW_RUN_NOTE

from data.shardset import INDEX
from flows import serving
from flows.tracking import COMMIT, dvc_hash, held_out_scores, inputs_of, trained_run
from models.checkpoint import CARD
from stages.engine import code_version
from stages.judges import judge_of
from stages.params import output, raw_section, system_params

PREFIX = "talkingface-"
CHAMPION, CHALLENGER, BEFORE = "champion", "challenger", "champion.before"
EVALUATION = "evaluation/metrics.json"  # of a version's artifacts: the held-out scores, clip by clip


@dataclass(frozen=True)
class Version:
    """One version of a system's registered model."""

    system: str
    number: int
    run_id: str  # the MLflow run that trained it
    model_id: str  # the LoggedModel that it is
    git_commit: str
    dataset_digest: str
    test_digest: str

    @property
    def name(self) -> str:
        """The registered model's."""
        return PREFIX + self.system

    @property
    def model_uri(self) -> str:
        """What `mlflow models serve -m` takes."""
        return f"models:/{self.name}/{self.number}"


def register(system: str) -> Version:
    """The present checkpoint of `system` as a version of its registered model; the one that its run has already, if it has one.

    Its held-out scores are those of the present evaluation, also where the version was there before. Raises LookupError where
    the store does not know the run, FileNotFoundError for a system that is not trained or not evaluated yet.
    """
    run, client = trained_run(system), mlflow.MlflowClient()
    metrics = json.loads(_made(output("evaluation", system) / "metrics.json", f"evaluate@{system}").read_text())
    known = [one for one in versions(system) if one.run_id == run.info.run_id]
    version = known[0] if known else _create(client, system, run)
    present = held_out_digest(system)
    if version.test_digest != present:  # set last: what is here whole is not done again
        _link(client, version)
        _log_scores(client, version, metrics)
        client.set_model_version_tag(version.name, str(version.number), "test.digest", present)
    return get(system, version.number)


def versions(system: str) -> list[Version]:
    """All versions of a system, the newest first."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{PREFIX + system}'")
    return sorted(map(_version, found), key=lambda version: version.number, reverse=True)


def get(system: str, number: int) -> Version:
    """One version by its number. Raises LookupError."""
    try:
        return _version(mlflow.MlflowClient().get_model_version(PREFIX + system, str(number)))
    except mlflow.MlflowException as error:
        if _is(error, RESOURCE_DOES_NOT_EXIST):
            raise LookupError(f"{PREFIX + system} has no version {number}, any more at least: promote one that it has") from error
        raise


def champion(system: str) -> Version | None:
    """The version that @champion names, if any."""
    return _aliased(system, CHAMPION)


def challenger(system: str) -> Version | None:
    """The version that @challenger names, if any."""
    return _aliased(system, CHALLENGER)


def set_challenger(version: Version) -> None:
    """@challenger names this version from now on."""
    mlflow.MlflowClient().set_registered_model_alias(version.name, CHALLENGER, str(version.number))


def promote(version: Version) -> None:
    """@champion names this version from now on, which remembers the former champion; as challenger it has had its day."""
    client, former = mlflow.MlflowClient(), champion(version.system)
    if former is None or former.number != version.number:
        # The tag comes first: killed in between, the former champion is champion still, and its own way back is untouched.
        if former is None:
            client.delete_model_version_tag(version.name, str(version.number), BEFORE)
        else:
            client.set_model_version_tag(version.name, str(version.number), BEFORE, str(former.number))
        client.set_registered_model_alias(version.name, CHAMPION, str(version.number))
    if challenger(version.system) == version:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def rollback(system: str) -> Version:
    """Makes the former champion champion again, and returns it. Raises LookupError where there is none to go back to."""
    client, present = mlflow.MlflowClient(), champion(system)
    if present is None:
        raise LookupError(f"{system} has no champion: there is nothing to go back from")
    before = client.get_model_version(present.name, str(present.number)).tags.get(BEFORE)
    if before is None:
        raise LookupError(f"version {present.number} is the first champion of {system}: there is none before it to go back to")
    former = get(system, int(before))
    client.set_registered_model_alias(former.name, CHAMPION, before)
    return former


def evaluation(version: Version) -> dict[str, Any]:
    """The version's held-out scores as `evaluate` wrote them: "own", "baselines", and by key of each clip "clips"."""
    return json.loads(mlflow.artifacts.load_text(f"{version.model_uri}/{EVALUATION}"))


def checkpoint(version: Version, into: Path) -> Path:
    """A copy of the version's checkpoint folder, inside the folder `into`."""
    source = f"{version.model_uri}/artifacts/{version.system}"
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(into)))


def held_out_digest(system: str) -> str:
    """Names what held-out scores rest on beside the checkpoint; another one, and two versions' scores are not comparable.

    The held-out clips by the sha256 that their index has, not DVC's hash of the whole set, which another training clip changes.
    """
    corpus = system_params(system).corpus
    clips = _made(output("shards", corpus) / "test" / INDEX, f"shards@{corpus}").read_bytes()
    code = [code_version(module) for module in (judge_of(system).__name__, f"models.{system}.generate")]
    told = [hashlib.sha256(clips).hexdigest(), raw_section(f"evaluate.{system}"), code]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _create(client: mlflow.MlflowClient, system: str, run: Run) -> Version:
    """A new version. Killed at any moment it leaves none, and what it leaves in the store the next call removes or takes."""
    name, card = PREFIX + system, _made(output("checkpoints", system) / CARD, f"train@{system}").read_text()
    trained_on = next(one.dataset.digest for one in inputs_of(run) if _context(one.tags) == "training")
    lineage = {COMMIT: run.data.tags[COMMIT], "dataset.digest": trained_on, "run_id": run.info.run_id}
    model_id = _logged(client, system, run, lineage)
    try:
        client.create_registered_model(name, description=f"`{system}` of the talking-face laboratory: sound in, a film out.")
    except mlflow.MlflowException as error:
        if not _is(error, RESOURCE_ALREADY_EXISTS):
            raise
    source, run_id = f"models:/{model_id}", run.info.run_id
    return _version(client.create_model_version(name, source, run_id, tags=lineage, description=card, model_id=model_id))


def _logged(client: mlflow.MlflowClient, system: str, run: Run, tags: dict[str, str]) -> str:
    """Id of the run's LoggedModel, made if it is not there whole."""
    run_id, experiment = run.info.run_id, run.info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{PREFIX + system}'"):
        if model.status == LoggedModelStatus.READY:
            return model.model_id
        client.delete_logged_model(model.model_id)
    logged = client.create_logged_model(experiment, PREFIX + system, run_id, tags, run.data.params, model_type="talking face")
    described = Model(artifact_path=logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory() as scratch:
        serving.save(system, Path(scratch, "model"), described)
        client.log_model_artifacts(logged.model_id, str(Path(scratch, "model")))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id


def _link(client: mlflow.MlflowClient, version: Version) -> None:
    """Has the page of the version's LoggedModel show the version and its card: a server does the first by itself, a file not."""
    known = client.get_model_version(version.name, str(version.number))
    link = json.dumps([{"name": version.name, "version": known.version}])
    client.set_logged_model_tags(version.model_id, {MLFLOW_MODEL_VERSIONS: link, MLFLOW_RUN_NOTE: known.description})


def _log_scores(client: mlflow.MlflowClient, version: Version, metrics: dict[str, Any]) -> None:
    """The held-out scores as an artifact and, in the mean, as metrics of the model on the set that they were taken on."""
    client.log_model_artifact(version.model_id, str(output("evaluation", version.system) / "metrics.json"), "evaluation")
    held_out = output("shards", system_params(version.system).corpus) / "test"
    now, digest = int(time.time() * 1000), dvc_hash(str(held_out))
    scores = held_out_scores(version.system, metrics).items()
    points = [Metric(name, value, now, 0, version.model_id, str(held_out), digest, version.run_id) for name, value in scores]
    client.log_batch(version.run_id, metrics=points)


def _aliased(system: str, alias: str) -> Version | None:
    try:
        return _version(mlflow.MlflowClient().get_model_version_by_alias(PREFIX + system, alias))
    except mlflow.MlflowException as error:
        # No such registered model; no such alias.
        if _is(error, RESOURCE_DOES_NOT_EXIST) or _is(error, INVALID_PARAMETER_VALUE):
            return None
        raise


def _version(found: ModelVersion) -> Version:
    tags = found.tags
    digests = tags[COMMIT], tags["dataset.digest"], tags.get("test.digest", "")
    model_id = (found.source or "").removeprefix("models:/")  # as it was made from: a store of SQL keeps nothing else of it
    return Version(found.name.removeprefix(PREFIX), int(found.version), tags["run_id"], model_id, *digests)


def _made(path: Path, stage: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there yet: `dvc repro {stage}` makes it")
    return path


def _context(tags: list[Any]) -> str | None:
    return next((tag.value for tag in tags if tag.key == "mlflow.data.context"), None)


def _is(error: mlflow.MlflowException, code: int) -> bool:
    return error.error_code == ErrorCode.Name(code)
