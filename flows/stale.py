"""What DVC finds stale, and why: its own status and graph, read once. Costs what `dvc status` costs, so no Prefect in here."""

import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.rwlock import RWLOCK_FILE, RWLockFileCorruptedError
from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

from data.files import atomic_file
from stages.params import LOCK, locked_stages

LAST_WHOLE_LOCK = Path("data/.work/dvc.lock")  # empty: there was none
SECONDS = Path("data/.work/seconds")  # a file for each stage: runs side by side do not write the same
LOCK_POLL_S = 1.0
REASONS = 2  # of a stage's that are told; `dvc status` has all


class WrongMeta(ValueError):
    """A stage's `meta` in dvc.yaml has a key that means nothing here, or a wrong value."""


@dataclass(frozen=True)
class Meta:
    """What a stage says of itself under `meta` in dvc.yaml."""

    cpu: int = 1  # slots of --jobs
    gpu: int = 0
    memory_gb: int = 0
    network: bool = False  # may fail for reasons that pass: tried again
    seconds: int = 5  # that it may take, as long as it never ran here

    def needs(self) -> dict[str, int]:
        """Slots it takes, by kind."""
        return {"cpu": self.cpu, "gpu": self.gpu, "memory_gb": self.memory_gb}


@dataclass(frozen=True)
class Stage:
    """A stage that has to run, or lies downstream of one that has to."""

    name: str
    why: str
    upstream: frozenset[str]  # those that have to end before; all in the plan
    meta: Meta
    way: float  # seconds of the longest way from its start to the end of the graph: who has the longest is started first


@dataclass(frozen=True)
class Plan:
    """What has to run, and what `order_lock` has to know."""

    stages: list[Stage]  # in the order in which `dvc repro` would run them
    order: list[str]  # all stages, likewise
    locked: frozenset[str]  # the stages in dvc.lock
    shared: bool = False  # DVC has a default remote: what is there is taken instead of made, and what is made goes there


def plan(tell: Callable[[str], None], targets: Collection[str] = ()) -> Plan:
    """What is stale in the DVC repository of this folder. What a kill tore of DVC's own files is first mended.

    targets: stages by DVC's names, or all of a name (`align` for `align@sample-0` and the others), of which, and of what they
    need, it is asked; none: all of them. Waits while another DVC is writing what status has to read. Raises WrongMeta, or
    DvcException for what `dvc status` refuses and for a target that there is not.
    """
    told = False
    while True:
        try:
            return _plan(targets)
        except LockError as error:
            if not told:
                tell(f"waits for another DVC at work here: {error}")
            told = True
            time.sleep(LOCK_POLL_S)
        except RWLockFileCorruptedError:
            tell("DVC's list of the files in use was torn by a kill: it is begun anew")
            _begin_rwlock_anew()
        except DvcException as error:
            if _whole(LOCK):
                raise
            if not LAST_WHOLE_LOCK.exists():
                raise DvcException(
                    "dvc.lock is torn: bring it back (`git checkout dvc.lock`), or remove it: what is in DVC's run-cache is not "
                    "made again"
                ) from error
            tell("dvc.lock was torn by a kill: it is put back as it was before that run")
            with Repo(_wait_for_lock=True).lock:
                if content := LAST_WHOLE_LOCK.read_bytes():
                    _write(LOCK, content)
                else:
                    LOCK.unlink()


def _begin_rwlock_anew() -> None:
    with Repo(_wait_for_lock=True) as repo, repo.lock:  # nobody else writes it
        path = Path(repo.tmp_dir, RWLOCK_FILE)
        try:
            json.loads(path.read_text())
        except FileNotFoundError:
            pass
        except json.JSONDecodeError:
            path.unlink()


def _plan(targets: Collection[str]) -> Plan:
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
        if unknown := set(targets).difference(*map(_names, repo.index.stages)):
            raise DvcException(f"dvc.yaml has no stage {', '.join(sorted(unknown))}")
        status = repo.status()
        if not status:
            return Plan([], [], frozenset())
        import networkx  # takes 0.2 s, which a pass that finds nothing does without

        LAST_WHOLE_LOCK.parent.mkdir(parents=True, exist_ok=True)
        _write(LAST_WHOLE_LOCK, LOCK.read_bytes() if LOCK.exists() else b"")
        graph = get_active_graph(repo.index.graph)  # an edge goes from a stage to what it needs
        order = plan_repro(graph, [stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"])
        graph = graph.subgraph(order)
        planned = {stage for stage in order if stage.addressing in status}
        for stage in list(planned):
            planned |= networkx.ancestors(graph, stage)
        if targets:
            asked = {stage for stage in order if not _names(stage).isdisjoint(targets)}
            planned &= asked.union(*(networkx.descendants(graph, stage) for stage in asked))
        meta = {stage: _meta(stage) for stage in order}
        way: dict[Any, float] = {}
        for stage in reversed(order):
            after = max((way[after] for after in graph.predecessors(stage)), default=0.0)
            way[stage] = _took(stage.addressing, meta[stage].seconds) + after
        stages = []
        for stage in order:
            if stage in planned:
                upstream = [before for before in graph.successors(stage) if before in planned]
                reasons = list(_reasons(status.get(stage.addressing, [])))
                more = [f"and {len(reasons) - REASONS} more"] if len(reasons) > REASONS else []
                why = "; ".join(reasons[:REASONS] + more) or "follows " + ", ".join(before.addressing for before in upstream)
                names = frozenset(before.addressing for before in upstream)
                stages.append(Stage(stage.addressing, why, names, meta[stage], way[stage]))
        shared = "remote" in repo.config["core"]
        return Plan(stages, [stage.addressing for stage in order], frozenset(locked_stages()), shared)


def _names(stage: Any) -> set[str]:
    """Those that it can be asked for by."""
    return {stage.addressing, stage.addressing.partition("@")[0]}


def _meta(stage: Any) -> Meta:
    values = getattr(stage, "meta", None) or {}
    known = {"cpu": 1, "gpu": 0, "memory_gb": 0, "network": None, "seconds": 0}  # each with the least that it may be
    for key, value in values.items():
        where = f"dvc.yaml: {stage.addressing}: meta.{key}"
        if key not in known:
            raise WrongMeta(f"{where} means nothing; known are {', '.join(known)}")
        least = known[key]
        if least is None and not isinstance(value, bool):
            raise WrongMeta(f"{where} is true or false (got {value!r})")
        if least is not None and (type(value) is not int or value < least):
            raise WrongMeta(f"{where} is a whole number, {least} or more (got {value!r})")
    return Meta(**values)


def _reasons(entries: list[Any]) -> Iterator[str]:
    """DVC's status of one stage in words: "params.yaml: render.fps modified", "data/raw/sample deleted", "changed command"."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
            continue
        for paths in entry.values():  # under "changed deps" or "changed outs"
            for path, change in paths.items():
                if isinstance(change, dict):
                    yield f"{path}: " + ", ".join(f"{key} {how}" for key, how in change.items())
                else:
                    yield f"{path} {change}"


def remember(stage: str, took: float) -> None:
    """That a stage ran for so many seconds: the next plan knows by it what to begin first. For who holds the stage's slot."""
    path = _seconds(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, f"{took}\n".encode())


def _took(stage: str, before: float) -> float:
    try:
        return float(_seconds(stage).read_text())
    except FileNotFoundError:
        return before


def _seconds(stage: str) -> Path:
    return SECONDS / quote(stage, safe="@=, ")


def order_lock(order: list[str], known: frozenset[str]) -> None:
    """Put the stages that are new in dvc.lock in the order in which `dvc repro` adds them, not that in which they ended."""
    with Repo(_wait_for_lock=True).lock:
        if not LOCK.exists():
            return
        content = parse_yaml_for_update(LOCK.read_text(), str(LOCK))
        stages = content["stages"]
        places = {name: place for place, name in enumerate(order)}
        new = sorted((name for name in stages if name not in known), key=lambda name: places.get(name, len(places)))
        wanted = [name for name in stages if name in known] + new
        if wanted != list(stages):
            for name in wanted:
                stages.move_to_end(name)
            _write(LOCK, dumps_yaml(content).encode())


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)


def _whole(lock: Path) -> bool:
    try:
        return not lock.exists() or "stages" in yaml.safe_load(lock.read_text())
    except (yaml.YAMLError, TypeError, UnicodeDecodeError):
        return False
