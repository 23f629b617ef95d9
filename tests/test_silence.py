"""Nothing leaves the machine: neither DVC, nor Prefect, nor MLflow tells anybody that it runs."""

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from flows.server import free_port, wait_until_up
from tests.network import beyond, recorded
from tests.project import environment, run, tiny_project

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")]
SILENCING = ("CI", "DO_NOT_TRACK", "DVC_NO_ANALYTICS", "DVC_TEST")  # variables by which others' tools keep quiet
MESH = {"channels": 32, "feedforward": 32, "steps": 8, "val_every": 4, "log_every": 1, "batch_size": 2}
PAGES = ("", "/api/2.0/mlflow/experiments/search?max_results=5", "/ajax-api/3.0/mlflow/server-info")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """One system on made media."""
    folder = tiny_project(tmp_path_factory.mktemp("project"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params |= {"corpora": ["sample"], "pretrain": {}, "upon": {}, "latents": [], "heads": []}
    for part in ("systems", "evaluate"):
        params[part] = {"diffspeaker": params[part]["diffspeaker"]}
    params["systems"]["diffspeaker"]["overrides"] = MESH
    params["evaluate"]["diffspeaker"] |= {"steps": 2, "against": []}
    params["render"]["mesh_size"] = 64
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def started(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A command whose traces are in `<folder>/../log`."""
    variables = {name: value for name, value in environment(folder).items() if name not in SILENCING}
    return subprocess.Popen(recorded(words, folder.parent / "log"), cwd=folder, env=variables, start_new_session=True)


def left_by(folder: Path, *words: str) -> list[str]:
    assert started(folder, *words).wait(1800) == 0
    return list(beyond(folder.parent / "log"))


def test_what_leaves_is_seen(tmp_path):
    udp = "import socket; socket.socket({}, socket.SOCK_DGRAM).connect(('{}', {}))"  # which sends nothing
    (tmp_path / "here").mkdir()
    for family, address, port in (
        ("socket.AF_INET", "192.0.2.1", 443),
        ("socket.AF_INET6", "::ffff:192.0.2.1", 443),
        ("socket.AF_INET", "127.0.0.53", 53),
    ):
        shell = ["sh", "-c", f'{sys.executable} -c "{udp.format(family, address, port)}"; true']
        (line,) = left_by(tmp_path / "here", *shell)
        assert line.endswith(f"→ {address}, port {port}")
    inside = udp.format("socket.AF_INET", "127.0.0.1", 5000)
    assert not left_by(tmp_path / "here", sys.executable, "-c", inside)


def test_making_everything_sends_nothing(project):
    assert not left_by(project, sys.executable, "-m", "flows.cli", "reproduce")
    assert (project / "data/published/diffspeaker").exists()


def test_dvc_by_hand_sends_nothing(project, monkeypatch):
    monkeypatch.delenv("CI", raising=False)  # with which it keeps quiet anyway
    assert not left_by(project, "dvc", "status")
    told = run(project, "dvc", "version", "--verbose").stdout
    assert "Check for update is disabled" in told and "Analytics is disabled" in told


def test_the_two_servers_send_nothing(project):
    mlflow, prefect = free_port(), free_port()
    ports = ["--mlflow-port", str(mlflow), "--prefect-port", str(prefect)]
    server = started(project, sys.executable, "-m", "flows.cli", "ui", *ports)
    try:
        for port in (mlflow, prefect):
            wait_until_up(f"http://127.0.0.1:{port}/", server, seconds=400)
        for page in PAGES:
            urllib.request.urlopen(f"http://127.0.0.1:{mlflow}{page}", timeout=60).read()
        for page in ("", "/api/ready", "/api/admin/settings"):
            urllib.request.urlopen(f"http://127.0.0.1:{prefect}{page}", timeout=60).read()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
    assert not list(beyond(project.parent / "log"))
