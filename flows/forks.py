"""DVC, imported once by a process that forks for each stage: more than half of what `python -m dvc` takes are its imports.

What forks has no threads, which a fork would lose, and imports nothing but DVC; Python's own fork server would import into it
whatever began this process, Prefect among it. Each fork has a line, a socket: it brings the command, and its end ends the stage
(leash.py); back come the leash's pid and, once nothing of the stage is left, an exit status.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Self

from flows import leash

IMPORTS = ("dvc.cli.parser", "dvc.repo.plots", "dvc.repo.stage", "dvc.data_cloud", "dvc.scm", "dvc_data.index", "ruamel.yaml")
REQUEST, END = b"\0", b"\n"
MOST_FILES = 250  # that a message brings; Linux lets it bring 253, and a stage may hold a slot for each GB of memory
NAME_PROCESS = 15  # PR_SET_NAME of <linux/prctl.h>


class Fork:
    """A DVC under its leash, in a session of its own."""

    def __init__(self, line: socket.socket, output: int) -> None:
        self.stdout = os.fdopen(output, errors="replace")  # and stderr; a bar's carriage return ends a line too
        self._line = line
        self._code: Future[int] = Future()
        threading.Thread(target=self._follow, daemon=True).start()

    def let_go(self) -> None:
        """Have it end, and all that it began, within seconds; returns at once."""
        with suppress(OSError):  # it has ended
            self._line.shutdown(socket.SHUT_WR)

    def wait(self) -> int:
        """Its exit status, once nothing of it is left."""
        return self._code.result()

    def _follow(self) -> None:
        told: list[int] = []
        with suppress(ConnectionResetError), self._line, self._line.makefile() as lines:
            told.extend(map(int, lines))
        pid, code = (*told, None, None)[:2]
        if pid and code is None:  # the leash was killed: its group outlives it
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._code.set_result(-signal.SIGKILL if code is None else code)


class Forks:
    """Begins DVC's commands, for the length of a block, each as a fork of one process."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()
        self._server.wait()

    def begin(self, words: Sequence[str], environment: Mapping[str, str], files: Sequence[int]) -> Fork:
        """`dvc WORDS`, in this folder. environment: what differs from this process's. files: it holds them open till its end."""
        line, theirs = socket.socketpair()
        output, writing = os.pipe()
        try:
            with self._lock:
                while True:
                    if self._server.poll() is not None:  # it was killed
                        self._serve()
                    try:
                        socket.send_fds(self._requests, [REQUEST], [theirs.fileno(), writing])
                        break
                    except BrokenPipeError:
                        self._server.wait()
        finally:
            theirs.close()
            os.close(writing)
        with suppress(BrokenPipeError):  # then it never began, as `wait` will tell
            for start in range(0, len(files), MOST_FILES):
                socket.send_fds(line, [REQUEST], files[start : start + MOST_FILES])
            line.sendall(json.dumps([words, environment]).encode() + END)
        return Fork(line, output)

    def _serve(self) -> None:
        self._requests, theirs = socket.socketpair()
        command = [sys.executable, "-m", "flows.forks", str(theirs.fileno())]
        with theirs:  # a session of its own: what ends all of a terminal or a service is for the flow, which ends the stages
            self._server = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )


def serve(requests: socket.socket) -> None:
    """Fork for each request, until nobody is left who could send one."""
    for module in IMPORTS:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        request, files, _, _ = socket.recv_fds(requests, len(REQUEST), 2)
        if not request:
            return
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            _run(*files)
            os._exit(0)
        for file in files:
            os.close(file)


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(line: int, output: int) -> None:
    os.setsid()
    asked = b""
    with socket.socket(fileno=line) as received:
        while not asked.endswith(END):
            more, _, _, _ = socket.recv_fds(received, 1 << 16, MOST_FILES)  # the files stay open till this process's end
            if not more:
                return  # who asked is gone
            asked += more
        os.dup2(line, 0)
    for place in (1, 2):
        os.dup2(output, place)
    os.close(output)
    words, environment = json.loads(asked.lstrip(REQUEST))
    os.environ.update(environment)
    with suppress(BrokenPipeError):
        os.write(0, f"{os.getpid()}\n".encode())
        os.write(0, f"{leash.hold(partial(_dvc, words))}\n".encode())


def _dvc(words: list[str]) -> int:
    from dvc.cli import main

    leash.prctl(NAME_PROCESS, b"dvc")
    sys.argv = ["dvc", *words]  # which its locks tell others
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return main(words)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
