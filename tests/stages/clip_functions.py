"""Clip functions for the tests of the engine, in a module of their own so that worker processes can import them."""

import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.shardset import Clip, Column, Skipped
from stages.engine import EngineParams, RawSource, map_clips


@dataclass(frozen=True)
class Params:
    log: str  # a file that gets a line "pid key" whenever the function is called
    pause_s: float = 0
    repeat: int = 1


def perform(clip: Clip, params: Params) -> Column | Skipped:
    """Does what the clip's member `do` says; returns `do`, repeated."""
    with open(params.log, "a") as log:
        log.write(f"{os.getpid()} {clip.key}\n")
    time.sleep(params.pause_s)
    match clip.members["do"].decode():
        case "skip":
            return Skipped("no face", "in 3 of 75 frames")
        case "raise":
            raise KeyError("mouth\nis closed")
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "exit in peace":
            os._exit(0)
        case "sys.exit":
            raise SystemExit(4)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill the parent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        case "die while answering":
            threading.Thread(target=kill_while_sending).start()
            return {"txt": bytes(20_000_000)}  # more than a pipe holds
        case "die once":
            if Path(params.log).read_text().count(f" {clip.key}\n") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        case "exhaust memory":
            bytearray(1 << 60)
        case "hang":
            time.sleep(3600)
        case "return nothing":
            return None  # type: ignore[return-value]
        case "return text":
            return {"txt": "text"}  # type: ignore[dict-item]
        case "return an unsafe suffix":
            return {"../txt": b"text"}
        case "threads":
            return {"txt": f"{os.environ['OMP_NUM_THREADS']} {os.environ['OPENCV_FOR_THREADS_NUM']}".encode()}
    return {"txt": clip.members["do"] * params.repeat}


def kill_while_sending() -> None:
    main = threading.main_thread().ident or 0
    while sys._current_frames()[main].f_code.co_name != "_send":  # of multiprocessing.connection.Connection
        time.sleep(0.0001)
    os.kill(os.getpid(), signal.SIGKILL)


def run_stage(folder: str, do: list[str], pause_s: float = 0.01, repeat: int = 1, **engine: Any) -> None:
    """A whole stage with two clips in a shard, for tests that kill its process or what it runs on."""
    clips = [Clip(f"s1/{number:03d}", {"do": what.encode()}) for number, what in enumerate(do)]
    at = Path(folder)
    params = Params(str(at / "log"), pause_s, repeat)
    map_clips("perform", perform, params, RawSource(clips, 2), at / "out", at / "work", EngineParams(**engine))
