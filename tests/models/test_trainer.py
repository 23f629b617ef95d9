"""The trainer, stopped or killed and started again, is the one that was not; alone and as two; and it fails with a reason."""

import importlib
import json
import random
import signal
import subprocess
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_leaves

from models.diffspeaker.training import SpeechToMotion
from models.given import Given
from models.trainer import FAILURE, PROGRESS, STATE, SUMMARY, Job, OwnRandomness, TrainingFailed, main, read_progress, train
from models.video_editing.generate import load
from tests.models.diffspeaker import corpus as diffspeaker
from tests.models.jobs import start, write_job
from tests.models.motion import corpus as motion
from tests.models.postnet import corpus as postnet
from tests.models.syncnet import corpus as syncnet
from tests.models.video_editing import corpus as video_editing


def job_of(path: Path) -> Job:
    return Job(**json.loads(path.read_text()))


def rows_of(folder: Path) -> list[dict[str, float]]:
    """Every row, in its order, without its time."""
    return [{name: value for name, value in row.items() if name != "time"} for row in read_progress(folder / "work" / PROGRESS)]


def same(one: Path, other: Path) -> None:
    """Two finished trainings had the same losses and learned the same."""
    first, second = rows_of(one), rows_of(other)
    assert [sorted(row) for row in first] == [sorted(row) for row in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)
    files = [sorted(path.relative_to(folder / "out") for path in folder.glob("out/**/*.safetensors")) for folder in (one, other)]
    assert files[0] and files[0] == files[1]
    for file in files[0]:
        weights, others = load_file(one / "out" / file), load_file(other / "out" / file)
        assert all(torch.allclose(weights[name], others[name], rtol=1e-6, atol=1e-9) for name in weights | others)


def speaker(folder: Path, **changes: Any) -> tuple[str, Any, Given]:
    lengths = [30, 24, 36, 28, 40, 26, 33]
    given = Given(diffspeaker.write_corpus(folder / "train", lengths), diffspeaker.write_corpus(folder / "val", [30]))
    return "diffspeaker", replace(diffspeaker.SMALL, steps=20, crop_frames=16, silence=0.3, **changes), given


def editor(folder: Path) -> tuple[str, Any, Given]:
    """Streams through a buffer of half its clips, in two processes."""
    given = Given(video_editing.write_corpus(folder / "train", [6, 4, 7, 5]), video_editing.write_corpus(folder / "val", [4]))
    augmented = {"identity": "random", "previous_dropout": 0.3, "mirror": 0.5}
    config = replace(video_editing.CONFIG, steps=20, val_every=5, log_every=1, buffer_clips=2, loader_workers=2, **augmented)
    return "video_editing", config, given


def expert(folder: Path) -> tuple[str, Any, Given]:
    given = Given(syncnet.write_corpus(folder / "train", [20, 30, 25]), syncnet.write_corpus(folder / "val", [20, 22]))
    config = replace(syncnet.CONFIG, steps=20, val_every=5, audio_noise=0.1, mouth_offset=0.1, buffer_clips=2, loader_workers=3)
    return "syncnet", config, given


def adaptation(folder: Path) -> tuple[str, Any, Given]:
    return "postnet", replace(postnet.CONFIG, steps=20, val_every=5, learning_rate=1e-2), postnet.given(folder)


def generator(folder: Path) -> tuple[str, Any, Given]:
    """Its expert joins at the first validation."""
    config = replace(motion.CONFIG, steps=20, sync_threshold=100.0, audio_noise=0.1, crop_frames=12)
    return "motion", config, motion.given(folder, [18, 25, 20], [16])


@pytest.mark.parametrize("system_of", [editor, expert, adaptation, generator])
def test_each_system_s_batches_go_on_at_any_step(tmp_path, system_of):
    system, config, given = system_of(tmp_path)
    config, loaders = replace(config, loader_workers=0), importlib.import_module(f"models.{system}.examples").loaders
    undisturbed, resumed = loaders(config, given)[0], loaders(config, replace(given, step=6))[0]
    for one, other in zip(islice(undisturbed, 6, 9), resumed, strict=False):
        assert all(map(torch.equal, tree_leaves(one), tree_leaves(other)))


class Died(Exception):
    pass


def stopped(system: str, config: Any, given: Given, folder: Path, step: int) -> Path:
    """A job in `folder` whose training has died as it began this step."""
    begin = OwnRandomness.on_train_batch_start

    def dying(self: OwnRandomness, trainer: lightning.Trainer, *rest: Any) -> None:
        if trainer.global_step == step:
            raise Died
        begin(self, trainer, *rest)

    job = write_job(folder, system, config, given)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(OwnRandomness, "on_train_batch_start", dying)
        train(job_of(job))
    return job


def test_a_training_that_goes_on_is_the_one_that_was_stopped(tmp_path):
    system, config, given = speaker(tmp_path, buffer_clips=4)
    train(job_of(write_job(tmp_path / "whole", system, config, given)))
    job = stopped(system, config, given, tmp_path / "stopped", 12)
    torch.manual_seed(1234)  # another process has drawn other numbers so far
    np.random.seed(1234)
    train(job_of(job))
    same(tmp_path / "whole", tmp_path / "stopped")
    assert [row["step"] for row in rows_of(tmp_path / "whole") if "val_loss" in row] == [4, 9, 14, 19]


@pytest.mark.slow
@pytest.mark.parametrize("system_of", [editor, expert, adaptation, generator])
def test_so_is_each_system_s_in_a_new_process(tmp_path, system_of):
    system, config, given = system_of(tmp_path)
    whole, job = write_job(tmp_path / "whole", system, config, given), stopped(system, config, given, tmp_path / "stopped", 12)
    for process in [start(whole), start(job)]:
        assert process.wait(600) == 0, process.stderr.read()
    same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_a_training_killed_at_any_moment_is_the_one_that_was_not(tmp_path):
    system, config, given = editor(tmp_path)
    config = replace(config, steps=60)
    whole, job = (write_job(tmp_path / name, system, config, given) for name in ("whole", "killed"))
    assert start(whole).wait(600) == 0
    times = [row["time"] for row in read_progress(tmp_path / "whole/work" / PROGRESS)]
    killed, went_on = 0, set()
    while killed < 20:
        before, process = rows_of(tmp_path / "killed"), start(job)
        wait_for_more(tmp_path / "killed", before, process)
        try:
            assert process.wait(random.uniform(0, 0.7 * (times[-1] - times[0]))) == 0, process.stderr.read()
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            state = tmp_path / "killed/work" / STATE
            went_on |= {torch.load(state, weights_only=True)["global_step"]} if state.exists() else set()
    assert killed and went_on
    same(tmp_path / "whole", tmp_path / "killed")
    assert load(tmp_path / "killed/out").config.steps == 60
    assert "steps: 60" in (tmp_path / "killed/out/card.md").read_text()

    # Killed after its last step, before anybody took the result: it finds nothing to do and gives the same.
    summary = tmp_path / "killed/work" / SUMMARY
    told = json.loads(summary.read_text())
    summary.unlink()
    assert start(job).wait(120) == 0
    assert json.loads(summary.read_text()) | {"seconds": 0} == told | {"seconds": 0} and told["val_loss"] > 0


def wait_for_more(folder: Path, rows: list[dict[str, float]], process: "subprocess.Popen[str]") -> None:
    """Until the progress is another than these rows, or the process has ended."""
    until = time.monotonic() + 120
    while rows_of(folder) == rows and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Of half the batch each, with other examples; their weights are the same, and those that are saved."""
    system, config, given = speaker(tmp_path)
    config = replace(config, steps=60, val_every=20, batch_size=2)
    alone, two = (write_job(tmp_path / name, system, config, given) for name in ("alone", "two"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    processes = [start(alone), start(two, *torchrun)]
    for process in processes:
        assert process.wait(600) == 0, process.stderr.read()
    one, other = (load_file(next((tmp_path / name / "out").glob("*.safetensors"))) for name in ("alone", "two"))
    assert {name: weights.shape for name, weights in one.items()} == {name: weights.shape for name, weights in other.items()}
    losses = [row["train_loss"] for row in rows_of(tmp_path / "two") if "train_loss" in row]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])

    # Stopped and resumed, two are what two would have been.
    job = stopped_as_two(system, config, given, tmp_path / "stopped", 20, torchrun)
    process = start(job, *torchrun)
    assert process.wait(600) == 0, process.stderr.read()
    same(tmp_path / "two", tmp_path / "stopped")


def stopped_as_two(system: str, config: Any, given: Given, folder: Path, step: int, torchrun: list[str]) -> Path:
    process = start(write_job(folder, system, replace(config, steps=step), given), *torchrun)
    assert process.wait(600) == 0, process.stderr.read()
    return write_job(folder, system, config, given)


@pytest.fixture
def job(tmp_path) -> Job:
    """20 steps with a state each 5."""
    return job_of(write_job(tmp_path, *speaker(tmp_path, log_every=4)))


def state_of(job: Job) -> dict[str, Any]:
    return torch.load(Path(job.work) / STATE, weights_only=True)


def test_a_loss_that_is_not_finite_ends_the_training_and_the_state_before_stays(job, monkeypatch):
    step = SpeechToMotion.training_step

    def spoiled(self, batch, batch_idx):
        return step(self, batch, batch_idx) * (float("nan") if self.global_step >= 7 else 1)

    monkeypatch.setattr(SpeechToMotion, "training_step", spoiled)
    with pytest.raises(TrainingFailed, match=r"loss is nan at step 7; the last good state is of step 5: lower learning_rate"):
        main(job)
    assert "nan at step 7" in (Path(job.work) / FAILURE).read_text()
    assert state_of(job)["global_step"] == 5 and not Path(job.out).exists()
    assert all(weights.isfinite().all() for weights in state_of(job)["state_dict"].values())

    monkeypatch.setattr(SpeechToMotion, "training_step", step)
    main(job)
    assert not (Path(job.work) / FAILURE).exists() and Path(job.out).exists()


def test_weights_that_are_not_finite_never_become_a_state(job, monkeypatch):
    def spoiled(self, *_):
        if self.global_step == 10:
            self.network.denoiser.get_parameter(next(iter(self.network.denoiser.state_dict()))).data.fill_(float("inf"))

    monkeypatch.setattr(SpeechToMotion, "on_train_batch_end", spoiled)
    with pytest.raises(TrainingFailed, match=r"weights of network.denoiser.* are not finite after step 9; .* of step 5"):
        main(job)
    assert state_of(job)["global_step"] == 5


def test_want_of_memory_is_a_failure_with_a_reason(job, monkeypatch):
    monkeypatch.setattr(SpeechToMotion, "training_step", lambda self, batch, batch_idx: torch.empty(10**15))
    with pytest.raises(TrainingFailed, match=r"out of memory .*10*.* lower batch_size"):
        main(job)
    assert "lower batch_size" in (Path(job.work) / FAILURE).read_text()


def test_another_error_is_what_it_is(job, monkeypatch):
    monkeypatch.setattr(SpeechToMotion, "training_step", lambda self, batch, batch_idx: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match=r"inconsistent tensor size|size mismatch"):
        main(job)
    assert not (Path(job.work) / FAILURE).exists()
