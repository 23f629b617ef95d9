"""`talkingface reproduce` on real DVC repositories and a real Prefect."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.forks import Forks
from flows.stagerun import Hands
from stages.engine.slots import Held
from tests.flows.repository import begin, descendants, dvc, lock, repository, reproduce, timed, times, variables

# A nested flow: it would start a server of its own on the same database were it not given one.
NESTED = """
import os, pathlib
import flows
from flows.server import prefect_api
from prefect import flow
@flow
def inner():
    pathlib.Path("nested.txt").write_text("done")
pathlib.Path("nested.api").write_text(os.environ["PREFECT_API_URL"])
with prefect_api():
    inner()
"""
FIRST = {
    "zero": {"cmd": timed("zero", "cp source zero.txt"), "deps": ["source"], "outs": ["zero.txt"]},
    "wait": {
        "foreach": ["left", "right"],
        "do": {
            "cmd": timed("${item}", "sleep 1.5 && echo ${item} > ${item}.txt"),
            "deps": ["zero.txt"],
            "params": ["pause"],
            "outs": ["${item}.txt"],
        },
    },
    "join": {"cmd": timed("join", "cat left.txt right.txt > join.txt"), "deps": ["left.txt", "right.txt"], "outs": ["join.txt"]},
    "gpu": {
        "foreach": [1, 2],
        "do": {
            "cmd": timed("gpu${item}", "sleep 0.3 && echo $CUDA_VISIBLE_DEVICES > gpu${item}.txt"),
            "deps": ["zero.txt"],
            "outs": ["gpu${item}.txt"],
            "meta": {"gpu": 1},
        },
    },
    "net": {
        "cmd": "echo net >> tries; test $(grep -c net tries) -gt 1 && echo net > net.txt",
        "deps": ["source"],
        "outs": ["net.txt"],
        "meta": {"network": True},
    },
    "bad": {
        "cmd": "echo bad >> tries; echo no leave; test -e leave && echo bad > bad.txt",
        "deps": ["source"],
        "outs": ["bad.txt"],
    },
    "after": {"cmd": "cp bad.txt after.txt", "deps": ["bad.txt"], "outs": ["after.txt"]},
    "nested": {"cmd": "python nested.py", "deps": ["source"], "outs": ["nested.txt"]},
}


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, str]:
    """A repository after its first `reproduce`, and what that told."""
    folder = repository(tmp_path_factory.mktemp("first") / "here", FIRST, {"pause": 1})
    (folder / "nested.py").write_text(NESTED)
    return folder, reproduce(folder, "--jobs", "6", status=1)


@pytest.fixture(scope="module")
def server(first) -> Iterator[str]:
    """A Prefect server that the tests share which are not about the one that `reproduce` starts: each takes seconds."""
    folder = first[0]
    block = "from prefect.settings import PREFECT_API_URL as url; print(url.value(), flush=True); input()"
    script = f"import flows; from flows.server import prefect_api\nwith prefect_api(): {block}"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        env=variables(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    address = process.stdout.readline().strip()
    assert address
    yield address
    process.communicate("\n", timeout=60)


def test_each_stage_begins_after_its_upstream_and_others_run_beside_it(first):
    when, told = times(first[0]), first[1]
    for before, after in (("zero", "left"), ("zero", "right"), ("left", "join"), ("right", "join"), ("zero", "gpu1")):
        assert when[before][1] <= when[after][0]
    # By what was told: on a busy machine one DVC may take longer to begin than the other stage to end.
    begun, ended = ([told.index(f"wait@{side}: {what}") for side in ("left", "right")] for what in ("starts", "ran after"))
    assert max(begun) < min(ended)
    assert "wait@left: starts (" in told and "and 1 more)" in told, "why it ran, in short"


def test_two_stages_that_want_the_one_gpu_do_not_overlap(first):
    when = times(first[0])
    assert when["gpu1"][1] <= when["gpu2"][0] or when["gpu2"][1] <= when["gpu1"][0]


def test_a_failed_stage_stops_what_follows_and_nothing_else(first):
    folder, told = first
    assert "bad: no leave" in told
    assert re.search(r"bad failed; its last words:\nno leave\n.*exited with 1", told)
    assert not (folder / "after.txt").exists()
    assert re.search(r"after\s+│ not run", told)
    assert (folder / "join.txt").exists()
    assert "\nafter: " not in told


def test_a_stage_of_the_network_is_tried_again_and_others_are_not(first):
    assert sorted((first[0] / "tries").read_text().split()) == ["bad", "net", "net"]
    assert re.search(r"net\s+│ ran", first[1])


def test_lock_and_outputs_are_those_of_dvc_repro(first, tmp_path):
    twin = repository(tmp_path / "twin", FIRST, {"pause": 1})
    (twin / "nested.py").write_text("open('nested.txt', 'w').write('done')")
    (twin / "tries").write_text("net\n")
    dvc(twin, "repro", "--keep-going", check=False)
    assert lock(first[0]) == lock(twin)


def test_prefect_remembers_the_table_and_the_nested_flow(first):
    with sqlite3.connect(first[0].parents[1] / ".prefect/prefect.db") as database:
        tables = database.execute("select data from artifact where key = 'reproduce' and type = 'table'").fetchall()
        flows = database.execute("select flow.name, state_type from flow_run join flow on flow.id = flow_id").fetchall()
    rows = [json.loads(json.loads(table)) for (table,) in tables]
    states = next({row["stage"]: row["state"] for row in table} for table in rows if table[-1]["stage"] == "nested")
    assert (states["nested"], states["bad"], states["after"]) == ("ran", "failed", "not run")
    assert {("reproduce", "FAILED"), ("inner", "COMPLETED")} <= set(flows)
    assert (first[0] / "nested.api").read_text().startswith("http://127.0.0.1:")


def test_a_changed_parameter_reruns_its_stages_and_an_unchanged_result_stops_there(first, server):
    folder, _ = first
    (folder / "params.yaml").write_text("pause: 2\n")
    (folder / "leave").touch()
    (folder / "gpu1.txt").unlink()
    before = lock(folder)
    dry = reproduce(folder, "--dry")
    assert re.search(r"wait@left\s+│ params.yaml: pause modified", dry)
    assert re.search(r"join\s+│ follows wait@left, wait@right", dry)
    assert "zero" not in dry
    assert lock(folder) == before
    told = reproduce(folder, server=server)
    states = dict(re.findall(r"^│ (\S+)\s+│ (\w[\w ]*?)\s+│", told, re.MULTILINE))
    assert states == {"wait@left": "ran", "wait@right": "ran", "join": "unchanged", "bad": "ran", "after": "ran"} | {
        "gpu@1": "restored from cache"
    }
    assert dvc(folder, "status").strip() == "Data and pipelines are up to date."

    # Nothing to do: then neither Prefect nor MLflow is needed, which takes seconds.
    for name in ("prefect", "mlflow"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported')\n")
    try:
        assert reproduce(folder) == "nothing is stale\n"
    finally:
        for name in ("prefect", "mlflow"):
            (folder / f"{name}.py").unlink()


def many(files: int) -> dict:
    """One stage that eight others share, of which the first makes `files` files."""
    return {
        "up": {"cmd": "cp source up.txt", "deps": ["source"], "outs": ["up.txt"]},
        "files": {
            "cmd": f"mkdir files && cd files && seq {files} | split -l 1 -a 5 -d",
            "deps": ["up.txt"],
            "outs": ["files"],
        },
        "work": {
            "foreach": list(range(7)),
            "do": {"cmd": "cp up.txt ${item}.txt && sleep 0.5", "deps": ["up.txt"], "outs": ["${item}.txt"]},
        },
    }


def test_of_two_stages_that_may_begin_the_one_that_took_longer_does(tmp_path, server):
    commands = {"short": "cp source short.txt", "long": "sleep 0.5; cp source long.txt"}
    stages = {name: {"cmd": timed(name, words), "deps": ["source"], "outs": [f"{name}.txt"]} for name, words in commands.items()}
    stages["short"]["meta"] = {"seconds": 60}  # which is believed as long as it never ran
    folder = repository(tmp_path / "here", dict(sorted(stages.items())))
    for first, second in (("short", "long"), ("long", "short")):
        reproduce(folder, "--jobs", "1", server=server)
        when = times(folder)
        assert when[first][1] <= when[second][0]
        (folder / "source").write_text("another\n")


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_nothing_and_the_next_run_goes_on(tmp_path, server):
    folder, twin = (repository(tmp_path / name, many(300)) for name in ("here", "twin"))
    dvc(twin, "repro")
    flow, _ = begun(folder, "work@0: starts")
    children = descendants(flow.pid, 4)
    flow.kill()
    flow.communicate(timeout=40)
    assert not psutil.wait_procs(children, timeout=15)[1]
    torn = lock(twin)[: len(lock(twin)) // 2] + "\n  torn: ["  # a kill in the midst of DVC's writing
    (folder / "dvc.lock").write_text(torn)
    reproduce(folder, "--jobs", "9", server=server)
    assert lock(folder) == lock(twin)
    assert dvc(folder, "status").strip() == "Data and pipelines are up to date."


@pytest.mark.slow
def test_what_a_kill_tore_of_dvc_s_own_files_is_mended_or_told(tmp_path, server):
    stages = {name: {"cmd": f"cp source {name}", "deps": ["source"], "outs": [name]} for name in ("one", "two")}
    folder = repository(tmp_path / "here", stages)
    reproduce(folder, server=server)
    made = lock(folder)

    (folder / ".dvc/tmp/rwlock").write_text('{"write": {"/one')
    (folder / "one").unlink()
    assert "files in use was torn by a kill" in reproduce(folder, server=server)

    for entry in filter(Path.is_file, (folder / ".dvc/cache/runs").rglob("*")):
        os.truncate(entry, 20)
    for name in ("one", "two", "dvc.lock"):
        (folder / name).unlink()
    assert reproduce(folder, server=server).count("ran after") == 2
    assert lock(folder) == made

    (folder / "dvc.lock").write_text(made[:-20] + "\n  torn: [")
    (folder / "data/.work/dvc.lock").unlink()  # as where nobody but `dvc repro` was ever at work
    assert "git checkout dvc.lock" in reproduce(folder, status=1)


@pytest.mark.slow
@pytest.mark.parametrize("how, status", [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_interrupted_it_ends_at_once_and_leaves_nothing(tmp_path, how, status):
    flow, told = begun(repository(tmp_path / "here", many(3)), "work@0: starts")
    children = descendants(flow.pid, 4)
    os.killpg(flow.pid, how)  # as a terminal's Ctrl-C and a service's end do
    told += flow.communicate(timeout=30)[0]
    assert flow.returncode == status
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert "Traceback" not in told


def test_it_waits_for_a_dvc_that_is_at_work_on_the_same_stage(tmp_path, monkeypatch):
    stage = {"cmd": timed("one", "sleep 3 && cp source out.txt"), "deps": ["source"], "outs": ["out.txt"]}
    folder = repository(tmp_path / "here", {"one": stage})
    other = subprocess.Popen(["dvc", "repro"], cwd=folder, env=variables(folder), stdout=subprocess.DEVNULL)
    while not (folder / "times").exists():
        assert other.poll() is None
        time.sleep(0.05)
    flow = begin(folder)  # its status has to wait as well
    told: list[str] = []
    monkeypatch.chdir(folder)
    with Forks() as forks:
        assert Hands(told.append, forks, variables(folder)).run("one", Held({}, []), 1, told.append) == "unchanged"
    assert "one: waits for another DVC at work here" in told
    assert flow.communicate(timeout=60)[0].splitlines()[-1] == "nothing is stale"
    assert (other.wait(), flow.returncode) == (0, 0)
    assert len((folder / "times").read_text().splitlines()) == 2


def begun(folder: Path, awaited: str, server: str = "") -> tuple["subprocess.Popen[str]", str]:
    """`talkingface reproduce` once it has told `awaited`, and all that it has told."""
    flow, told = begin(folder, "--jobs", "4", server=server), ""
    while awaited not in told:
        line = flow.stdout.readline()
        assert line, told
        told += line
    return flow, told


@pytest.mark.slow
def test_two_at_once_share_the_work_and_the_one_gpu(tmp_path, server):
    stages = {
        "gpu": {
            "foreach": [1, 2],
            "do": {
                "cmd": timed("gpu${item}", "sleep 1 && echo ${item} > ${item}.txt"),
                "deps": ["source"],
                "outs": ["${item}.txt"],
                "meta": {"gpu": 1},
            },
        },
        "end": {"cmd": "cat 1.txt 2.txt > end.txt", "deps": ["1.txt", "2.txt"], "outs": ["end.txt"]},
    }
    folder = repository(tmp_path / "here", stages)
    both = [begin(folder, server=server) for _ in range(2)]
    told = [flow.communicate(timeout=120)[0] for flow in both]
    assert [flow.returncode for flow in both] == [0, 0], told
    when = times(folder)
    assert when["gpu1"][1] <= when["gpu2"][0] or when["gpu2"][1] <= when["gpu1"][0]
    assert len((folder / "times").read_text().splitlines()) == 4  # each ran once
    assert (folder / "end.txt").read_text() == "1\n2\n"


@pytest.mark.slow
def test_eight_stages_of_one_upstream_all_succeed_while_one_commits_thirty_thousand_files(tmp_path, server):
    folder = repository(tmp_path / "here", many(30_000))
    for turn in range(20):
        (folder / "source").write_text(f"{turn}\n")
        reproduce(folder, "--jobs", "8", server=server)
        assert dvc(folder, "status").strip() == "Data and pipelines are up to date."


@pytest.mark.parametrize("meta, message", [({"gpus": 1}, "meta.gpus"), ({"cpu": 0}, "meta.cpu")])
def test_a_wrong_meta_is_refused_by_name(tmp_path, meta, message):
    stage = {"cmd": "cp source out.txt", "deps": ["source"], "outs": ["out.txt"], "meta": meta}
    told = reproduce(repository(tmp_path / "here", {"one": stage}), status=1)
    assert "dvc.yaml: one: " in told and message in told
