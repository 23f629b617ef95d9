"""The whole way through the house, every stage real: raw media to an MLflow run, on four seconds of made media."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import mlflow
import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from data.shardset import ShardSet, npy_array
from models.trainer import read_progress
from tests.project import change_params, environment, run, tiny_project

TINY = {"channels": [32, 32], "attention_levels": [], "steps": 12, "val_every": 4, "log_every": 1, "batch_size": 2}
SYSTEMS = ("video_editing", "diffspeaker")  # of the fast project: a painted video and a mesh; the slow one has all
TINY_AUTOENCODER = {"channels": [32], "codes": 64, "codebook_start": 4, "steps": 12, "val_every": 4, "log_every": 1}
TINY_LATENT = {"channels": [32, 32], "steps": 12, "val_every": 4, "log_every": 1, "batch_size": 2}
TINY_MESH = {"channels": 32, "feedforward": 32, "steps": 12, "val_every": 4, "log_every": 1, "batch_size": 2}
FEW = {"steps": 12, "val_every": 4, "log_every": 1}
TINY_SYNC = FEW | {"channels": [8, 8, 8], "mouth_channels": 8, "batch_size": 8, "pairs_per_clip": 8}
TINY_MOTION = FEW | {"channels": 8, "flow_channels": 8, "sync_clips": 8, "batch_size": 2}
TINY_POSTNET = FEW | {"channels": [8, 8], "sync_clips": 8, "batch_size": 2, "person_clips": 2}
TINY_HEAD = FEW | {"levels": 2, "hidden": 8, "cells": 16, "rays": 256, "ray_samples": 4}
TINY_TORSO = FEW | {"levels": 2, "pixels": 256}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project of two systems after its first `dvc repro`."""
    folder = small(tmp_path_factory.mktemp("project"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params |= {"corpora": ["sample"], "pretrain": {}, "upon": {}, "latents": [], "heads": []}
    for part in ("systems", "evaluate"):
        params[part] = {name: params[part][name] for name in SYSTEMS}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "dvc", "repro")
    return folder


@pytest.fixture(scope="module")
def whole_project(tmp_path_factory) -> Path:
    """A project all of which is made: as `dvc repro` makes it, with stages side by side."""
    folder = small(tmp_path_factory.mktemp("whole"))
    run(folder, sys.executable, "-m", "flows.cli", "reproduce")
    return folder


def small(folder: Path) -> Path:
    """A project on made media, its trainings of a few steps."""
    tiny_project(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    tiny = {
        "pretrain": {"autoencoder": TINY_AUTOENCODER, "syncnet": TINY_SYNC, "head": TINY_HEAD},
        "upon": {"motion": TINY_MOTION, "postnet": TINY_POSTNET},
        "systems": {"video_editing": TINY, "difftalk": TINY_LATENT, "diffspeaker": TINY_MESH, "geneface": TINY_TORSO},
    }
    for part, trained in tiny.items():
        for name, overrides in trained.items():
            params[part][name]["overrides"] = overrides
    other = {
        "video_editing": {"sampler": "ddpm", "steps": 3},
        "difftalk": {"sampler": "ddim progressive", "steps": 1},
        "diffspeaker": {"sampler": "release", "steps": 3},
        "geneface": {"sampler": "filmed", "steps": 4},
    }
    for name, against in other.items():
        own = "adapted" if name == "geneface" else "ddim"
        params["evaluate"][name] |= {"sampler": own, "steps": 2, "against": [against], "batch_size": 2}
    params["render"]["mesh_size"] = 128
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def ran(folder: Path) -> set[str]:
    """The stages that a further `dvc repro` runs."""
    return set(re.findall(r"Running stage '([^']+)'", run(folder, "dvc", "repro").stdout))


def client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def test_only_the_named_member_of_the_package_is_kept(project):
    assert [path.name for path in (project / "data/raw/sample").iterdir()] == ["talker.mp4"]


def test_every_clip_is_accounted_for(project):
    sets = {split: ShardSet(project / "data/shards/sample" / split) for split in ("train", "val", "test")}
    assert {split: len(shards.keys) for split, shards in sets.items()} == {"train": 2, "val": 1, "test": 1}
    for shards in sets.values():
        index = shards.index
        assert index.clips_in == index.clips_out + index.filtered + index.failed


def test_the_generated_face_differs_inside_the_mask_alone(project):
    (clip,) = ShardSet(project / "data/shards/sample/test").clips()
    (generated,) = ShardSet(project / "data/generated/video_editing").clips()
    from data.media.video import decode_frames
    from stages.metrics.image import box_mask

    real, fake = decode_frames(clip.members["mp4"]), npy_array(generated.members["generated.npy"])
    inside = box_mask(npy_array(clip.members["mask.npy"]), 128, 128)
    assert np.array_equal(real[~inside], fake[~inside])
    assert np.array_equal(real[0], fake[0])
    assert (real[1:][inside[1:]] != fake[1:][inside[1:]]).mean() > 0.5


def test_the_video_plays_with_the_driving_sound(project):
    path = project / "data/renders/video_editing/astronaut_3.mp4"
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    with av.open(str(path)) as film:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    assert len(frames) == 25
    assert frames[0].shape == (360, 640, 3)  # real beside generated, at the source's size
    assert np.abs(sound).max() > 0.05
    left, right = np.split(frames[12].astype(int), 2, axis=1)
    assert np.abs(left - right)[:60].mean() < 2  # above the face both are the source
    assert np.abs(left - right)[110:190, 110:210].mean() > 1
    assert Image.open(path.with_suffix(".png")).size == (8 * 256, 2 * 256)


def test_a_mesh_moves_beside_the_real_one(project):
    (clip,) = ShardSet(project / "data/shards/sample/test").clips()
    (generated,) = ShardSet(project / "data/generated/diffspeaker").clips()
    real, fake = npy_array(clip.members["vertices.npy"]), npy_array(generated.members["generated.npy"])
    assert fake.shape == real.shape == (25, 478, 3)
    metrics = json.loads((project / "data/evaluation/diffspeaker/metrics.json").read_text())
    assert metrics["own"]["lve_mm"] == pytest.approx(metrics["clips"][clip.key]["lve_mm"])
    assert metrics["own"]["regions"] == "mediapipe478-v1"
    assert metrics["own"]["diversity"] > 0
    assert set(metrics["baselines"]) == {"template", "mean_motion", "linear_regression"}
    with av.open(str(project / "data/renders/diffspeaker/astronaut_3.mp4")) as film:
        assert film.streams.video[0].width == 3 * 128
        assert film.streams.audio


@pytest.mark.slow
def test_all_four_systems_side_by_side(whole_project):
    project = whole_project
    assert ran(project) == set(), "what talkingface reproduce made is what dvc repro would have"
    for system in ("video_editing", "difftalk", "diffspeaker", "geneface"):
        assert list((project / "data/renders" / system).glob("*.mp4"))
        assert (project / "data/published" / system).exists()
    (generated,) = ShardSet(project / "data/generated/geneface").clips()
    assert npy_array(generated.members["generated.npy"]).shape == (25, 128, 128, 3)
    metrics = json.loads((project / "data/evaluation/geneface/metrics.json").read_text())
    assert metrics["own"]["psnr_frame"] > 5
    assert set(metrics["baselines"]) == {"mean_frame", "still_frame"}
    below = project / "data/checkpoints/geneface"
    for name in ("head", "postnet", "postnet/motion", "postnet/motion/syncnet"):
        assert (below / name / "model.safetensors").exists(), "a checkpoint holds all that it stands on"
    with av.open(str(project / "data/renders/geneface/astronaut_3.mp4")) as film:
        assert film.streams.video[0].width == 2 * 128
        assert film.streams.audio


def test_dvc_shows_metrics_plots_and_differences(project):
    shown = json.loads(run(project, "dvc", "metrics", "show", "--json").stdout)
    scores = shown[""]["data"]["data/evaluation/video_editing/metrics.json"]["data"]
    assert scores["own"]["psnr_mask"] > 5
    assert scores["baselines"]["copy_identity_frame"]["psnr_mask"] > 10
    plots = json.loads(run(project, "dvc", "plots", "show", "--json").stdout)
    assert {f"{what} of {system}" for what in ("loss", "samplers") for system in SYSTEMS} <= set(plots["data"])
    assert not [error for error in plots.get("errors", []) if any(system in str(error) for system in SYSTEMS)]
    assert "train@video_editing" in run(project, "dvc", "dag", "--md").stdout


def test_the_report_shows_every_number_and_file_it_names(project):
    site = project / "data/report/site"
    page = (site / "index.html").read_text()
    names = re.findall(r'src="([^"]+)"', page)
    assert any(name.endswith(".mp4") for name in names)
    for name in names:
        assert (site / name).stat().st_size > 0
    metrics = json.loads((project / "data/evaluation/video_editing/metrics.json").read_text())
    assert f"{metrics['own']['psnr_mask']:.4g}" in page
    assert f"{metrics['baselines']['copy_identity_frame']['ssim_frame']:.4g}" in page
    metrics = json.loads((project / "data/evaluation/diffspeaker/metrics.json").read_text())
    assert f"{metrics['own']['lve']:.4g}" in page
    assert metrics["own"]["regions"] in page


def test_mlflow_remembers_the_run_its_data_and_its_video(project):
    mesh = client(project).get_run(json.loads((project / "data/training/diffspeaker/run.json").read_text())["run_id"])
    assert mesh.data.metrics["test/diffspeaker/lve_mm"] > 0
    run_id = json.loads((project / "data/training/video_editing/run.json").read_text())["run_id"]
    remembered = client(project).get_run(run_id)
    assert remembered.info.status == "FINISHED"
    assert remembered.data.params["steps"] == "12"
    assert remembered.data.params["preset"] == "sample"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True).stdout.strip()
    assert remembered.data.tags["git.commit"] == head
    lock = (project / "dvc.lock").read_text()
    seen = [dataset.dataset for dataset in remembered.inputs.dataset_inputs]
    assert {dataset.name for dataset in seen} == {"data/shards/sample", "data/shards/sample/test"}
    assert all(dataset.digest in lock for dataset in seen)
    steps = [point.step for point in client(project).get_metric_history(run_id, "train_loss")]
    assert steps == sorted(set(steps))
    assert len(steps) >= 11
    assert remembered.data.metrics["test/video_editing/psnr_mask"] > 5

    def artifacts(folder: str) -> set[str]:
        return {Path(item.path).name for item in client(project).list_artifacts(run_id, folder)}

    assert {"model.safetensors", "config.json", "card.md"} <= artifacts("checkpoint")
    assert "astronaut_3.mp4" in artifacts("renders")


def test_a_second_repro_does_nothing_and_where_finds_everything(project):
    assert ran(project) == set()
    told = run(project, sys.executable, "-m", "flows.cli", "where").stdout
    for kind in ("report", "video", "checkpoint", "MLflow run"):
        assert kind in told
    for path in re.findall(r"data/\S+", told):
        assert (project / path).exists()


@pytest.mark.slow
def test_the_trained_face_says_a_sound_of_one_s_own(project):
    speak = (sys.executable, "-m", "flows.cli", "speak", "data/raw/sample/talker.mp4")
    assert "synthetic" in run(project, *speak, "said.mp4").stdout
    with av.open(str(project / "said.mp4")) as film:
        assert film.streams.video[0].frames == 100  # of four seconds
        assert film.streams.audio
    run(project, *speak, "said.npy", "--like", "astronaut/0")
    assert np.load(project / "said.npy").shape == (100, 478, 3)
    for words, message in (
        (("other.npy", "--like", "nobody/0"), "no clip nobody/0"),
        (("other.npy", "--system", "video_editing"), "does not move a mesh"),
    ):
        refused = run(project, *speak, *words, check=False)
        assert refused.returncode == 1
        assert message in refused.stdout
    assert not list(project.glob("other*"))


def test_a_changed_number_reruns_its_stage_and_what_follows(project):
    change_params(project, render={"sheet_columns": 4})
    each = {f"{stage}@{system}" for stage in ("render", "publish") for system in SYSTEMS}
    assert ran(project) == each | {"report"}


def test_training_killed_at_any_moment_resumes_its_own_run(project):
    video_editing = {
        "corpus": "sample",
        "source": "shards",
        "preset": "sample",
        "overrides": TINY | {"steps": 40, "val_every": 5},
    }
    change_params(project, systems={"video_editing": video_editing})
    command = [sys.executable, "-m", "flows.train", "video_editing"]
    first = subprocess.Popen(command, cwd=project, env=environment(project), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = project / "data/.work/train/video_editing"
    until = time.monotonic() + 240
    while (
        not (checkpoints := list(work.glob("*/last.ckpt")))
        or read_progress(checkpoints[0].parent / "progress.jsonl")[-1]["step"] < 12
    ):
        assert first.poll() is None, "the training ended too early"
        assert time.monotonic() < until
        time.sleep(0.05)
    children = psutil.Process(first.pid).children(recursive=True)
    assert children
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "the trainer outlived its flow"
    folder = checkpoints[0].parent
    training = json.loads((folder / "training.json").read_text())["training"]
    experiments = [client(project).get_experiment_by_name("video_editing").experiment_id]
    (begun,) = client(project).search_runs(experiments, f"tags.training = '{training}'")
    run_id = begun.info.run_id

    # Shorter now would be another training; the same again goes on where it was.
    done = run(project, *command)
    assert json.loads((project / "data/training/video_editing/run.json").read_text())["run_id"] == run_id, done.stderr
    steps = [point.step for point in client(project).get_metric_history(run_id, "train_loss")]
    assert max(steps) == 39
    assert steps == list(range(min(steps), 40)), "each step once: what was logged before the kill is not logged again"
    assert (folder / "done").exists(), "it goes once DVC has what was made, which is when another begins"
