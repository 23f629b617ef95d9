"""A trained system as an MLflow model: sound in, a film out, by the same stages as `talkingface speak`, `render` and `edit`.

A saved model holds what these read of a project folder: `params.yaml`, the checkpoint, and of the clip that lends its face the
few members that are taken. It needs this repository installed, at the commit that its version is tagged with or a later one, and
for a scanned mesh (VOCASET, BIWI), whose tables their licences let nobody pass on, `data/raw/` of the folder that one serves in.

    export MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT=3600  # seconds that a film may take; MLflow's own 60 are too few for long sounds
    mlflow models serve --env-manager local --host 127.0.0.1 --port 5001 -m models:/talkingface-diffspeaker@champion
    curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \
        -d "{\"dataframe_records\": [{\"audio\": \"$(base64 -w0 hello.wav)\"}]}"    # predictions[0].film: an .mp4 in base64
"""

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from data.media import audio, video
from data.shardset import Clip, Index, ShardSet, json_object, write_index, write_shard
from stages.engine import die_with
from stages.engine.workers import SPAWN
from stages.judges import makes
from stages.params import PARAMS, output, system_params

MODEL_CODE = Path(__file__).with_name("served.py")
REQUIREMENTS = "requirements.lock"
FACE = ("json", "template.npy", "pose.npy", "camera.json")  # members of a clip that a face is lent by
EXAMPLE_CRF = 23
SPLITS = ("train", "val", "test")


def save(system: str, path: Path, described: Model) -> None:
    """The present checkpoint of `system` as an MLflow model in the new folder `path`; `described` becomes its MLmodel."""
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch, "shards")
        lend_faces(system_params(system).corpus, shards)
        mlflow.pyfunc.save_model(
            str(path),
            mlflow_model=described,
            python_model=str(MODEL_CODE),
            artifacts={"params": str(PARAMS), "checkpoint": str(output("checkpoints", system)), "shards": str(shards)},
            model_config={"system": system},
            signature=signature(system),
            input_example=example(system),
            pip_requirements=REQUIREMENTS,
        )


def lend_faces(corpus: str, shards: Path) -> None:
    """Of each split the first clip, with the members that a face is lent by."""
    for split in SPLITS:
        folder = shards / corpus / split
        folder.mkdir(parents=True)
        clip = next(ShardSet(output("shards", corpus) / split).clips(), None)
        lent = [Clip(clip.key, {name: clip.members[name] for name in FACE if name in clip.members})] if clip else []
        write_index(folder, Index.of([write_shard(folder / "00000.tar", lent)] if lent else [], {}))


def signature(system: str) -> ModelSignature:
    """A table of sounds (and the videos to paint over, where frames are painted) to a table of films."""
    columns = ["audio", "video"] if makes(system) == "frames" else ["audio"]
    given = Schema([ColSpec(DataType.binary, name) for name in columns])
    return ModelSignature(given, Schema([ColSpec(DataType.binary, "film")]), ParamSchema([ParamSpec("seed", DataType.long, 0)]))


def example(system: str) -> pd.DataFrame:
    """One row: a second of the sound, and where one is needed of the video, of the first held-out clip."""
    clip = next(ShardSet(output("shards", system_params(system).corpus) / "test").clips())
    samples, rate = audio.wav_samples(clip.members["wav"])
    row = {"audio": audio.wav_bytes(samples[:rate], rate)}
    if makes(system) == "frames":
        fps = json_object(clip.members["json"])["fps"]
        row["video"] = video.encode_frames(islice(video.each_frame(clip.members["mp4"]), fps), fps, EXAMPLE_CRF)
    return pd.DataFrame([row])


class Talker(PythonModel):
    """Makes each film in a process of its own, whose current folder is the model's project: the stages read theirs."""

    def load_context(self, context: PythonModelContext) -> None:
        self._system = context.model_config["system"]
        self._folder = tempfile.TemporaryDirectory(prefix="talkingface-")
        project, kept = Path(self._folder.name), {name: Path(path).resolve() for name, path in context.artifacts.items()}
        (project / "data/checkpoints").mkdir(parents=True)
        (project / PARAMS).symlink_to(kept["params"])
        (project / "data/shards").symlink_to(kept["shards"])
        (project / "data/checkpoints" / self._system).symlink_to(kept["checkpoint"])
        (project / "data/raw").symlink_to(Path("data/raw").resolve())  # may be nowhere: only scanned meshes need it
        self._worker = self._begin()
        # A worker dies with the thread that started it: so here, where the model is loaded, and not where a request is answered.
        self._worker.submit(os.getpid).result()

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params=None):
        """The films (column `film`, bytes of an .mp4) of a table, or a list of rows.

        audio, video: each a file's bytes or its path; over HTTP its bytes in base64. params: seed. Raises MlflowException,
        naming the row.
        """
        rows = model_input.to_dict("records") if isinstance(model_input, pd.DataFrame) else list(model_input)
        seed = (params or {}).get("seed", 0)
        return pd.DataFrame({"film": [self._film(number, row, seed) for number, row in enumerate(rows)]})

    def _film(self, number: int, row: Mapping[Any, Any], seed: int) -> bytes:
        given = {name: os.path.abspath(value) if isinstance(value, str | Path) else value for name, value in row.items()}
        try:
            return self._worker.submit(film, self._system, given, seed).result()
        except BrokenProcessPool as error:
            self._worker = self._begin()
            raise MlflowException(f"row {number}: its process was killed, by want of memory perhaps", INTERNAL_ERROR) from error
        except CannotServe as error:
            raise MlflowException(f"row {number}: {error}", INVALID_PARAMETER_VALUE) from error

    def _begin(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, SPAWN, _enter, (os.getpid(), self._folder.name))


class CannotServe(Exception):
    """A film that could not be made, with the reason."""


def film(system: str, given: dict[str, Any], seed: int) -> bytes:
    """The .mp4 that `system`, of the current folder's project, makes of `audio` (and `video`): a path, or a file's bytes each."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "film.mp4")
        try:
            _make(system, _file(given, "audio", scratch), given, out, seed)
        except CannotServe:
            raise
        except Exception as error:  # of any library: those of PyAV do not travel between processes
            raise CannotServe(f"{type(error).__name__}: {error}") from None
        return out.read_bytes()


def _make(system: str, sound: Path, given: dict[str, Any], out: Path, seed: int) -> None:
    """The stages are imported here, as each takes seconds and other libraries."""
    made = makes(system)
    if made == "meshes":
        from stages.speak import speak

        speak(system, sound, out, None, None, seed, None)
    elif made == "portraits":
        from stages.talk import talk

        talk(sound, out, "loop", None, "adapted", True, seed)
    else:
        from stages.edit import edit

        edit(_file(given, "video", str(out.parent)), sound, out, "largest", "loop", seed, system)


def _file(given: dict[str, Any], name: str, scratch: str) -> Path:
    value = given.get(name)
    if isinstance(value, str):
        return Path(value)
    if not isinstance(value, bytes | bytearray) or not value:
        raise CannotServe(f"{name} is {value!r}: give a file's bytes, or its path")
    path = Path(scratch, name)
    path.write_bytes(value)
    return path


def _enter(parent: int, folder: str) -> None:
    die_with(parent)
    os.chdir(folder)
