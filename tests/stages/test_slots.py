import subprocess
import sys
import time

import pytest

from stages.engine.slots import Slots, gpus, machine
from tests.project import ROOT, environment

POOLS = {"cpu": ["0", "1"], "gpu": ["0"], "memory_gb": ["0", "1", "2", "3"]}


def test_a_stage_gets_all_that_it_needs_or_nothing(tmp_path):
    mine, theirs = Slots(POOLS, tmp_path), Slots(POOLS, tmp_path)
    held = mine.take({"cpu": 1, "memory_gb": 3}, alone="a")
    assert held.names == {"stage": ["a"], "cpu": ["0"], "memory_gb": ["0", "1", "2"]}
    assert theirs.take({"cpu": 1, "memory_gb": 2}, alone="b") is None
    other = theirs.take({"cpu": 1, "gpu": 1, "memory_gb": 1}, alone="b")
    assert other.names["cpu"] == ["1"]
    held.give_back()
    other.give_back()
    assert mine.take({"cpu": 2, "memory_gb": 4}, alone="b") is not None


def test_more_than_there_is_means_all_of_it(tmp_path):
    slots = Slots(POOLS, tmp_path)
    assert slots.take({"gpu": 8}, alone="a").names["gpu"] == ["0"]
    assert slots.take({"gpu": 1}, alone="b") is None


def test_a_stage_is_at_work_once(tmp_path):
    slots = Slots(POOLS, tmp_path)
    held = slots.take({"cpu": 1}, alone="dvc.yaml:train@a/b")
    assert slots.take({"cpu": 1}, alone="dvc.yaml:train@a/b") is None
    held.give_back()
    assert slots.take({"cpu": 1}, alone="dvc.yaml:train@a/b") is not None


def test_a_killed_process_frees_its_slots_at_once(tmp_path):
    script = (
        f"from pathlib import Path; from stages.engine.slots import Slots; import time; "
        f"held = Slots({POOLS}, Path({str(tmp_path)!r})).take({{'gpu': 1}}, alone='a'); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script], env=environment(ROOT), stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    slots = Slots(POOLS, tmp_path)
    assert slots.take({"gpu": 1}, alone="b") is None
    other.kill()
    other.wait()
    assert slots.take({"gpu": 1}, alone="b") is not None


def test_slots_are_held_as_long_as_a_child_has_the_files(tmp_path):
    slots = Slots(POOLS, tmp_path)
    held = slots.take({"gpu": 1}, alone="a")
    child = subprocess.Popen(["sleep", "60"], pass_fds=held.files)
    held.give_back()
    assert slots.take({"gpu": 1}, alone="b") is None
    child.kill()
    child.wait()
    assert slots.take({"gpu": 1}, alone="b") is not None


@pytest.mark.parametrize("visible, found", [("0,2", ["0", "2"]), ("", []), ("-1", []), ("GPU-8d3f", ["GPU-8d3f"])])
def test_gpus_are_those_that_torch_would_see(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == found
    assert machine(2)["gpu"] == found


def test_without_a_gpu_what_wants_one_takes_a_cpu_alone(tmp_path):
    slots = Slots({"cpu": ["0", "1"], "gpu": [], "memory_gb": ["0"]}, tmp_path)
    held = [slots.take({"cpu": 1, "gpu": 1}, alone=name) for name in "abc"]
    assert [one and one.names["gpu"] for one in held] == [[], [], None]


def test_gpus_are_counted_without_torch(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    began = time.monotonic()
    assert gpus() == ["0", "1"]
    assert time.monotonic() - began < 1
