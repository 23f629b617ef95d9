"""A project folder in which diffspeaker is trained and scored, made in a second: a network of random weights, of 478 points."""

import atexit
import json
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data.mesh import POINTS
from data.shardset import Clip, Index, json_bytes, json_object, npy_bytes, write_index, write_shard
from flows.tracking import training_run
from models.checkpoint import write_checkpoint
from stages.params import output
from tests.models.diffspeaker import corpus
from tests.project import ROOT, change_params

SYSTEM = "diffspeaker"
CONFIG = replace(corpus.SMALL, vertices=POINTS, audio_width=256)
SPLITS = {"train": ("anna/0", "ben/0"), "val": ("ben/1",), "test": ("anna/2", "ben/2")}


@cache
def made() -> Path:
    """One of them, and its MLflow store, whose tables take seconds to make."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        trained_project(folder)
    return folder


def copied(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A copy of that one as the current folder and the present store; artifacts logged before stand where they were."""
    shutil.copytree(made(), folder, ignore=shutil.ignore_patterns("mlruns"))
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return folder


def trained_project(folder: Path) -> None:
    """Makes it in the current folder, `folder`, and logs its training to the present MLflow store."""
    for name in ("params.yaml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    sampling = {"sampler": "ddim", "steps": 2, "against": [], "against_clips": 1, "batch_size": 1, "seed": 0}
    change_params(folder, evaluate={SYSTEM: sampling}, render={"mesh_size": 64})
    write_shards("sample")
    lock({"data/shards/sample": "0" * 32 + ".dir"})
    train(0)
    evaluate(lve_mm=3.0)


def train(seed: int) -> str:
    """Another training; its run's id."""
    torch.manual_seed(seed)
    with training_run(
        SYSTEM, Path(f"state{seed}.json"), {"steps": 7, "preset": "tiny", "corpus": "sample"}, "data/shards/sample"
    ) as run_id:
        write_checkpoint(output("checkpoints", SYSTEM), corpus.randomised(CONFIG, seed), CONFIG, f"# training {seed}\n")
    output("training", SYSTEM).mkdir(parents=True, exist_ok=True)
    (output("training", SYSTEM) / "run.json").write_text(json.dumps({"run_id": run_id}))
    return run_id


def evaluate(lve_mm: float) -> None:
    """What the stage leaves, with these scores."""
    clips = {key: {"lve_mm": lve_mm + index, "regions": "mediapipe478-v1"} for index, key in enumerate(SPLITS["test"])}
    own = {"lve": 1e-6, "lve_mm": lve_mm, "opening_correlation": 0.5, "energy_correlation": None, "regions": "mediapipe478-v1"}
    metrics = {
        "own": own,
        "baselines": {"template": {"lve": 2e-6, "lve_mm": 4.0}},
        "clips": clips,
        "count": {"clips": len(clips)},
    }
    output("evaluation", SYSTEM).mkdir(parents=True, exist_ok=True)
    (output("evaluation", SYSTEM) / "metrics.json").write_text(json.dumps(metrics))


def write_shards(name: str, splits: dict[str, tuple[str, ...]] = SPLITS) -> None:
    for split, keys in splits.items():
        folder = output("shards", name) / split
        folder.mkdir(parents=True, exist_ok=True)
        write_index(folder, Index.of([write_shard(folder / "00000.tar", map(clip, keys))], {}))


def clip(key: str) -> Clip:
    """Of 10 frames."""
    made = corpus.clip(key, 10, int(key[-1]))
    points = np.random.default_rng(0).normal(scale=0.05, size=(POINTS, 3)).astype(np.float32)
    members = {name: made.members[name] for name in ("json", "wav")} | {"template.npy": npy_bytes(points)}
    about = json_object(made.members["json"]) | {"topology": "mediapipe"}
    return Clip(key, members | {"json": json_bytes(about)})


def lock(outs: dict[str, str]) -> None:
    """A dvc.lock that holds these outputs and their hashes."""
    stages = {f"stage{index}": {"outs": [{"path": path, "md5": md5}]} for index, (path, md5) in enumerate(outs.items())}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
