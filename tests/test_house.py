"""The shape of the house: imports point down, the graph names all that a stage is made of, a parameter reruns its own stage."""

import ast
import contextlib
import importlib
from pathlib import Path

import networkx
import pytest
import yaml
from dvc.repo import Repo
from dvc.scm import NoSCM

from stages.engine import code_files
from tests.project import ROOT, copy_project

FLOORS = ["data", "models", "stages", "flows"]
# What may be imported where: the training side must run on a machine that has none of the rest.
ONLY_IN = {
    "prefect": ["flows"],
    "mlflow": ["flows"],
    "dvc": ["flows"],
    "mediapipe": ["stages"],
    "cv2": ["stages"],
    "librosa": ["stages"],
    "pydantic": ["stages"],
    "requests": ["stages"],
    "yt_dlp": ["stages"],
    "ray": ["stages"],
}


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor):
    files = list((ROOT / floor).rglob("*.py"))
    assert files
    for path in files:
        found = imports(path)
        above = set(FLOORS[FLOORS.index(floor) + 1 :])
        assert not found & above, f"{path} imports {found & above}"
        misplaced = {name for name in found if floor not in ONLY_IN.get(name, FLOORS)}
        assert not misplaced, f"{path} imports {misplaced}"
        assert "tests" not in found


def stage_modules(stage: str) -> list[str]:
    """The modules whose code decides what a stage makes."""
    base, _, system = stage.partition("@")
    if base == "publish":
        return []  # the code that logs decides nothing that is an output
    if base in ("train", "pretrain", "upon"):
        return ["models.trainer", *(f"models.{system}.{module}" for module in ("config", "training", "examples"))]
    if base in ("evaluate", "render"):
        kind = importlib.import_module(f"models.{system}").MAKES
        return [f"stages.{base}", f"stages.judges.{kind}", *([f"models.{system}.generate"] if base == "evaluate" else [])]
    return [f"stages.{base}"]


def only_words(path: Path) -> bool:
    """A package's `__init__.py` that holds a docstring or nothing."""
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def test_every_stage_depends_on_the_code_it_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = [stage for stage in Repo(".").index.stages]
    assert len(stages) > 8
    for stage in stages:
        deps = [Path(dep.def_path) for dep in stage.deps]
        for module in stage_modules(stage.name):
            for file in code_files(module):
                relative = file.relative_to(ROOT)
                covered = any(relative == dep or dep in relative.parents for dep in deps)
                assert covered or only_words(file), f"{stage.name} runs {relative}: name it in its deps in dvc.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project in which DVC believes that every stage has run."""
    folder = copy_project(tmp_path_factory.mktemp("finished"))
    with contextlib.chdir(folder):
        repo = Repo.init(no_scm=True, force=True)
        for stage in repo.index.stages:
            for out in stage.outs:
                path = Path(out.fs_path)
                if path.suffix:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(f"{path.name} of {stage.name}")
                else:
                    path.mkdir(parents=True)
                    (path / "content").write_text(stage.name)
            for dep in stage.deps:  # a part of another stage's output
                if not (path := Path(dep.fs_path)).exists():
                    path.mkdir(parents=True)
                    (path / "content").write_text(stage.name)
        repo.commit(force=True)
        assert repo.status() == {}
    return folder


CORPORA = ("sample", "webcam")
SYSTEMS = ("video_editing", "difftalk", "diffspeaker", "geneface")


def of_each(*stages: str) -> set[str]:
    """Those stages of each corpus."""
    return {f"{stage}@{corpus}-0" for stage in stages for corpus in CORPORA}


FROM_REPORT = {"report", *(f"publish@{system}" for system in SYSTEMS)}
FROM_RENDER = FROM_REPORT | {f"render@{system}" for system in SYSTEMS}
FROM_EVALUATE = {system: FROM_REPORT | {f"evaluate@{system}", f"render@{system}"} for system in SYSTEMS}
FROM_TRAIN = {system: FROM_EVALUATE[system] | {f"train@{system}"} for system in SYSTEMS}
FROM_LATENTS = FROM_TRAIN["difftalk"] | {"latents@sample"}
FROM_HEADS = FROM_TRAIN["geneface"] | {"heads@webcam"}
FROM_MOTION = FROM_HEADS | {"upon@motion", "upon@postnet"}
PRETRAINED = {f"pretrain@{name}" for name in ("autoencoder", "syncnet", "head")}
SHARDS = {f"{stage}@{corpus}" for stage in ("shards", "verify") for corpus in CORPORA}
FROM_SHARDS = set.union(FROM_LATENTS, FROM_MOTION, PRETRAINED, SHARDS, *FROM_TRAIN.values())
FROM_LANDMARKS = FROM_SHARDS | of_each("landmarks", "masks", "meshes", "parsing")
FROM_ALIGN = FROM_LANDMARKS | of_each("align", "spectrograms", "speech")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("align.crops.face.smoothing", 9, FROM_ALIGN),
        ("motion.min_frames", 9, FROM_ALIGN),
        ("landmarks.max_gap", 3, FROM_LANDMARKS),
        ("masks.min_width", 40, FROM_SHARDS | of_each("masks")),
        ("spectrograms.n_fft", 1024, FROM_SHARDS | of_each("spectrograms")),
        ("speech.encoder", "none", FROM_SHARDS | of_each("speech")),
        ("shards.clips_per_shard", 2, FROM_SHARDS),
        ("systems.video_editing.overrides", {"steps": 7}, FROM_TRAIN["video_editing"]),
        ("systems.video_editing.preset", "multi_speaker", FROM_TRAIN["video_editing"]),
        ("systems.diffspeaker.preset", "mesh", FROM_TRAIN["diffspeaker"]),
        ("systems.difftalk.overrides", {"mask": "jaw"}, FROM_LATENTS),
        ("pretrain.autoencoder.overrides", {"steps": 700}, FROM_LATENTS | {"pretrain@autoencoder"}),
        ("pretrain.head.overrides", {"steps": 700}, FROM_HEADS | {"pretrain@head"}),
        ("pretrain.syncnet.overrides", {"steps": 700}, FROM_MOTION | {"pretrain@syncnet"}),
        ("upon.postnet.overrides", {"steps": 700}, FROM_HEADS | {"upon@postnet"}),
        ("evaluate.video_editing.steps", 3, FROM_EVALUATE["video_editing"]),
        ("evaluate.diffspeaker.seed", 3, FROM_EVALUATE["diffspeaker"]),
        ("render.seam", 1, FROM_RENDER),
        ("engine.workers", 1, set()),
        ("engine.max_failed", 0.5, set()),
    ],
)
def test_a_parameter_reruns_its_stage_and_what_follows(finished, monkeypatch, key, value, expected):
    monkeypatch.chdir(finished)
    path = finished / "params.yaml"
    original = path.read_text()
    params = yaml.safe_load(original)
    *parents, last = key.split(".")
    section = params
    for parent in parents:
        section = section[parent]
    assert last in section
    section[last] = value
    try:
        path.write_text(yaml.safe_dump(params))
        repo = Repo()
        assert isinstance(repo.scm, NoSCM)
        graph = repo.index.graph  # edges run from a stage to what it needs
        by_name = {stage.addressing: stage for stage in graph}
        stale = {by_name[name] for name in repo.status()}
        reruns = stale | {above for stage in stale for above in networkx.ancestors(graph, stage)}
        assert {stage.addressing for stage in reruns} == expected
    finally:
        path.write_text(original)
