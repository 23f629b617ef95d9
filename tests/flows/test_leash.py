import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import leash
from tests.flows.repository import descendants
from tests.project import ROOT, environment
from tests.waiting import until


def begin(*command: str) -> "subprocess.Popen[str]":
    words = [sys.executable, leash.__file__, *command]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("code", [0, 3])
def test_it_ends_as_its_command_ends(code):
    process = begin("sh", "-c", f"echo said; exit {code}")
    assert process.communicate(timeout=20)[0] == "said\n"
    assert process.returncode == code


def test_a_command_that_there_is_not_ends_it_as_a_shell_does():
    assert begin("no-such-command").wait(20) == leash.NOT_FOUND


def test_what_the_command_left_in_the_background_ends_with_it():
    process = begin("sh", "-c", "setsid sleep 60 & echo $!")
    assert not psutil.pid_exists(int(process.communicate(timeout=20)[0]))


def test_who_is_orphaned_leaves_no_zombie_below_a_command_that_goes_on():
    process = begin("sh", "-c", "(sleep 0.2 & echo $!); sleep 60")
    orphan = int(process.stdout.readline())
    until("end of the orphan", lambda: not psutil.pid_exists(orphan), 5)
    assert process.poll() is None
    process.communicate(timeout=20)


def test_the_end_of_stdin_ends_all_but_lets_the_command_finish():
    process = begin("sh", "-c", "(setsid sleep 60 & sleep 60); sleep 0.1; echo tidied up")
    below = descendants(process.pid, 3)
    began = time.monotonic()
    process.stdin.close()
    assert process.wait(20) is not None
    assert time.monotonic() - began < leash.GRACE_S + 3
    assert not psutil.wait_procs(below, timeout=1)[1]


@pytest.mark.slow
def test_a_command_that_does_not_end_is_killed_after_the_grace():
    process = begin(sys.executable, "-c", "import time; time.sleep(60)")
    below = descendants(process.pid, 1)
    process.stdin.close()
    assert process.wait(leash.GRACE_S + 5) == 128 + signal.SIGKILL
    assert not psutil.wait_procs(below, timeout=1)[1]


def test_a_killed_leash_takes_the_command_with_it():
    process = begin(sys.executable, "-c", "import time; time.sleep(60)")
    below = descendants(process.pid, 1)
    os.kill(process.pid, signal.SIGKILL)
    assert not psutil.wait_procs(below, timeout=5)[1]


@pytest.mark.parametrize("ending", ["INT", "TERM"])
def test_a_signal_to_the_group_is_for_the_command(ending):
    script = f"trap 'echo tidied up; exit 0' {ending}; sleep 0.2; echo ready; while :; do sleep 0.1; done"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a script's background
    process = begin("sh", "-c", script)
    signal.signal(signal.SIGINT, before)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, getattr(signal, f"SIG{ending}"))
    assert process.communicate(timeout=20)[0] == "tidied up\n"
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["who began it", "the command"])
def test_commands_side_by_side_outlive_neither_a_killed_beginner_nor_leave_what_they_began(killed):
    worker = "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    block = f"with side_by_side([['python', '-c', {worker!r}]] * 2) as two:"
    wait = "while all(one.poll() is None for one in two): time.sleep(0.1)"
    script = f"import time\nfrom flows.server import side_by_side\n{block}\n {wait}"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment(ROOT))
    below = descendants(process.pid, 6)  # two leashes, each with a command that has begun another
    (process if killed == "who began it" else next(one for one in below if worker in one.cmdline()[2:3])).kill()
    assert not psutil.wait_procs([process, *below], timeout=15)[1]


def test_it_needs_nothing_of_this_project(tmp_path):
    alone = tmp_path / "leash.py"
    alone.write_text(Path(leash.__file__).read_text())
    words = [sys.executable, "-I", alone, "sh", "-c", "exit 4"]
    assert subprocess.run(words, cwd=tmp_path, stdin=subprocess.PIPE, timeout=20).returncode in (4, 128 + signal.SIGKILL)
