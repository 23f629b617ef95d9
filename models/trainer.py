"""`python -m models.trainer JOB.json`: train one system, whichever it is; resumable, and without Prefect, DVC or MLflow.

A system brings three things: `config.Config`, `training.build(config, given)` (a LightningModule that logs `train_loss` and
`val_loss` and has `save(folder, card)`), and `examples.loaders(config, given)`; see models/given.py.
Progress is a file of JSON lines that anybody may follow.
"""

import importlib
import json
import os
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
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from models.given import Given
from models.streaming import rank_and_ranks


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
        # Steps are numbered from 0; those after the last checkpoint are trained again, so they are logged again.
        kept = [row for row in read_progress(path) if row["step"] < resumed_at]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))

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
    given = Given(Path(job.train), Path(job.val), {name: Path(folder) for name, folder in job.beside.items()})
    module = importlib.import_module(f"{package}.training").build(config, given)
    train_batches, val_batches = importlib.import_module(f"{package}.examples").loaders(config, given)

    last = work / "last.ckpt"
    resumed_at = torch.load(last, weights_only=True, map_location="cpu")["global_step"] if last.exists() else 0
    state = ModelCheckpoint(dirpath=work, filename="last", every_n_train_steps=config.val_every, enable_version_counter=False)
    trainer = lightning.Trainer(
        max_steps=config.steps,
        precision=config.precision,
        gradient_clip_val=config.gradient_clip or None,
        strategy=getattr(module, "strategy", "auto") if rank_and_ranks()[1] > 1 else "auto",
        logger=JsonLines(work / "progress.jsonl", resumed_at),
        log_every_n_steps=config.log_every,
        val_check_interval=config.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[state, TQDMProgressBar(refresh_rate=config.log_every)],
        plugins=[WholeCheckpoints()],
        enable_model_summary=False,
    )
    start = time.perf_counter()
    trainer.fit(module, train_batches, val_batches, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.is_global_zero:
        # From the file, not from the trainer: one that was killed after its last step has nothing left to do, or to tell.
        rows = read_progress(work / "progress.jsonl")
        summary = {name: [row[name] for row in rows if name in row][-1] for name in ("train_loss", "val_loss")} | {
            "steps": trainer.global_step,
            "seconds": round(time.perf_counter() - start, 1),
            "parameters": sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        }
        module.save(Path(job.out), card(job, summary))
        (work / "summary.json").write_text(json.dumps(summary))


def card(job: Job, summary: Mapping[str, float]) -> str:
    """The checkpoint's card.md: what it is, what made it, and how it ended."""
    told = "\n".join(f"- {name}: {value:g}" for name, value in summary.items())
    return (
        f"# {job.system}\n\nTrained on {job.train}, validated on {job.val}.\n\n{told}\n\n"
        f"Made by `python -m models.trainer JOB.json` with torch {torch.__version__}; config.json beside this file holds every\n"
        "number. The faces it generates are those of the people it was trained on: use it only as they would agree to.\n"
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="lightning")  # advice on workers and intervals that the configs settle
    train(Job(**json.loads(Path(sys.argv[1]).read_text())))
