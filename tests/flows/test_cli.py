"""`talkingface ui` serves both pages on this machine alone and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import psutil

from flows.server import free_port
from tests.project import ROOT, environment


def test_ui_serves_on_loopback_and_ends_cleanly_even_in_a_script_s_background(tmp_path):
    ports = free_port(), free_port()
    words = ["-m", "flows.cli", "ui", "--mlflow-port", str(ports[0]), "--prefect-port", str(ports[1])]
    variables = environment(tmp_path) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell does with `&` in a script
    )
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in ports]
    assert all(f"http://127.0.0.1:{port}" in line for port, line in zip(ports, told, strict=True)), told
    for port in ports:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=20)
        assert page.status == 200
    children = psutil.Process(process.pid).children(recursive=True)
    listening = {c.laddr.ip for child in children for c in child.net_connections("tcp") if c.status == "LISTEN"}
    assert listening <= {"127.0.0.1"}
    os.kill(process.pid, signal.SIGINT)
    process.wait(60)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_ui_says_when_a_port_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["-m", "flows.cli", "ui", "--mlflow-port", str(port), "--prefect-port", str(free_port())]
        variables = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stdout


def test_ui_does_not_put_a_remote_store_s_address_anywhere(tmp_path):
    variables = environment(tmp_path) | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "https://user:secret@example.org"}
    words = [sys.executable, "-m", "flows.cli", "ui", "--mlflow-port", str(free_port()), "--prefect-port", str(free_port())]
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "MLFLOW_TRACKING_URI" in done.stdout
    assert "secret" not in done.stdout + done.stderr
