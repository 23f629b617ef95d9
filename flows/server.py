"""A Prefect API for flows that run where no server does, and servers side by side."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flows import leash
from stages.engine import die_with

HOST = "127.0.0.1"


class ServerFailed(RuntimeError):
    """The temporary server ended, or did not answer in time."""


@contextmanager
def prefect_api(seconds: float = 300) -> Iterator[None]:
    """The server of PREFECT_API_URL if one is set, else a temporary one on loopback, for the length of the block.

    Prefect would start a temporary server itself, but one that outlives a flow that is killed. This one starts while Prefect is
    imported here: who is in a hurry imports it within the block.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    address = f"http://{HOST}:{free_port()}/api"
    words = ["--factory", "prefect.server.api.server:create_app", "--host", HOST, "--port", address.split(":")[2].split("/")[0]]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *words, "--log-level", "error"],
        env=os.environ | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
        # What ends all of a terminal or a service (Ctrl-C, SIGTERM) must not end it before the flow: one whose server is gone
        # tries for two minutes to say that it was interrupted (measured).
        start_new_session=True,
        preexec_fn=partial(die_with, os.getpid()),
    )
    try:
        from prefect.logging.handlers import APILogWorker
        from prefect.settings import PREFECT_API_URL, temporary_settings

        if PREFECT_API_URL.value():  # of a profile or a file of Prefect's, or a block around this one
            server.kill()
            yield
            return
        wait_until_up(f"{address}/health", server, seconds)
        with temporary_settings({PREFECT_API_URL: address}):
            try:
                yield
            finally:
                APILogWorker.drain_all(timeout=10)  # log lines travel in batches: the last one is still here
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_until_up(address: str, server: subprocess.Popen[bytes], seconds: float = 300) -> None:
    """Return when `address` answers. Raises ServerFailed if its process ends first, or after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.poll() is not None:
            raise ServerFailed(f"the server for {address} ended with {server.returncode}; what it printed says why")
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    raise ServerFailed(f"{address} did not answer within {seconds:.0f} s")


@contextmanager
def side_by_side(commands: Sequence[Sequence[str]]) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Commands of this installation, running for the length of the block; all of each is told to end then.

    SIGTERM ends the block as Ctrl-C does, and Ctrl-C does in a script's background too, which inherits an ignored SIGINT.
    Killed, this process takes all of them with it, and a command that was killed what it had begun: a worker its flows.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: sys.exit(0))
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, *words in commands:
            command = [sys.executable, "-P", leash.__file__, str(Path(sys.executable).parent / name), *words]
            running.append(subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            process.wait()
