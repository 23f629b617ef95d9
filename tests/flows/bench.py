"""`python -m tests.flows.bench`: `talkingface reproduce` beside `dvc repro`, and a pass that finds nothing beside `dvc status`.

Stages that sleep show what the executor itself costs. The critical path is computed from the same seconds: no executor can be
faster than it, nor than all the seconds divided by the stages at once. One run on one machine: compare the ratios.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.flows.repository import REPRODUCE, dvc, repository, reproduce, variables

JOBS = 2
WIDTH = 4


def sleepers(seconds: float) -> tuple[dict, float, float]:
    """Two chains of WIDTH stages that meet in one; the critical path and the sum of all, in seconds of sleep."""
    stages = {}
    for chain in "ab":
        for place in range(WIDTH):
            before = f"{chain}{place - 1}.txt" if place else "source"
            name = f"{chain}{place}"
            stages[name] = {"cmd": f"sleep {seconds} && cp {before} {name}.txt", "deps": [before], "outs": [f"{name}.txt"]}
    last = [f"{chain}{WIDTH - 1}.txt" for chain in "ab"]
    stages["end"] = {"cmd": f"sleep {seconds} && cat {' '.join(last)} > end.txt", "deps": last, "outs": ["end.txt"]}
    return stages, (WIDTH + 1) * seconds, (2 * WIDTH + 1) * seconds


def seconds_of(command: tuple[str, ...], folder: Path) -> float:
    """Wall time of a command that has to succeed."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=variables(folder), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="that each stage sleeps")
    parser.add_argument("--passes", type=int, default=5, help="that find nothing to do; their median counts")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        stages, critical, total = sleepers(chosen.seconds)
        warm = repository(base / "warm" / "here", sleepers(0)[0])
        reproduce(warm)  # Prefect makes its database once in a lifetime
        folder = repository(base / "timed" / "here", stages)
        ideal = max(critical, total / JOBS)
        took = seconds_of((*REPRODUCE, "--jobs", str(JOBS)), folder)
        assert dvc(folder, "status").strip() == "Data and pipelines are up to date."
        print(f"{len(stages)} stages of {chosen.seconds:g} s, {JOBS} at once: {took:.1f} s")
        print(f"critical path {critical:g} s, one after another {total:g} s; ideal / taken {ideal / took:.2f}   (wanted: 0.85)")
        pairs = [
            (seconds_of((sys.executable, "-m", "dvc", "status"), folder), seconds_of(REPRODUCE, folder))
            for _ in range(chosen.passes)
        ]
        status, nothing = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"dvc status {status:.2f} s, nothing to do {nothing:.2f} s: {nothing / status:.2f} times   (wanted: 1.5 at most)")


if __name__ == "__main__":
    main()
