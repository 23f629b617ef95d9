"""MLflow's store in a real Postgres: by its URL, and behind an MLflow server. Skipped where Postgres is not installed."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mlflow
import psycopg2
import pytest

from flows import registry
from flows.server import free_port, wait_until_up
from tests.flows import trained
from tests.project import environment

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
TOOLS = DEBIAN[-1] if DEBIAN else Path(shutil.which("initdb") or "/nowhere/initdb").parent
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (TOOLS / "initdb").exists(), reason="Postgres is not installed")]


@pytest.fixture
def database(monkeypatch) -> Iterator[str]:
    """The URL of a database. Its password is not in it but in PGPASSWORD, where a user's should be."""
    port, password = free_port(), secrets.token_hex()
    monkeypatch.setenv("PGPASSWORD", password)
    folder = Path(tempfile.mkdtemp(prefix="talkingface-"))
    (folder / "password").write_text(password)
    owner = "nobody" if os.getuid() == 0 else None  # Postgres refuses to run as root
    for path in (folder, folder / "password") if owner else ():
        shutil.chown(path, owner)
    tool = partial(subprocess.run, check=True, cwd=folder, user=owner, stdout=subprocess.DEVNULL)
    as_asked = ["--username=mlflow", "--pwfile=password", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
    listening = f"-k {folder} -p {port} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        tool([TOOLS / "initdb", *as_asked, "data"])
        tool([TOOLS / "pg_ctl", "start", "--wait", "-D", "data", "-l", "log", "-o", listening])
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
        tool([TOOLS / "pg_ctl", "stop", "--wait", "-D", "data", "--mode", "immediate"])
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def server(database, tmp_path) -> Iterator[str]:
    """The address of an MLflow server, as README says to start one, whose store that database is."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", database]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "mlflow", *words, "--artifacts-destination", tmp_path / "kept"],
        env=environment(Path(__file__).parents[2]) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        wait_until_up(f"{address}/health", process, seconds=400)
        yield address
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_on_postgres_keeps_what_its_clients_log(database, server, tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    trained.trained_project(Path.cwd())
    first = registry.register(trained.SYSTEM)
    registry.promote(first)
    trained.train(1)
    second = registry.register(trained.SYSTEM)
    registry.set_challenger(second)
    assert registry.evaluation(second)["own"]["lve_mm"] == 3.0
    assert found(server) == found(database) == {first.run_id, second.run_id}
    assert (tmp_path / "kept").exists() and not Path("mlruns").exists(), "artifacts went to the server too"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)  # and without the server the same
    assert (registry.champion(trained.SYSTEM), registry.challenger(trained.SYSTEM)) == (first, second)
    registry.promote(second)
    assert registry.rollback(trained.SYSTEM) == first
    assert mlflow.MlflowClient().get_model_version(first.name, "1").aliases == ["champion"]
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
        psycopg2.connect(database)


def found(store: str) -> set[str]:
    """Ids of the runs that saw the shards, by their hash."""
    client = mlflow.MlflowClient(store)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return {run.info.run_id for run in client.search_runs(experiments, f"dataset.digest = '{'0' * 32}.dir'")}
