"""`python -m tests.flows.bench`: `talkingface reproduce` beside `dvc repro`, and a pass that finds nothing beside `dvc status`.

Stages that sleep show what the executor itself costs. The critical path is computed from the same seconds: no executor can be
faster than it, nor than all the seconds divided by the stages at once. One run on one machine: compare the ratios.

`--raw data/raw`, of a project whose media are there, takes this project's own stages instead, from media to shards. With
`--parts 2` each of them is one process, and works on half of a corpus; else it has a process for every core, and no executor
wins more than what `dvc repro` leaves of the cores.
"""

import argparse
import contextlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from flows.stale import plan
from stages.engine.workers import available_cores
from tests.flows.repository import REPRODUCE, dvc, repository, reproduce, variables
from tests.project import copy_project, run

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


def graph(raw: Path, base: Path, parts: int) -> None:
    """Two copies of this project with these media, made up to their shards: one stage after the other, and side by side."""
    corpora = sorted(folder.name for folder in raw.iterdir() if folder.is_dir())
    shards = [f"shards@{corpus}" for corpus in corpora]
    commands = {"dvc repro": (sys.executable, "-m", "dvc", "repro", *shards), "reproduce": (*REPRODUCE, *shards)}
    wall, told = {}, ""
    for name, command in commands.items():
        folder = copy_project(base / name.replace(" ", "-"))
        shutil.copytree(raw, folder / "data/raw")
        shutil.copytree(base / ".prefect", folder / ".prefect")
        params = yaml.safe_load((folder / "params.yaml").read_text())
        params |= {"corpora": corpora, "parts": list(range(parts)), "engine": params["engine"] | {"workers": int(parts > 1)}}
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        run(folder, "git", "init", "-q")
        with contextlib.chdir(folder):
            stages = plan(print, shards).stages
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        told = run(folder, *command).stdout
        wall[name], after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / wall[name]
        print(f"{name}: {wall[name]:.0f} s, {busy:.2f} of {available_cores()} cores at work")
    took = {name: float(seconds) for name, seconds in re.findall(r"^(\S+): \w.* after ([\d.]+) s \(", told, re.MULTILINE)}
    path: dict[str, float] = {}
    for stage in stages:  # each after all that it needs
        path[stage.name] = took[stage.name] + max((path[before] for before in stage.upstream), default=0.0)
    print(f"critical path {max(path.values()):.0f} s, all stages {sum(took.values()):.0f} s")
    faster = wall["dvc repro"] / wall["reproduce"]
    print(f"{len(stages)} stages of {', '.join(corpora)}: {faster:.2f} times as fast   (wanted: 1.5)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="that each stage sleeps")
    parser.add_argument("--passes", type=int, default=5, help="that find nothing to do; their median counts")
    parser.add_argument("--raw", type=Path, help="folder of media: this project's own stages instead, up to the shards")
    parser.add_argument("--parts", type=int, default=1, help="of each corpus")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        warm = repository(base / "warm" / "here", sleepers(0)[0])
        reproduce(warm)  # Prefect makes its database once in a lifetime
        if chosen.raw:
            graph(chosen.raw.resolve(), base, chosen.parts)
            return
        stages, critical, total = sleepers(chosen.seconds)
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
