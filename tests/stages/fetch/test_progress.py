"""What a running download tells."""

import os
import pty
import subprocess
import sys

import pytest

from stages.fetch import progress
from stages.fetch.progress import FetchProgress, amount, duration
from tests.project import ROOT


def test_amounts_and_times_are_told_as_people_say_them():
    assert [amount(n) for n in (0, 999, 1000, 423_500_000, 2_443_000_000, 8e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "424 MB",
        "2.4 GB",
        "8000 TB",
    ]
    assert [duration(s) for s in (5, 89, 600, 6720)] == ["5 s", "89 s", "10 min", "1 h 52 min"]


def test_without_a_terminal_lines_tell_what_is_left(monkeypatch, capfd):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with FetchProgress("grid", 34, 4_000_000) as told:
        told.recalled(1_000_000)
        clock[0] = 11
        told.arrived(1_100_000)
        told.finished_file()
    assert capfd.readouterr().err == "grid: 0 of 34 files, 2.1 MB of 4.0 MB, 100 kB/s, 19 s left\n"


BAR = """
import time
from stages.fetch.progress import FetchProgress
with FetchProgress("grid", 2, 2_000_000) as told:
    for _ in range(4):
        told.arrived(250_000)
        time.sleep(0.15)
    told.finished_file()
    time.sleep(0.2)
"""


def test_on_a_terminal_a_bar_tells_the_time_left():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", BAR], cwd=ROOT, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    assert process.wait() == 0
    assert b"grid 1/2" in shown
    assert b"1.0/2.0 MB" in shown
    assert b"0:00:0" in shown


@pytest.mark.parametrize("bytes", [0, 5])
def test_a_size_that_is_not_known_beforehand_is_no_trouble(bytes, capfd):
    with FetchProgress("grid", 1) as told:
        told.expect(bytes)
        told.arrived(10)
        told.expect(-bytes)
