"""Several machines: clones that know of each other by git, DVC's remote, one Prefect server and one MLflow server alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from flows.server import free_port, wait_until_up
from tests.flows.repository import dvc, repository, reproduce, variables
from tests.project import ROOT

pytestmark = pytest.mark.slow

TALKINGFACE = (sys.executable, "-m", "flows.cli")
ALL = {"raw", "part0", "part1", "train", "join"}


def traced(name: str, command: str) -> str:
    """A command that says, outside of every clone, that it was run."""
    return f"echo {name} >> $TRACES; {command}"


STAGES = {
    "raw": {"cmd": traced("raw", "cp source raw.txt"), "deps": ["source"], "outs": [{"raw.txt": {"persist": True}}]},
    "part": {
        "foreach": [0, 1],
        "do": {
            "cmd": traced("part${item}", "mkdir -p part && cp raw.txt part/${item}.txt"),
            "deps": ["raw.txt"],
            "outs": ["part/${item}.txt"],
        },
    },
    "train": {"cmd": traced("train", "python log.py"), "deps": ["log.py", "part/0.txt"], "outs": ["run.txt"]},
    "join": {"cmd": traced("join", "cat part/*.txt > join.txt"), "deps": ["part"], "outs": ["join.txt"]},
}
LOG = """
import pathlib
import flows
import mlflow
with mlflow.start_run() as run:
    pathlib.Path("run.txt").write_text(run.info.run_id)
"""


@pytest.fixture
def traces(tmp_path, monkeypatch) -> Path:
    """Where commands say that they were run."""
    monkeypatch.setenv("TRACES", str(tmp_path / "traces"))
    (tmp_path / "traces").touch()
    return tmp_path / "traces"


@pytest.fixture
def first(tmp_path, traces) -> Path:
    """A clone whose DVC has a default remote; nothing is made yet."""
    folder = repository(tmp_path / "clones/first", STAGES)
    (folder / "log.py").write_text(LOG)
    shutil.copy(ROOT / "prefect.yaml", folder)
    (folder / "flows").symlink_to(ROOT / "flows")
    (folder / ".gitignore").write_text("/.prefect\n/mlflow.db\n/mlruns\n/data\n/part\n__pycache__\n")
    dvc(folder, "remote", "add", "--default", "meeting", str(tmp_path / "remote"))
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    for words in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def clone(folder: Path, name: str) -> Path:
    subprocess.run(["git", "clone", "-q", folder, folder.parent / name], check=True)
    return folder.parent / name


def run_since(traces: Path) -> list[str]:
    """The commands that were run since this was last asked."""
    names = sorted(traces.read_text().split())
    traces.write_text("")
    return names


def content(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in ("raw.txt", "part/0.txt", "part/1.txt", "run.txt", "join.txt")}


def test_a_second_clone_with_an_empty_cache_runs_no_command(first, traces):
    before = clone(first, "before")
    assert "push: ran" in reproduce(first)
    assert run_since(traces) == sorted(ALL)
    commit(first)

    second = clone(first, "second")
    assert not list((second / ".dvc").glob("cache/files/md5/*"))
    told = reproduce(second)
    assert run_since(traces) == []
    assert told.count("restored from remote") == 2 * len(ALL), "as it happens, and in the table"
    assert content(second) == content(first)
    assert "nothing is stale" in reproduce(second)

    third = clone(first, "third")
    dvc(third, "pull", "--run-cache")
    dvc(third, "repro")
    assert run_since(traces) == [], "DVC alone can do it too"

    told = reproduce(before)
    assert run_since(traces) == ["raw"], "without the other's dvc.lock all is taken but what DVC has no run-cache for: `persist`"
    assert told.count("restored from cache") == 2 * len(ALL - {"raw"})
    assert content(before) == content(first)


def test_stages_are_asked_for_by_name(first):
    told = reproduce(first, "--dry", "part", "train")
    assert all(name in told for name in ("raw", "part@0", "part@1", "train")) and "join" not in told
    assert "dvc.yaml has no stage nobody" in reproduce(first, "nobody", status=1)


def test_a_remote_that_cannot_be_reached_is_told_and_costs_nothing_that_was_made(first, tmp_path, traces):
    (tmp_path / "remote").touch()  # a file where DVC wants a folder
    told = reproduce(first, status=1)
    assert "push failed" in told and "`dvc push --run-cache` did not bring" in told
    assert run_since(traces) == sorted(ALL)
    (tmp_path / "remote").unlink()
    dvc(first, "push", "--run-cache")
    assert list((tmp_path / "remote").rglob("*"))


@pytest.fixture
def servers(first) -> Iterator[dict[str, str]]:
    """`talkingface ui`; variables by which every machine finds its two servers."""
    prefect, store = free_port(), free_port()
    words = ["ui", "--prefect-port", str(prefect), "--mlflow-port", str(store)]
    process = subprocess.Popen([*TALKINGFACE, *words], cwd=first, env=variables(first), start_new_session=True)
    found = {"PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{store}"}
    try:
        wait_until_up(f"{found['PREFECT_API_URL']}/health", process, seconds=400)
        wait_until_up(f"{found['MLFLOW_TRACKING_URI']}/health", process, seconds=400)
        yield found
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0


def test_two_workers_of_one_server_each_in_a_clone_share_the_work(first, servers, traces):
    second = clone(first, "second")
    subprocess.run([*TALKINGFACE, "schedule"], cwd=first, env=variables(first) | servers, check=True)

    def make(folder: Path, *targets: str) -> None:
        """On demand, by the one worker that is there: that of `folder`."""
        worker = subprocess.Popen(
            [*TALKINGFACE, "worker", "cpu"], cwd=folder, env=variables(folder) | servers, start_new_session=True
        )
        command = ["prefect", "deployment", "run", "make/make-now", "--watch", "--param", f"targets={json.dumps(targets)}"]
        try:
            subprocess.run(command, cwd=folder, env=variables(folder) | servers, check=True, timeout=900)
        finally:
            end(worker)

    make(first, "part@0", "train")
    assert run_since(traces) == ["part0", "raw", "train"]
    make(second, "part@1")
    assert run_since(traces) == ["part1", "raw"], "as neither has the other's dvc.lock"
    make(second)
    assert run_since(traces) == ["join"], "part@0 and the training were the first one's"
    assert (second / "join.txt").read_text() == 2 * (second / "source").read_text()
    client = mlflow.MlflowClient(servers["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs(["0"])
    assert (second / "run.txt").read_text() == run.info.run_id, "in the store that both have"
