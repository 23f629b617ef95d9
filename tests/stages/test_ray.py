"""A Ray cluster gives the bytes that one machine gives, whatever becomes of its clips, its nodes and its driver."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from data.shardset import ShardSet
from tests.stages.test_engine import ROOT, TOLERANT, Stage, alive, calls, contents, remembered
from tests.waiting import until

pytest.importorskip("stages.engine.cluster", reason="the extra `ray` is not installed")
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow

TIMEOUT_S = 8

MISFORTUNES = ["raise", "segfault", "exit in peace", "sys.exit", "kill", "die while answering", "exhaust memory", "hang"]


@contextmanager
def stage_on_ray(folder: Path, do: list[str], cluster: Cluster | None = None, **said: object) -> Iterator[subprocess.Popen]:
    """A stage of its own process, as `python -m stages` is one; ended if it has not ended by itself."""
    folder.mkdir(exist_ok=True)
    said = {"executor": "ray", "max_failed": 1.0, "clip_timeout_s": TIMEOUT_S} | said
    words = ", ".join(f"{name}={value!r}" for name, value in said.items())
    command = f"from tests.stages.clip_functions import run_stage; run_stage({str(folder)!r}, {do}, {words})"
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    if cluster:
        environment["RAY_ADDRESS"] = cluster.address
    with (folder / "said").open("w") as said_here:
        process = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, env=environment, stderr=said_here)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def finish(process: subprocess.Popen, folder: Path) -> str:
    """What the stage said on its way to its end."""
    ended = process.wait(timeout=180)
    said = (folder / "said").read_text()
    assert ended == 0, said
    return said


def local(folder: Path, do: list[str], repeat: int = 1) -> dict[str, bytes]:
    """What one machine makes of the same."""
    folder.mkdir()
    stage = Stage(folder)
    stage.params = replace(stage.params, repeat=repeat)
    stage.run(do, replace(TOLERANT, clip_timeout_s=TIMEOUT_S))
    return contents(stage.out)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster whose head has one core; tests add nodes to it."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


# What follows has no cluster to join: a Ray is started for the stage


def test_each_misfortune_costs_the_same_as_on_one_machine(tmp_path):
    do = ["fine", "skip", "die once", "threads"] + [what for misfortune in MISFORTUNES for what in (misfortune, "fine")]
    local(tmp_path / "local", do)
    with stage_on_ray(tmp_path / "ray", do, workers=2) as process:
        finish(process, tmp_path / "ray")
    assert contents(tmp_path / "ray/out") == contents(tmp_path / "local/out")
    assert ShardSet(tmp_path / "ray/out").index.failed == len(MISFORTUNES)


def test_the_ray_of_a_stage_listens_on_loopback_only_and_ends_with_it(tmp_path):
    with stage_on_ray(tmp_path, ["fine", "hang"]) as process:
        until("clips at work", lambda: len(calls(tmp_path)) == 2, 30, 0.005)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        listening = {
            connection.laddr.ip.removeprefix("::ffff:")
            for member in family
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        finish(process, tmp_path)
    assert listening == {"127.0.0.1"}
    assert not [member for member in family if alive(member.pid)]


def test_no_process_that_works_for_a_killed_stage_outlives_it(tmp_path):
    with stage_on_ray(tmp_path, ["hang"] * 2, workers=2, clip_timeout_s=600) as process:
        until("clips at work", lambda: len(calls(tmp_path)) == 2, 30, 0.005)
        workers = {pid for pid, _ in calls(tmp_path)} | {psutil.Process(pid).ppid() for pid, _ in calls(tmp_path)}
        process.kill()
    until("end of the workers", lambda: not any(map(alive, workers)), 10, 0.005)


# What follows joins a cluster


def test_a_node_killed_midway_costs_nothing(tmp_path, cluster):
    do = (["fine"] * 7 + ["skip"]) * 5
    repeat = 100_000  # results too large to come with the answer: they stay in their node's store until they are fetched
    expected = local(tmp_path / "local", do, repeat)
    doomed = cluster.add_node(num_cpus=2)
    with stage_on_ray(tmp_path / "ray", do, cluster, pause_s=0.2, repeat=repeat) as process:
        until(
            "clips at work",
            lambda: len({pid for pid, _ in calls(tmp_path / "ray")}) == 3 and len(calls(tmp_path / "ray")) > 12,
            30,
            0.005,
        )
        killing = threading.Thread(target=cluster.remove_node, args=(doomed, False))
        killing.start()
        finish(process, tmp_path / "ray")
        killing.join()
    assert contents(tmp_path / "ray/out") == expected
    times = Counter(key for _, key in calls(tmp_path / "ray"))
    assert len(times) == len(do)
    assert times.total() - len(do) <= 2 * 3 + 2, "at most what was in memory was done again"


def test_a_clip_that_takes_ray_workers_with_it_costs_that_clip(tmp_path, cluster):
    with stage_on_ray(tmp_path, ["fine", "kill the parent", "fine"], cluster) as process:
        finish(process, tmp_path)
    (left_out,) = ShardSet(tmp_path / "out").index.left_out.values()
    assert (left_out.state, left_out.reason) == ("failed", "WorkerCrashedError")


def test_a_killed_stage_leaves_the_cluster_free_and_is_taken_up_again(tmp_path, cluster):
    do = ["fine"] * 6 + ["hang"] * 2
    with stage_on_ray(tmp_path, do, cluster, clip_timeout_s=600) as process:
        until("clips at work", lambda: len(calls(tmp_path)) == 7 and len(remembered(tmp_path)) == 2, 30, 0.005)
        workers = {pid for pid, _ in calls(tmp_path)}
        process.kill()
    until("end of the workers", lambda: not any(map(alive, workers)), 10, 0.005)

    before = len(calls(tmp_path))
    with stage_on_ray(tmp_path, do, cluster, clip_timeout_s=1) as process:
        assert "8 clips in (4 from an earlier run), 6 out, 0 filtered, 2 failed (timeout)" in finish(process, tmp_path)
    assert len(calls(tmp_path)) - before == 4


def test_a_node_without_the_project_is_an_error_that_says_so(tmp_path, cluster):
    command = (
        "import sys, types; module = types.ModuleType('only_in_the_parent'); module.__file__ = '/nowhere.py'\n"
        "exec('def perform(clip, params): return {}', module.__dict__); sys.modules['only_in_the_parent'] = module\n"
        "import pickle; from data.shardset import Clip; from stages.engine.cluster import RayPool\n"
        "with RayPool(pickle.dumps((module.perform, None)), 1, 10) as pool: list(pool.map([(0, Clip('s/1', {'do': b''}))]))"
    )
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert "WorkerCannotStart" in done.stderr
    assert f"Each node must see {ROOT}" in done.stderr
