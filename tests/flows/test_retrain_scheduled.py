"""A real server, a real worker and the deployments of prefect.yaml: a film in the inbox becomes a champion, or does not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml

from flows.server import free_port
from tests.flows.prefect_api import asked
from tests.media import talking
from tests.project import change_params, environment, run, tiny_project
from tests.waiting import until

pytestmark = pytest.mark.slow

SYSTEM = "video_editing"
TINY = {"channels": [32, 32], "attention_levels": [], "steps": 8, "val_every": 4, "log_every": 1, "batch_size": 2}
# Eight steps learn nothing: where lower is better, the first version beats the real frame before all the same.
RULE = {"metric": "psnr_mask", "better": "lower", "margin": -1000.0, "min_clips": 1, "baseline": "copy_previous_real_frame"}
TALKINGFACE = (sys.executable, "-m", "flows.cli")


def project(folder: Path) -> Path:
    """Of one system, which learns anna, a person of whom there are twelve seconds."""
    tiny_project(folder)
    manifest = {"like": "person", "about": "anna", "crop": "face", "split": "person"}
    manifest["settings"] = {"shortest": 0.8, "longest": 2.0}
    (folder / "data/manifests/anna.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "data/raw/anna").mkdir(parents=True)
    talking(folder / "data/raw/anna/anna.mp4", seconds=12.0, fps=25)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params |= {"corpora": ["anna"], "pretrain": {}, "upon": {}, "latents": [], "heads": []}
    params["systems"] = {SYSTEM: {"corpus": "anna", "source": "shards", "preset": "sample", "overrides": TINY}}
    params["evaluate"] = {SYSTEM: params["evaluate"][SYSTEM] | {"steps": 2, "against": [], "batch_size": 2}}
    params["speech"]["encoder"] = "none"
    params["retrain"]["systems"] = {SYSTEM: RULE}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    deployments = yaml.safe_load((folder / "prefect.yaml").read_text())
    for deployment in deployments["deployments"]:
        if deployment["name"] == "watch-inbox":
            deployment["schedules"] = [{"interval": 100}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(deployments, sort_keys=False))
    return folder


class Server:
    """`talkingface ui` of a project."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        words = ("ui", "--mlflow-port", str(free_port()), "--prefect-port", str(self.port))
        self.process = subprocess.Popen(
            [*TALKINGFACE, *words], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert "mlflow" in self.process.stdout.readline()
        assert "prefect" in self.process.stdout.readline()

    def runs(self, flow: str, *states: str) -> list[dict[str, Any]]:
        """Runs of a flow in one of these states."""
        wanted = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": list(states)}}}}
        return asked(self.port, "flow_runs/filter", wanted)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Server]:
    """A project with server, schedule and worker, as README has them started."""
    folder = project(tmp_path_factory.mktemp("anna"))
    server = Server(folder)
    port = ("--prefect-port", str(server.port))
    told = run(folder, *TALKINGFACE, "schedule", *port).stdout
    assert "watch-inbox" in told
    run(folder, *TALKINGFACE, "schedule", *port)  # again changes nothing
    worker = subprocess.Popen(
        [*TALKINGFACE, "worker", *port], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    )
    yield server
    children = [child for one in (worker, server.process) for child in psutil.Process(one.pid).children(recursive=True)]
    for one in (worker, server.process):
        one.send_signal(signal.SIGINT)
        one.wait(60)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, "nothing outlives its command"


def numbers(folder: Path) -> dict[str, str]:
    """The version that each alias names."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_registered_models(f"name = 'talkingface-{SYSTEM}'")
    return {alias: str(number) for one in found for alias, number in one.aliases.items()}


def ended(server: Server, count: int) -> None:
    """So many retrainings have ended, and ended well."""
    until(f"{count} retrainings", lambda: len(server.runs("retrain", "COMPLETED", "FAILED", "CRASHED")) >= count, 1200, 2)
    assert len(server.runs("retrain", "COMPLETED")) == count


def clips(folder: Path) -> set[str]:
    return set(json.loads((folder / f"data/evaluation/{SYSTEM}/metrics.json").read_text())["clips"])


def test_a_film_in_the_inbox_becomes_a_champion_and_a_worse_version_does_not(served):
    folder = served.folder
    # Nothing was ever made: the schedule sees that, and the first version is champion.
    ended(served, 1)
    assert numbers(folder) == {"champion": "1"}
    first = {path.name for path in (folder / "data/renders" / SYSTEM).glob("*.mp4")}
    assert first and (folder / "data/published" / SYSTEM).exists()
    metrics = json.loads((folder / f"data/evaluation/{SYSTEM}/metrics.json").read_text())
    run(folder, sys.executable, "-m", "stages.rescore", SYSTEM, f"data/checkpoints/{SYSTEM}", "again.json")
    assert json.loads((folder / "again.json").read_text()) == metrics["clips"], "as evaluate scores the same checkpoint"

    inbox = folder / "data/inbox/anna"
    inbox.mkdir(parents=True)
    film = talking(folder / "evening.mp4", seconds=6.0, fps=25)
    os.utime(film, (1e9, 1e9))  # it has long been whole
    film.rename(inbox / film.name)
    (inbox / "broken.mp4").write_bytes(b"no film")
    os.utime(inbox / "broken.mp4", (1e9, 1e9))
    ended(served, 2)
    assert numbers(folder) == {"champion": "2"}
    assert [path.name for path in inbox.iterdir()] == ["broken.mp4"]
    (moved,) = (folder / "data/raw/anna/anna").iterdir()
    assert moved.name.endswith("-evening.mp4")
    assert clips(folder) != set(metrics["clips"]), "the newest film is held out, so the champion was scored again"
    assert all("evening" in clip for clip in clips(folder))
    rendered = {path.name for path in (folder / "data/renders" / SYSTEM).glob("*.mp4")}
    assert rendered != first

    # Another training that has no chance.
    change_params(folder, retrain={"systems": {SYSTEM: RULE | {"margin": 1000.0}}})
    system = yaml.safe_load((folder / "params.yaml").read_text())["systems"][SYSTEM]
    change_params(folder, systems={SYSTEM: system | {"overrides": TINY | {"steps": 9}}})
    ended(served, 3)
    assert numbers(folder) == {"champion": "2", "challenger": "3"}
    told = [one["data"] for one in asked(served.port, "artifacts/filter", {"artifacts": {"key": {"any_": ["retrain"]}}})]
    assert len(told) == 3
    assert sum("**champion**" in one for one in told) == 2
    assert all(f"/#/models/talkingface-{SYSTEM}/versions/" in one for one in told)

    listed = run(folder, *TALKINGFACE, "champions").stdout
    assert "champion: version 2" in listed and "challenger: version 3" in listed
    assert "version 1" in run(folder, *TALKINGFACE, "rollback", SYSTEM).stdout
    assert numbers(folder)["champion"] == "1"
    assert "first champion" in run(folder, *TALKINGFACE, "rollback", SYSTEM, check=False).stdout
    assert "nothing is stale" in run(folder, *TALKINGFACE, "retrain").stdout
    assert numbers(folder)["champion"] == "1", "who rolls back is not overruled by the next retraining"


def test_trainings_stand_below_their_retraining(served):
    client = mlflow.MlflowClient(f"sqlite:///{served.folder / 'mlflow.db'}")

    def found(experiment: str) -> list[Any]:
        return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])

    parents = {one.info.run_id: one.info.status for one in found("retrain")}
    assert len(parents) == 3 and set(parents.values()) == {"FINISHED"}
    assert {one.data.tags["mlflow.parentRunId"] for one in found(SYSTEM)} == set(parents)
