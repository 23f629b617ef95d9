"""`python leash.py COMMAND …`: runs a command that nothing outlives: neither whoever holds this process's stdin, nor the command.

DVC, killed, leaves the shell of its stage running: a stage would go on writing beside its own next attempt. Here the end of stdin
(its writer closed it, or was killed in any way) ends the whole tree. The command itself, DVC, is spared for GRACE_S: what it runs
is killed, and DVC, seeing that, gives its locks back and leaves dvc.lock whole.

Stands alone (no import of this project), so that it starts in 20 ms; stages.engine.die_with would cost 0.3 s a stage.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

GRACE_S = 5.0
DIE_WITH_PARENT, ADOPT_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
NOT_FOUND = 127  # what a shell ends with for a command that there is not


def hold(run: Callable[[], int]) -> int:
    """Call `run` in a process of its own, to its end; what it returned, 128 + n after signal n."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # the end of stdin is the one way to be told to stop
        signal.signal(ending, lambda *_: None)  # sent to the group they are for the command, which would inherit "ignored"
    prctl(ADOPT_ORPHANS, 1)
    if not (held := os.fork()):
        _be(run)
    ended = threading.Event()
    threading.Thread(target=_end_with_stdin, args=(held, ended), daemon=True).start()
    pid = status = 0
    while pid != held:  # a worker runs for months: who is orphaned below it is ours, and reaped as it ends
        pid, status = os.wait()
    ended.set()
    while others := _descendants():  # what the command left in the background
        _kill(others)
        with suppress(ChildProcessError):  # not ours yet: its parent is only just dying
            os.wait()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _be(run: Callable[[], int]) -> NoReturn:
    code = 1
    try:
        prctl(DIE_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _end_with_stdin(held: int, ended: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    until = time.monotonic() + GRACE_S
    while not ended.is_set():
        late = time.monotonic() > until
        _kill([pid for pid in _descendants() if late or pid != held])
        time.sleep(0.02)


def _descendants() -> list[int]:
    import psutil

    return [process.pid for process in psutil.Process().children(recursive=True)]


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def prctl(option: int, value: int | bytes) -> None:
    """Linux's prctl of this process; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _execute(command: list[str]) -> int:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND


if __name__ == "__main__":
    sys.exit(hold(partial(_execute, sys.argv[1:])))
