"""The engine gives the same bytes however it is run, and no clip, worker or kill costs more than it must."""

import ast
import gc
import importlib
import os
import pickle
import random
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from data.shardset import Clip, DamagedShard, Index, LeftOut, ShardSet, json_object, write_index, write_shard
from stages.engine import EngineParams, JoinedSource, RawSource, StageFailed, code, code_files, map_clips, workers
from stages.engine.mapping import NoRay
from stages.engine.pool import WorkerCannotStart
from stages.engine.unfinished import AlreadyRunning, UnfinishedRun
from stages.engine.workers import WorkerPool
from tests.stages.clip_functions import Params, perform
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TOLERANT = EngineParams(workers=2, max_failed=1.0)
STRICT = EngineParams(workers=2, max_failed=0.0)


class Stage:
    """The stage `perform`, run in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.out, self.work, self.log = folder / "out", folder / "work", folder / "log"
        self.params = Params(str(self.log))

    def run(self, do: Sequence[str], engine: EngineParams = TOLERANT, function=perform) -> Index:
        clips = [Clip(f"s1/{number:03d}", {"do": what.encode()}) for number, what in enumerate(do)]
        self.log.write_text("")
        return map_clips("perform", function, self.params, RawSource(clips, 2), self.out, self.work, engine)

    def executed(self) -> list[str]:
        """Keys for which the function was called in the last run, sorted, with repetitions."""
        return sorted(line.split()[1] for line in self.log.read_text().splitlines())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# One clip's trouble


def test_each_misfortune_costs_its_own_clip(stage):
    misfortunes = {
        "raise": "KeyError",
        "segfault": "worker died: Segmentation fault (signal 11)",
        "exit": "worker died: exit code 3",
        "exit in peace": "worker died: exit code 0",
        "sys.exit": "worker died: exit code 4",
        "kill": "worker died: Killed (signal 9)",
        "die while answering": "worker died: Killed (signal 9)",
        "exhaust memory": "MemoryError",
        "hang": "timeout",
        "return nothing": "TypeError",
        "return text": "TypeError",
        "return an unsafe suffix": "ValueError",
    }
    do = ["fine", "skip", "die once"]
    for misfortune in misfortunes:
        do += [misfortune, "fine"]
    index = stage.run(do, replace(TOLERANT, clip_timeout_s=5))

    reasons = {do[int(key[-3:])]: why.reason for key, why in index.left_out.items() if why.state == "failed"}
    assert reasons == misfortunes
    assert index.left_out["s1/001"] == LeftOut("filtered", "perform", "no face", "in 3 of 75 frames")
    assert index.left_out["s1/003"] == LeftOut("failed", "perform", "KeyError", r"'mouth\nis closed'")
    assert [clip.members["txt"] for clip in ShardSet(stage.out).clips()] == [b"fine", b"die once"] + 12 * [b"fine"]
    assert index.counts() == {"in": 27, "out": 14, "filtered": 1, "failed": 12}
    assert ShardSet(stage.out).index == index


def test_a_function_that_no_worker_can_load_is_an_error(stage, monkeypatch):
    module = types.ModuleType("only_in_the_parent")
    module.__file__ = __file__
    exec("def perform(clip, params): return {}", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(WorkerCannotStart, match="exit code 1"):
        stage.run(["fine"], function=module.perform)


def test_without_ray_one_is_told_what_to_type(stage, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "stages.engine.cluster", raising=False)
    with pytest.raises(NoRay, match=r"pip install '\.\[ray\]'"):
        stage.run(["fine"], replace(TOLERANT, executor="ray"))


def test_workers_keep_to_one_thread(stage):
    before = dict(os.environ)
    stage.run(["threads"])
    assert next(ShardSet(stage.out).clips()).members == {"txt": b"1 1"}
    assert dict(os.environ) == before


# The same bytes


def test_one_and_two_workers_give_the_same_bytes(stage, tmp_path):
    do = ["fine", "skip", "raise", "segfault", "skip", "skip", "great", "fine", "fine"]
    stage.run(do, replace(TOLERANT, workers=1))
    other = Stage(tmp_path / "other")
    other.folder.mkdir()
    other.run(do, replace(TOLERANT, workers=2))
    assert contents(stage.out) == contents(other.out)


def test_a_shard_of_which_nothing_is_left_is_left_out(stage):
    stage.run(["fine", "fine", "skip", "skip", "fine"])
    assert sorted(contents(stage.out)) == ["00000.tar", "00002.tar", "index.json"]
    assert ShardSet(stage.out).keys == ("s1/000", "s1/001", "s1/004")


def test_outcomes_come_in_order_and_few_clips_are_held():
    taken = 0

    def clips():
        nonlocal taken
        for number in range(30):
            taken += 1
            yield number, Clip(f"s1/{number:03d}", {"do": b"fine" if number else b"kill"})

    job = pickle.dumps((perform, Params(os.devnull, pause_s=0.01)))
    with WorkerPool(job, count=2, timeout_s=30) as pool:
        held = [(number, taken - number) for number, _, _ in pool.map(clips())]
    assert [number for number, _ in held] == list(range(30))
    assert max(ahead for _, ahead in held) <= 2 * 2 + 2


def test_stages_side_by_side_share_the_cores_and_one_takes_what_another_leaves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    logs = [tmp_path / "first", tmp_path / "second"]
    first, second = (WorkerPool(pickle.dumps((perform, Params(str(log), pause_s=0.1))), count=0, timeout_s=30) for log in logs)

    def at_work() -> list[int]:
        return [len({line.split()[0] for line in log.read_text().splitlines()}) for log in logs]

    def clips(count: int):
        return ((number, Clip(f"s1/{number:03d}", {"do": b"fine"})) for number in range(count))

    with second:
        with first:
            of_first, of_second = first.map(clips(40)), second.map(clips(60))
            next(of_first)
            for _ in range(10):
                next(of_second)
            list(of_first)
            assert at_work() == [2, 1]
        list(of_second)
        assert at_work() == [2, 2]


# Kills


def start(folder: Path, do: list[str]) -> subprocess.Popen:
    command = f"from tests.stages.clip_functions import run_stage; run_stage({str(folder)!r}, {do}, workers=2)"
    return subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, stderr=subprocess.DEVNULL)


def calls(folder: Path) -> list[tuple[int, str]]:
    """Process and clip of each call of the function."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(pid), key) for pid, key in map(str.split, lines)]


def remembered(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("work/records/*.json")}


def kill(process: subprocess.Popen, workers: set[int]) -> None:
    process.kill()
    process.wait()
    until("end of the workers", lambda: not any(map(alive, workers)), 5, 0.005)


def test_no_worker_outlives_a_killed_stage(tmp_path):
    process = start(tmp_path, ["hang", "hang"])
    until("clips at work", lambda: len(calls(tmp_path)) == 2, 30, 0.005)
    workers = {pid for pid, _ in calls(tmp_path)}
    assert len(workers) == 2 and all(map(alive, workers))
    kill(process, workers)


def test_killed_at_twenty_moments_the_bytes_are_the_same_and_no_finished_shard_is_made_twice(tmp_path):
    do = (["fine"] * 7 + ["skip"]) * 12
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    assert start(undisturbed, do).wait() == 0

    moments = random.Random(20)
    for _ in range(20):
        finished, before = remembered(killed), len(calls(killed))
        process = start(killed, do)
        enough = before + moments.randrange(7)
        while len(calls(killed)) < enough and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.02))
        kill(process, {pid for pid, _ in calls(killed)[before:]})
        assert not (killed / "out").exists(), "the kill came too late to be one"
        made_again = {f"{int(key[-3:]) // 2:05d}.tar" for _, key in calls(killed)[before:]}
        assert not finished & made_again

    finished, before = remembered(killed), len(calls(killed))
    assert finished, "every kill came before the first shard was finished"
    assert start(killed, do).wait() == 0
    assert contents(killed / "out") == contents(undisturbed / "out")
    assert len(calls(killed)) - before == len(do) - 2 * len(finished)
    assert not (killed / "work").exists()


def test_two_runs_do_not_share_a_work_folder(stage):
    with UnfinishedRun(stage.work, {}):
        with pytest.raises(AlreadyRunning, match="another process works in"):
            stage.run(["fine"])


# Failing and trying again


def test_too_many_failures_fail_the_stage_and_only_their_shards_are_made_again(stage):
    do = ["fine", "fine", "fine", "raise", "fine", "fine"]
    with pytest.raises(StageFailed) as failure:
        stage.run(do, STRICT)
    for part in ("1 of 6 clips failed", "1 × KeyError", "s1/003", "Repair the cause and run the stage again"):
        assert part in str(failure.value)
    assert not stage.out.exists()

    with pytest.raises(StageFailed):
        stage.run(do, STRICT)
    assert stage.executed() == ["s1/002", "s1/003"]

    index = stage.run(do, replace(STRICT, max_failed=1 / 6))
    assert stage.executed() == ["s1/002", "s1/003"]
    assert index.counts() == {"in": 6, "out": 5, "filtered": 0, "failed": 1}


def test_a_stage_of_which_no_clip_comes_out_fails(stage):
    with pytest.raises(StageFailed, match=r"no clip came out of 3: 3 filtered \(no face\), 0 failed"):
        stage.run(["skip"] * 3)
    assert not stage.out.exists()


def test_a_stage_that_is_given_no_clip_writes_an_empty_set(stage):
    stage.run([])
    assert ShardSet(stage.out).index.counts() == {"in": 0, "out": 0, "filtered": 0, "failed": 0}
    index = map_clips("perform", perform, stage.params, JoinedSource([ShardSet(stage.out)]), stage.out, stage.work, STRICT)
    assert index.counts() == {"in": 0, "out": 0, "filtered": 0, "failed": 0}


def test_a_failed_run_leaves_the_older_output_and_a_good_one_replaces_it(stage):
    stage.run(["fine"] * 4)
    before = contents(stage.out)
    with pytest.raises(StageFailed):
        stage.run(["raise"] * 4, STRICT)
    assert contents(stage.out) == before
    stage.run(["great"] * 2)
    assert sorted(contents(stage.out)) == ["00000.tar", "index.json"]


def leave_unfinished(stage: Stage) -> list[str]:
    """Six clips, of whose three shards only the last is not finished."""
    do = ["fine"] * 5 + ["raise"]
    with pytest.raises(StageFailed):
        stage.run(do, STRICT)
    return do


def test_changed_params_make_all_again(stage):
    do = leave_unfinished(stage)
    stage.params = replace(stage.params, repeat=2)
    stage.run(do)
    assert len(stage.executed()) == 6


def test_changed_input_makes_its_shard_again(stage):
    do = leave_unfinished(stage)
    do[0] = "great"
    stage.run(do)
    assert stage.executed() == ["s1/000", "s1/001", "s1/004", "s1/005"]


def test_a_damaged_unfinished_shard_is_made_again(stage):
    do = leave_unfinished(stage)
    os.truncate(stage.work / "shards" / "00001.tar", 512)
    stage.run(do)
    assert stage.executed() == ["s1/002", "s1/003", "s1/004", "s1/005"]


def test_changed_code_makes_all_again(stage, tmp_path, monkeypatch):
    source = tmp_path / "changing.py"
    source.write_text("import tests.stages.clip_functions as real\n\ndef perform(c, p): return real.perform(c, p)\n")
    monkeypatch.syspath_prepend(tmp_path)
    changing = importlib.import_module("changing")
    do = ["fine"] * 5 + ["raise"]
    with pytest.raises(StageFailed):
        stage.run(do, STRICT, changing.perform)
    with pytest.raises(StageFailed):
        stage.run(do, STRICT, changing.perform)
    assert stage.executed() == ["s1/004", "s1/005"], "unchanged code is found again"

    source.write_text(source.read_text() + "# another version\n")
    stage.run(do, TOLERANT, changing.perform)
    assert len(stage.executed()) == 6


def test_code_files_are_those_that_imports_reach(tmp_path, monkeypatch):
    files = {
        "data/__init__.py": "",
        "data/media/__init__.py": "from . import audio",
        "data/media/audio.py": "import numpy",
        "data/media/video.py": "",
        "data/shardset.py": "from stages import unrelated",
        "models/__init__.py": "",
        "models/face.py": "from .mesh import Mesh",
        "models/mesh.py": "from models.face import Face",
        "stages/__init__.py": "",
        "stages/align.py": "import data.shardset\n"
        "from stages.engine import map_clips\nfrom stages.params import output\n"
        "def align():\n    from models import face\n    from data.media import audio\n",
        "stages/engine/__init__.py": "from models import unrelated",
        "stages/params.py": "from models import unrelated",
        "models/unrelated.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    not_reached = {"data/media/video.py", "stages/engine/__init__.py", "stages/params.py", "models/unrelated.py"}
    found = {path.relative_to(tmp_path).as_posix() for path in code_files("stages.align")}
    assert found == files.keys() - not_reached


@pytest.fixture
def parsing_in_between():
    """Garbage collection, at almost any moment, parses Python; as another thread may."""
    thresholds = gc.get_threshold()

    def parse(phase: str, info: dict[str, int]) -> None:
        ast.parse("a = [1, 2]")

    gc.callbacks.append(parse)
    gc.set_threshold(20)
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(parse)


def test_code_files_are_found_while_somebody_else_parses(parsing_in_between):
    assert len(code_files("stages.align")) > 5


# Sources


def make_set(folder: Path, clips: list[Clip], left_out: dict[str, LeftOut]) -> ShardSet:
    """s1/00x are in 00000.tar, s1/01x in 00001.tar."""
    folder.mkdir()
    parts = [[clip for clip in clips if clip.key.startswith(start)] for start in ("s1/00", "s1/01")]
    entries = [write_shard(folder / f"{number:05d}.tar", part) for number, part in enumerate(parts)]
    write_index(folder, Index.of(entries, left_out))
    return ShardSet(folder)


KEYS = ["s1/001", "s1/002", "s1/011", "s1/012", "s1/013"]
DARK = LeftOut("filtered", "align", "no face", "")
SHORT = LeftOut("failed", "mel", "TooShort", "")


@pytest.fixture
def aligned(tmp_path: Path) -> ShardSet:
    clips = [Clip(key, {"do": b"fine", "mp4": key.encode()}) for key in KEYS]
    return make_set(tmp_path / "aligned", clips, {"s1/000": DARK})


def test_joined_clips_have_all_members_and_left_out_is_carried(tmp_path, aligned, stage):
    mel = make_set(
        tmp_path / "mel",
        [Clip(key, {"mel.npy": key.encode() * 2}) for key in KEYS if key != "s1/011"],
        {"s1/000": DARK, "s1/011": SHORT},
    )
    joined = JoinedSource([aligned, mel])
    assert [(shard.name, shard.keys) for shard in joined.shards] == [
        ("00000.tar", ("s1/001", "s1/002")),
        ("00001.tar", ("s1/012", "s1/013")),
    ]
    clips = [clip for shard in joined.shards for clip in shard.clips()]
    assert clips[2] == Clip("s1/012", {"do": b"fine", "mp4": b"s1/012", "mel.npy": b"s1/012s1/012"})
    assert joined.left_out == {"s1/000": DARK, "s1/011": SHORT}

    index = map_clips("perform", perform, stage.params, joined, stage.out, stage.work, TOLERANT)
    assert index.left_out == joined.left_out
    assert index.keys == ("s1/001", "s1/002", "s1/012", "s1/013")
    assert index.counts() == {"in": 6, "out": 4, "filtered": 1, "failed": 1}


def test_joined_content_changes_with_any_set(tmp_path, aligned):
    def joined(name: str, mel: bytes) -> list[str]:
        clips = [Clip(key, {"mel.npy": mel if key == "s1/013" else b"same"}) for key in KEYS]
        return [s.sha256() for s in JoinedSource([aligned, make_set(tmp_path / name, clips, {"s1/000": DARK})]).shards]

    first, again, other = joined("first", b"a"), joined("again", b"a"), joined("other", b"b")
    assert first == again
    assert first[0] == other[0] and first[1] != other[1]


def test_sets_that_do_not_belong_together_are_refused(tmp_path, aligned):
    clips = [Clip(key, {"mel.npy": b""}) for key in KEYS]
    with pytest.raises(ValueError, match="accounts for s1/013"):
        JoinedSource([aligned, make_set(tmp_path / "fewer", clips[:-1], {"s1/000": DARK})])
    with pytest.raises(ValueError, match="accounts for s1/000"):
        JoinedSource([aligned, make_set(tmp_path / "forgetful", clips, {})])
    with pytest.raises(ValueError, match="have the column mp4"):
        same = [Clip(key, {"mp4": b""}) for key in KEYS]
        JoinedSource([aligned, make_set(tmp_path / "same", same, {"s1/000": DARK})])
    with pytest.raises(ValueError, match="cut differently"):
        cut = tmp_path / "cut"
        cut.mkdir()
        write_index(cut, Index.of([write_shard(cut / "00000.tar", clips)], {"s1/000": DARK}))
        JoinedSource([aligned, ShardSet(cut)])


def test_a_damaged_source_stops_the_stage(aligned, stage):
    os.truncate(aligned.path / "00001.tar", 1024)
    with pytest.raises(DamagedShard, match="s1/011"):
        map_clips("perform", perform, stage.params, JoinedSource([aligned]), stage.out, stage.work, TOLERANT)
    assert not stage.out.exists()


def test_raw_source_sorts_cuts_and_knows_its_content():
    clips = [Clip(key, {"do": b"fine"}) for key in reversed(KEYS)]
    source = RawSource(clips, 2)
    assert [(shard.name, shard.keys) for shard in source.shards] == [
        ("00000.tar", tuple(KEYS[:2])),
        ("00001.tar", tuple(KEYS[2:4])),
        ("00002.tar", tuple(KEYS[4:])),
    ]
    other = RawSource([Clip(KEYS[4], {"do": b"Fine"}), *clips[1:]], 2)
    assert [a.sha256() == b.sha256() for a, b in zip(source.shards, other.shards, strict=True)] == [True, True, False]
    with pytest.raises(ValueError, match="two clips named s1/001"):
        RawSource([clips[-1], clips[-1]], 2)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_runs_of_the_shards_of_the_whole(parts):
    clips = [Clip(f"s1/{number:03d}", {"do": b"fine"}) for number in range(9)]
    whole = RawSource(clips, 2, {"s1/bad": DARK})
    divided = [RawSource(clips, 2, {"s1/bad": DARK}, (number, parts)) for number in range(parts)]
    described = [(shard.name, shard.keys, shard.sha256()) for source in divided for shard in source.shards]
    assert described == [(shard.name, shard.keys, shard.sha256()) for shard in whole.shards]
    assert max(len(source.shards) for source in divided) - min(len(source.shards) for source in divided) <= 1
    assert [source.left_out for source in divided] == [whole.left_out] + [{}] * (parts - 1)


# What is said


def test_the_last_line_sums_up(stage, capfd):
    leave_unfinished(stage)
    capfd.readouterr()
    stage.run(["fine"] * 5 + ["raise"])
    assert capfd.readouterr().err.startswith(
        "perform: 6 clips in (4 from an earlier run), 5 out, 0 filtered, 1 failed (KeyError), "
    )


def test_index_json_is_readable_as_documented(stage):
    stage.run(["fine", "skip"])
    written = json_object((stage.out / "index.json").read_bytes())
    assert written["counts"] == {"in": 2, "out": 1, "filtered": 1, "failed": 0}
    assert written["columns"] == ["txt"]
    assert written["shards"][0]["keys"] == ["s1/000"]
    assert written["left_out"]["s1/001"]["reason"] == "no face"
