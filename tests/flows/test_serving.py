"""A registered model makes the film that the command makes, from its artifacts alone; behind a real server in the slow test."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
from mlflow.exceptions import MlflowException

from data.media.audio import wav_bytes
from data.media.video import decode_frames
from flows import registry
from flows.server import free_port, wait_until_up
from stages.speak import speak
from tests.flows import trained
from tests.media import RATE, voice
from tests.project import environment

SOUND = wav_bytes(voice(0.41), RATE)
REQUEST = {"Content-Type": "application/json"}


def test_a_loaded_model_makes_the_film_that_the_command_makes(tmp_path, monkeypatch):
    trained.copied(tmp_path / "project", monkeypatch)
    Path("hello.wav").write_bytes(SOUND)
    speak(trained.SYSTEM, Path("hello.wav"), Path("hello.mp4"), None, None, 3, None)
    version = registry.register(trained.SYSTEM)
    film = Path("hello.mp4").read_bytes()
    Path("data").rename("gone")
    Path("params.yaml").unlink()
    served = mlflow.pyfunc.load_model(version.model_uri)
    made = served.predict(pd.DataFrame({"audio": ["hello.wav", SOUND]}), params={"seed": 3})
    assert list(made["film"]) == [film, film], "by a path, and by bytes"
    assert decode_frames(film).shape == (10, 64, 64, 3)
    assert served.predict([{"audio": SOUND}])["film"][0] != film, "of another seed"
    with pytest.raises(MlflowException, match=r"row 1: .*hello\.mp3"):
        served.predict([{"audio": SOUND}, {"audio": "hello.mp3"}])
    with pytest.raises(MlflowException, match=r"row 0: .*audio is b''"):
        served.predict([{"audio": b""}])


@pytest.mark.slow
def test_a_film_that_kills_its_process_costs_that_film_alone(tmp_path, monkeypatch):
    trained.copied(tmp_path / "project", monkeypatch)
    version, before = registry.register(trained.SYSTEM), psutil.Process().children()
    served = mlflow.pyfunc.load_model(version.model_uri)
    new = (one for one in psutil.Process().children() if one not in before)
    (worker,) = (one for one in new if "spawn_main" in " ".join(one.cmdline()))
    worker.kill()
    with pytest.raises(MlflowException, match="row 0: its process was killed"):
        served.predict([{"audio": SOUND}])
    assert decode_frames(served.predict([{"audio": SOUND}])["film"][0]).shape == (10, 64, 64, 3), "the next one is made"


@pytest.mark.slow
def test_a_store_by_url_and_a_served_model_on_loopback(tmp_path, monkeypatch):
    """Training, registration and promotion at a real MLflow server, whose artifacts go through it; then the champion, served."""
    tools, there = Path(sys.executable).parent, tmp_path / "there"
    there.mkdir()
    tracking, serving = free_port(), free_port()
    store = f"http://127.0.0.1:{tracking}"
    here = environment(Path(__file__).parents[2]) | {"MLFLOW_TRACKING_URI": store}
    server = subprocess.Popen(
        [
            *(tools / "mlflow", "server", "--host", "127.0.0.1", "--port", str(tracking), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{there}/mlflow.db", "--artifacts-destination", str(there / "kept")),
        ],
        env=here | {"MLFLOW_TRACKING_URI": f"sqlite:///{there}/mlflow.db", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=there,
        start_new_session=True,
    )
    model = None
    try:
        wait_until_up(f"{store}/health", server, seconds=400)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        (tmp_path / "project").mkdir()
        monkeypatch.chdir(tmp_path / "project")
        trained.trained_project(tmp_path / "project")
        version = registry.register(trained.SYSTEM)
        registry.promote(version)
        assert registry.champion(trained.SYSTEM) == registry.register(trained.SYSTEM) == version
        assert registry.evaluation(version)["own"]["lve_mm"] == 3.0
        assert (registry.checkpoint(version, tmp_path) / "model.safetensors").exists()
        assert not (tmp_path / "project/mlruns").exists(), "all went to the server"

        model = subprocess.Popen(
            [
                *(tools / "mlflow", "models", "serve", "--env-manager", "local", "--host", "127.0.0.1", "--port", str(serving)),
                *("-m", f"models:/{version.name}@champion"),
            ],
            env=here | {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "600"},
            cwd=tmp_path,
            start_new_session=True,
        )
        wait_until_up(f"http://127.0.0.1:{serving}/ping", model, seconds=400)
        row = {"audio": base64.b64encode(SOUND).decode()}
        answer = json.loads(asked(serving, {"dataframe_records": [row], "params": {"seed": 3}}))
        film = base64.b64decode(answer["predictions"][0]["film"])
        assert decode_frames(film).shape == (10, 64, 64, 3)
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(serving, {"dataframe_records": [{"audio": "/etc/hostnam"}]})  # also base64, of nine bytes
        assert refused.value.code == 400
        assert "row 0" in refused.value.read().decode(), "no file of the server's is read for a request"
        began = psutil.Process(model.pid).children(recursive=True)
        os.killpg(model.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(began, timeout=20)
        assert not alive, "the process that makes films dies with the server"
    finally:
        for process in (model, server):
            if process and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def asked(port: int, request: dict) -> str:
    url = f"http://127.0.0.1:{port}/invocations"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(request).encode(), REQUEST), timeout=600) as answer:
        return answer.read().decode()
