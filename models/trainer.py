"""`python -m models.trainer JOB.json`: train one system, whichever it is; resumable, and without Prefect, DVC or MLflow.

A system brings three things: `config.Config`, `training.build(config, given)` (a LightningModule that logs `train_loss` and
`val_loss` and has `save(folder, card)`), and `examples.loaders(config, given)`; see models/given.py.
Progress is a file of JSON lines that anybody may follow; why a training failed is said in FAILURE beside it.

A training that goes on is the one that was stopped: the examples of a step follow from its number (models/streaming.py), and so
do the random numbers drawn in it, here. All else is in the resume state, of the end of a validation.

It runs in one process, or in as many as torchrun starts (`python -m torch.distributed.run --standalone --nproc-per-node=N -m
models.trainer JOB.json`), each of which takes batches of its own.
"""

import ctypes
import importlib
import json
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from data.files import atomic_file
from models.given import Given
from models.noise import seed_of
from models.streaming import rank_and_ranks

STATE, PROGRESS, SUMMARY, FAILURE = "last.ckpt", "progress.jsonl", "summary.json", "failure.txt"  # in the folder of work


class TrainingFailed(RuntimeError):
    """A training that cannot go on as it is configured: why, and what to change."""


@dataclass(frozen=True)
class Job:
    """What to train, on what, and where to."""

    system: str  # folder of models/
    config: dict[str, Any]  # every field of the system's Config
    train: str  # shard set
    val: str  # shard set
    beside: dict[str, str]  # what else it is given, by name
    work: str  # folder of progress and resume state
    out: str  # folder of the finished checkpoint


class JsonLines(Logger):
    """Every logged step as a line `{"step", "time", name: value}` of one file."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        super().__init__()
        self.path = path
        if rank_and_ranks()[0]:
            return
        # Steps are numbered from 0; those after the last checkpoint are trained again, so they are logged again.
        kept = [row for row in read_progress(path) if row["step"] < resumed_at]
        with atomic_file(path) as file:
            file.write("".join(json.dumps(row) + "\n" for row in kept).encode())

    @property
    def name(self) -> str:
        return "progress"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The job holds them already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time()} | values) + "\n")


class WholeCheckpoints(TorchCheckpointIO):
    """Resume state that appears whole or not at all: a kill while it is written leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        partial = f"{path}.part"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)


class OwnRandomness(Callback):
    """Each step of each rank draws from torch's, numpy's and Python's generators what it would have drawn in any process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        lightning.seed_everything(seed_of(self.seed, f"{trainer.global_step} {trainer.global_rank}") % 2**32, verbose=False)


class Finite(Callback):
    """Ends a training whose loss or weights are not finite, before they are in a resume state.

    The losses are looked at every `every` steps: to look is to wait for the device. Raises TrainingFailed.
    """

    def __init__(self, every: int, good_step: int) -> None:
        self.every, self.good_step = every, good_step
        self.losses: list[torch.Tensor] = []  # of the last steps

    def on_train_batch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach())
        if trainer.global_step % self.every == 0:
            self._look(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._look(trainer)
        self._look_at_weights(trainer, module)
        self.good_step = trainer.global_step  # Lightning has ModelCheckpoint called last

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._look(trainer)
        self._look_at_weights(trainer, module)

    def _look(self, trainer: lightning.Trainer) -> None:
        first = trainer.global_step - len(self.losses)
        losses, self.losses = torch.stack(self.losses).tolist() if self.losses else [], []
        for step, loss in enumerate(losses, first):
            if not math.isfinite(loss):
                raise self._failed(f"loss is {loss} at step {step}")

    def _look_at_weights(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        for name, weights in module.named_parameters():
            if not weights.isfinite().all():
                raise self._failed(f"weights of {name} are not finite after step {trainer.global_step - 1}")

    def _failed(self, what: str) -> TrainingFailed:
        good = f"the last good state is of step {self.good_step}" if self.good_step else "there is no good state"
        return TrainingFailed(
            f"{what}; {good}: lower learning_rate or set gradient_clip in the overrides, or precision to 32-true"
        )


def read_progress(path: Path) -> list[dict[str, float]]:
    """The rows of a progress file; one that is still being written does not count."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def train(job: Job) -> None:
    """Train to the config's last step, from the newest resume state if there is one; leave the checkpoint at `job.out`."""
    package = f"models.{job.system}"
    config = importlib.import_module(f"{package}.config").Config(**job.config)
    work = Path(job.work)
    work.mkdir(parents=True, exist_ok=True)
    lightning.seed_everything(config.seed, verbose=False)
    last = work / STATE
    step = torch.load(last, weights_only=True, map_location="cpu", mmap=True)["global_step"] if last.exists() else 0
    given = Given(Path(job.train), Path(job.val), {name: Path(folder) for name, folder in job.beside.items()}, step)
    module = importlib.import_module(f"{package}.training").build(config, given)
    train_batches, val_batches = importlib.import_module(f"{package}.examples").loaders(config, given)

    state = ModelCheckpoint(work, last.stem, every_n_epochs=1, save_on_train_epoch_end=False, enable_version_counter=False)
    local_ranks, ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), rank_and_ranks()[1]
    trainer = lightning.Trainer(
        devices=local_ranks,
        num_nodes=ranks // local_ranks,
        max_steps=config.steps,
        precision=config.precision,
        gradient_clip_val=config.gradient_clip or None,
        strategy=getattr(module, "strategy", "ddp") if ranks > 1 else "auto",
        logger=JsonLines(work / PROGRESS, step),
        log_every_n_steps=config.log_every,
        val_check_interval=config.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[
            OwnRandomness(config.seed),
            Finite(config.log_every, step),
            state,
            TQDMProgressBar(refresh_rate=config.log_every),
        ],
        plugins=[WholeCheckpoints()],
        enable_model_summary=False,
    )
    start = time.perf_counter()
    trainer.fit(module, train_batches, val_batches, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.is_global_zero:
        # From the file, not from the trainer: one that was killed after its last step has nothing left to do, or to tell.
        rows = read_progress(work / PROGRESS)
        summary = {name: [row[name] for row in rows if name in row][-1] for name in ("train_loss", "val_loss")} | {
            "steps": trainer.global_step,
            "seconds": round(time.perf_counter() - start, 1),
            "parameters": sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        }
        module.save(Path(job.out), card(job, summary))
        (work / SUMMARY).write_text(json.dumps(summary))


def card(job: Job, summary: Mapping[str, float]) -> str:
    """The checkpoint's card.md: what it is, what made it, and how it ended."""
    told = "\n".join(f"- {name}: {value:g}" for name, value in summary.items())
    return (
        f"# {job.system}\n\nTrained on {job.train}, validated on {job.val}.\n\n{told}\n\n"
        f"Made by `python -m models.trainer JOB.json` with torch {torch.__version__}; config.json beside this file holds every\n"
        "number. The faces it generates are those of the people it was trained on: use it only as they would agree to.\n"
    )


def main(job: Job) -> None:
    """Train; of a failure that the configuration can change, leave the reason in FAILURE too."""
    failure = Path(job.work) / FAILURE
    if not rank_and_ranks()[0]:
        failure.unlink(missing_ok=True)
    try:
        train(job)
    except TrainingFailed as error:
        failure.write_text(str(error))
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300]
        reason = f"out of memory ({said}): lower batch_size or buffer_clips in the overrides, or set precision to bf16-mixed"
        failure.write_text(reason)
        raise TrainingFailed(reason) from error


def out_of_memory(error: Exception) -> bool:
    """Whether a device or this machine had no memory left; of the latter torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: can't allocate" in str(error)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="lightning")  # advice on workers and intervals that the configs settle
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        # torchrun puts its processes into sessions of their own: killed, it would leave them at work.
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    main(Job(**json.loads(Path(sys.argv[1]).read_text())))
