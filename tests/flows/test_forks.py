"""DVC commands of one fork server, in a real DVC repository."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.forks import Fork, Forks
from stages.engine.slots import Slots
from tests.flows.repository import dvc, lock, repository
from tests.project import ROOT
from tests.waiting import until

STAGES = {
    "said": {"cmd": "echo $SAID; cp source said.txt", "deps": ["source"], "outs": ["said.txt"]},
    "bad": {"cmd": "exit 3", "outs": ["bad.txt"]},
    "long": {"cmd": "echo begun $$; sleep 60; cp source long.txt", "deps": ["source"], "outs": ["long.txt"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return repository(tmp_path_factory.mktemp("forks") / "here", STAGES)


@pytest.fixture
def forks(folder, monkeypatch) -> Iterator[Forks]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with Forks() as forks:
        yield forks
    assert not servers()


def servers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "flows.forks" in one.cmdline()]


def begin(forks: Forks, stage: str, *files: int, **environment: str) -> Fork:
    return forks.begin(["--wait-for-lock", "repro", "--single-item", stage], environment, files)


def told(fork: Fork, awaited: str) -> re.Match[str]:
    for line in fork.stdout:
        if found := re.search(awaited, line):
            return found
    raise AssertionError(f"it ended without telling {awaited}")


def test_a_stage_runs_as_by_dvc_with_the_environment_that_is_given(forks, folder, tmp_path):
    fork = begin(forks, "said", SAID="hello")
    assert "hello\n" in fork.stdout.readlines()
    assert fork.wait() == 0
    twin = repository(tmp_path / "twin", STAGES)
    dvc(twin, "repro", "said")
    assert lock(folder) == lock(twin)


def test_a_stage_that_fails_ends_as_dvc_does(forks):
    fork = begin(forks, "bad")
    assert any("exited with 3" in line for line in fork.stdout)
    assert fork.wait() == 255


def test_stages_side_by_side_each_have_a_process_named_dvc(forks):
    two = [begin(forks, "long"), begin(forks, "bad")]
    told(two[0], "begun")
    assert "dvc" in {one.name() for one in psutil.Process().children(recursive=True)}
    assert two[1].wait() == 255
    two[0].let_go()
    assert two[0].wait() != 0


def test_let_go_it_ends_with_all_that_it_began(forks):
    fork = begin(forks, "long")
    shell = psutil.Process(int(told(fork, r"begun (\d+)")[1]))
    below = shell.children()
    fork.let_go()
    assert fork.wait() != 0
    assert not psutil.wait_procs([shell, *below], timeout=5)[1]
    fork.let_go()  # harmless


@pytest.mark.parametrize("kind, count", [("cpu", 1), ("memory_gb", 600)])
def test_slots_are_taken_until_nothing_of_the_stage_is_left(forks, kind, count):
    slots = Slots({kind: [str(number) for number in range(count)]})
    held = slots.take({kind: count})
    fork = begin(forks, "long", *held.files)
    told(fork, "begun")
    held.give_back()
    assert slots.take({kind: 1}) is None
    fork.let_go()
    fork.wait()
    until("slots", lambda: slots.take({kind: count}), 5)


def test_of_a_killed_leash_nothing_is_left(forks):
    fork = begin(forks, "long")
    shell = psutil.Process(int(told(fork, r"begun (\d+)")[1]))
    leash = shell.parent().parent()
    below = [shell, *shell.children()]
    leash.kill()
    assert fork.wait() == -signal.SIGKILL
    assert not psutil.wait_procs(below, timeout=5)[1]


def test_a_killed_server_ends_no_stage_and_has_a_successor(forks):
    fork = begin(forks, "long")
    shell = psutil.Process(int(told(fork, r"begun (\d+)")[1]))
    (server,) = servers()
    server.kill()
    psutil.wait_procs([server], timeout=5)
    assert begin(forks, "bad").wait() == 255
    assert shell.is_running()
    fork.let_go()
    assert fork.wait() != 0
    assert not shell.is_running()


def test_of_many_stages_no_zombie_and_no_open_file_is_left(forks):
    (server,) = servers()
    assert begin(forks, "bad").wait() == 255
    files = server.num_fds()
    for _ in range(5):
        assert begin(forks, "bad").wait() == 255
    until("end of all forks", lambda: not server.children(), 5)
    assert server.num_fds() == files
