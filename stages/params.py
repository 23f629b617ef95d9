"""`params.yaml`, the one configuration, as typed sections; and the one place that knows where each stage's output stands."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")

T = TypeVar("T")


class WrongParams(ValueError):
    """`params.yaml` has a key that no stage knows, lacks one, or holds a value of another type."""


def section(name: str, type_: type[T]) -> T:
    """Section `name` of `params.yaml` as the dataclass `type_`; an unknown key, a missing one or a wrong type is an error."""
    values = raw_section(name)
    if unknown := sorted(set(values) - {field.name for field in fields(type_)}):  # type: ignore[arg-type]
        known = ", ".join(field.name for field in fields(type_))  # type: ignore[arg-type]
        raise WrongParams(f"params.yaml: {name} has no parameter {', '.join(unknown)}; it has {known}")
    try:
        return TypeAdapter(type_).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise WrongParams(f"params.yaml: {where}: {first['msg']} (got {first['input']!r})") from error


def raw_section(name: str) -> Any:
    """Section `name` of `params.yaml` (`a.b`: section b of a) as plain values."""
    value = yaml.safe_load(PARAMS.read_text())
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise WrongParams(f"params.yaml has no section {name!r}")
        value = value[part]
    return value


def locked_stages() -> dict[str, Any]:
    """DVC's record of what was made from what, by stage, as `dvc.lock` has it; empty where there is none yet."""
    return yaml.safe_load(LOCK.read_text())["stages"] if LOCK.exists() else {}


def parts() -> list[str]:
    """The names of the parts into which each corpus's work is divided."""
    return [str(name) for name in raw_section("parts")]


@dataclass(frozen=True)
class SystemParams:
    """`systems.<name>` in params.yaml, or the same of what systems are trained on top of."""

    corpus: str  # what it learns from: one of `corpora`
    source: Literal["shards", "latents", "heads"]  # the stage whose output it learns from
    preset: str  # a preset of models/<name>/config.py
    overrides: dict[str, Any]  # fields of that preset to change
    below: str = ""  # the trained network that it stands on, under `upon`
    voices: str = ""  # the corpus whose training utterances it hears besides, likewise

    @property
    def beside(self) -> dict[str, Path]:
        """What a training is given besides its shard sets, by name."""
        checkpoint = {self.below: output("checkpoints", self.below)} if self.below else {}
        return checkpoint | ({"voices": output(self.source, self.voices) / "train"} if self.voices else {})


def system_params(system: str) -> SystemParams:
    """What `params.yaml` says of one system."""
    return section(f"systems.{system}", SystemParams)


def trained_params(name: str) -> SystemParams:
    """What `params.yaml` says of one system, or of what systems are trained on top of."""
    below = next((part for part in ("pretrain", "upon") if name in raw_section(part)), "systems")
    return section(f"{below}.{name}", SystemParams)


def output(stage: str, corpus: str) -> Path:
    """Where `stage` leaves its output for `corpus` (or for a part "corpus/0", or for a system), as `dvc.yaml` declares it."""
    folder = {"download": "raw", "align": "aligned"}.get(stage, stage)
    return Path("data") / folder / corpus


def work(stage: str, corpus: str) -> Path:
    """Where `stage` keeps what it needs to go on after a crash: outside DVC's outputs, which DVC deletes before each run."""
    return Path("data/.work") / stage / corpus
