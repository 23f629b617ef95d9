"""Whatever is killed, whenever: in the end there is what an undisturbed run leaves, and nothing runs that nobody wants."""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import yaml
from safetensors.torch import load_file

from data.mesh import POINTS
from data.shardset import Clip, Index, npy_bytes, write_index, write_shard
from flows.server import free_port
from tests.flows import trained
from tests.flows.prefect_api import asked
from tests.project import copy_project, environment, run
from tests.waiting import until

SYSTEM = trained.SYSTEM
STEPS = 250
ROUNDS = 5  # of each sort of victim
TALKINGFACE = (sys.executable, "-m", "flows.cli")
PREFECT = str(Path(sys.executable).with_name("prefect"))
MARK = "CHAOS"  # in the environment of all that these tests begin

# By what words a process is known, and how many seconds it is let live at most once it, or the flow that it serves, is there.
VICTIMS: dict[str, tuple[Callable[[list[str]], bool], float]] = {
    "flow": (lambda words: "prefect.engine" in words or "flows.train" in words, 12.0),
    "dvc": (lambda words: words == ["dvc"], 3.0),
    "leash or fork server": (lambda words: "flows.forks" in words, 6.0),
    "trainer": (lambda words: "models.trainer" in words, 12.0),
    "server": (lambda words: words[-6:-4] == ["server", "start"], 8.0),
    "worker": (lambda words: "worker" in words, 8.0),
}
STAGES = {
    "up": {"cmd": "sleep 0.5 && cp source up.txt", "deps": ["source"], "outs": ["up.txt"]},
    "part": {
        "foreach": [0, 1, 2],
        "do": {
            "cmd": "mkdir part${item} && cp up.txt part${item} && cd part${item} && seq 300 | split -l 1 -a 3 -d && sleep 1",
            "deps": ["up.txt"],
            "outs": ["part${item}"],
        },
    },
    "shards": {
        "cmd": "mkdir -p data/shards && cp -r made data/shards/sample && cat part*/up.txt > data/shards/sample/of",
        "deps": ["made", "part0", "part1", "part2"],
        "outs": ["data/shards/sample"],
    },
    "train": {
        "cmd": "python -m flows.train ${item}",
        "deps": ["data/shards/sample"],
        "outs": ["data/checkpoints/${item}", "data/training/${item}"],
    },
    "evaluate": {
        "cmd": "mkdir -p data/evaluation/${item} && cp given.json data/evaluation/${item}/metrics.json",
        "deps": ["data/checkpoints/${item}", "given.json"],
        "outs": ["data/evaluation/${item}"],
    },
    "render": {
        "cmd": "mkdir -p data/renders/${item} && cp given.json data/renders/${item}/shown",
        "deps": ["data/evaluation/${item}", "given.json"],
        "outs": ["data/renders/${item}"],
    },
    "publish": {
        "cmd": "mkdir -p data/published/${item} && cp data/renders/${item}/shown data/published/${item}/page",
        "deps": ["data/renders/${item}"],
        "outs": ["data/published/${item}"],
    },
}
OF_SYSTEMS = ("train", "evaluate", "render", "publish")
RULE = {"metric": "lve_mm", "better": "lower", "margin": 0.5, "min_clips": 2, "baseline": "template"}


def clip(key: str) -> Clip:
    """What a system learns from: tests.flows.trained's clip, of 10 frames, with motion and what is heard."""
    made, noise = trained.clip(key), np.random.default_rng(int(key[-1]))
    heard = npy_bytes(noise.normal(-40, 20, (20, 256)).astype(np.float32))
    motion = npy_bytes(noise.normal(scale=1e-3, size=(10, POINTS, 3)).astype(np.float32))
    return Clip(key, made.members | {"mel.npy": heard, "vertices.npy": motion})


def project(folder: Path) -> Path:
    """This project with one system to train, for seconds, and stages of the shell before and after."""
    copy_project(folder)
    (folder / "dvc.yaml").write_text(
        yaml.safe_dump(
            {"stages": {name: {"foreach": [SYSTEM], "do": do} if name in OF_SYSTEMS else do for name, do in STAGES.items()}}
        )
    )
    config = asdict(trained.CONFIG) | {"speakers": list(trained.CONFIG.speakers), "steps": STEPS, "batch_size": 1}
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["systems"] = {SYSTEM: {"corpus": "sample", "source": "shards", "preset": "vocaset", "overrides": config}}
    params["retrain"]["systems"] = {SYSTEM: RULE}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for split, keys in trained.SPLITS.items():
        (folder / "made" / split).mkdir(parents=True)
        write_index(folder / "made" / split, Index.of([write_shard(folder / "made" / split / "00000.tar", map(clip, keys))], {}))
    clips = {key: {"lve_mm": 3.0} for key in trained.SPLITS["test"]}
    scores = {"own": {"lve_mm": 3.0}, "baselines": {"template": {"lve_mm": 4.0}}, "clips": clips}
    (folder / "given.json").write_text(json.dumps(scores))
    (folder / "source").write_text("1\n")
    # The run of a worker that was killed holds its deployment's limit until it is called crashed, ten minutes later.
    scheduled = yaml.safe_load((folder / "prefect.yaml").read_text())
    scheduled["deployments"] = [one for one in scheduled["deployments"] if one["name"] == "retrain-now"]
    del scheduled["deployments"][0]["concurrency_limit"]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(scheduled))
    run(folder, "git", "init", "-q")
    return folder


class Theatre:
    """A Prefect server, a worker and the deployment in `folder`; who died is replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.log = (folder / "chaos.log").open("ab")
        quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_HOME": str(folder / ".prefect"), "OMP_NUM_THREADS": "1"}
        silent = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        self.environment = environment(folder) | quick | silent | {MARK: str(folder)}
        self.server = self.worker = None
        self.serve()
        run(folder, *TALKINGFACE, "schedule", "--prefect-port", str(self.port))
        self.deployment = asked(self.port, "deployments/name/retrain/retrain-now")["id"]
        self.last = ""  # id of the newest run

    def note(self, line: str) -> None:
        """Into the log of all that runs here, in which one looks when this test fails."""
        self.log.write(f"{time.strftime('%X')} {line}\n".encode())
        self.log.flush()

    def serve(self) -> None:
        """Has a server and a worker at work, others where they died."""
        if self.server is None or self.server.poll() is not None:
            self.server = self.begin(PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
            until("server", self.answers)
        if self.worker is None or self.worker.poll() is not None:
            self.worker = self.begin(*TALKINGFACE, "worker", "gpu", "--prefect-port", str(self.port))

    def begin(self, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(words, cwd=self.folder, env=self.environment, stdout=self.log, stderr=self.log)

    def answers(self) -> bool:
        try:
            return bool(asked(self.port, "health"))
        except OSError:
            return False

    def all(self) -> list[psutil.Process]:
        """Every process that was begun here, by anybody."""
        return [one for one in psutil.process_iter() if _of(one, str(self.folder))]

    def alive(self, victim: str) -> list[psutil.Process]:
        known = VICTIMS[victim][0]
        words = [(one, _words(one)) for one in self.all()]
        return [one for one, words in words if words and not any(word.endswith("leash.py") for word in words) and known(words)]

    def play(self) -> None:
        """Has a run go on: the present one, or a new one where there is none."""
        self.serve()
        if not self.engines():
            self.last = asked(self.port, f"deployments/{self.deployment}/create_flow_run", {})["id"]
            until("flow", self.playing)

    def playing(self) -> bool:
        """Whether the newest run has begun, or ended already; who takes a moment to die of another's death is replaced too."""
        self.serve()
        return bool(self.engines()) or self.state() not in ("SCHEDULED", "PENDING", "RUNNING")

    def engines(self) -> list[psutil.Process]:
        return [one for one in self.alive("flow") if "prefect.engine" in _words(one)]

    def state(self) -> str:
        """Of the newest run, as its server knows it."""
        return asked(self.port, f"flow_runs/{self.last}")["state_type"] if self.last else ""

    def end(self) -> None:
        for one in (self.worker, self.server):
            one.terminate()
            one.wait(60)


def _of(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except psutil.Error:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return ["dvc"] if process.name() == "dvc" else process.cmdline()  # a fork has its server's words
    except psutil.Error:
        return []


def kill(theatre: Theatre, victim: str, chance: random.Random) -> bool:
    """One of the victim's sort, at some moment; whether there was one. What it had begun ends with it."""
    theatre.play()
    end = time.monotonic() + 300
    while not theatre.alive(victim):
        if not theatre.engines():
            return False
        assert time.monotonic() < end, f"there is no {victim}"
        time.sleep(0.1)
    time.sleep(chance.uniform(0, VICTIMS[victim][1]))
    if not (found := theatre.alive(victim)):
        return False
    chosen = chance.choice(found)
    try:
        begun = chosen.children(recursive=True)
        chosen.kill()
    except psutil.NoSuchProcess:
        return False
    alive = psutil.wait_procs([chosen, *begun], timeout=60)[1]
    assert not alive, f"what the {victim} {chosen} had begun outlives it: {[(one, _words(one)) for one in alive]}"
    return True


def losses(folder: Path) -> list[dict[str, list[tuple[int, float]]]]:
    """Of each training in MLflow, in the order in which they were begun, its curves; each has ended well."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(SYSTEM).experiment_id], order_by=["attributes.start_time"])
    assert {one.info.status for one in runs} == {"FINISHED"}
    return [
        {
            name: [(point.step, point.value) for point in client.get_metric_history(one.info.run_id, name)]
            for name in ("train_loss", "val_loss")
        }
        for one in runs
    ]


def outs(folder: Path) -> dict[str, str]:
    """The hashes of all that is data; a training's outputs hold its run's id and seconds."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for name, stage in stages.items() if not name.startswith("train@") for out in stage["outs"]}


def versions(folder: Path) -> tuple[int, dict[str, str]]:
    """How many there are in the registry, and who is what."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    name = f"talkingface-{SYSTEM}"
    aliases = client.get_registered_model(name).aliases
    return len(client.search_model_versions(f"name = '{name}'")), {alias: str(number) for alias, number in aliases.items()}


@pytest.fixture
def theatre(tmp_path) -> Iterator[Theatre]:
    made = Theatre(shutil.copytree(project(tmp_path / "twin"), tmp_path / "here"))
    yield made
    for left in made.all():
        left.kill()
    made.log.close()


@pytest.mark.slow
def test_thirty_kills_change_nothing(theatre):
    here, twin = theatre.folder, theatre.folder.with_name("twin")
    chance = random.Random(8)
    victims = list(VICTIMS) * ROUNDS
    chance.shuffle(victims)
    content = 1
    for victim in victims:
        for _ in range(10):
            if kill(theatre, victim, chance):
                break
            if theatre.state() == "COMPLETED":  # then there has to be something new to do
                content += 1
                (here / "source").write_text(f"{content}\n")
        else:
            pytest.fail(f"there never is a {victim}: {theatre.state()}")
        theatre.note(f"killed: {victim} at content {content}")
    until("end of what goes on", lambda: not theatre.engines())
    for _ in range(3):
        theatre.play()
        until("end of the last run", lambda: theatre.state() not in ("SCHEDULED", "PENDING", "RUNNING"))
        if theatre.state() != "CANCELLED":  # else one that has waited since its worker was killed was begun beside it
            break
    assert theatre.state() == "COMPLETED"
    theatre.end()
    assert not theatre.all(), "nothing outlives its command"
    client = mlflow.MlflowClient(f"sqlite:///{here / 'mlflow.db'}")
    parents = client.search_runs([client.get_experiment_by_name("retrain").experiment_id])
    assert "RUNNING" not in {one.info.status for one in parents}

    for number in range(1, content + 1):
        (twin / "source").write_text(f"{number}\n")
        run(twin, *TALKINGFACE, "retrain")
    assert outs(here) == outs(twin)
    assert versions(here) == versions(twin)
    ours, theirs = losses(here), losses(twin)
    assert len(ours) == len(theirs) == content
    for one, other in zip(ours, theirs, strict=True):
        assert [step for step, _ in one["train_loss"]] == list(range(STEPS))
        for name, curve in other.items():
            assert [step for step, _ in one[name]] == [step for step, _ in curve]
            assert [loss for _, loss in one[name]] == pytest.approx([loss for _, loss in curve], rel=1e-6)
    first, second = (load_file(next((folder / f"data/checkpoints/{SYSTEM}").glob("*.safetensors"))) for folder in (here, twin))
    assert first.keys() == second.keys()
    assert all(np.allclose(first[name], second[name], rtol=1e-6, atol=1e-9) for name in first)
