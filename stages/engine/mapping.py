"""map_clips: a stage's clip function over a source of clips, into a shard set."""

import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeVar

from data.shardset import Clip, Column, Index, LeftOut, Skipped, write_shard
from stages.engine.code import code_version
from stages.engine.pool import Failed, Outcome, Pool
from stages.engine.progress import Progress, summary
from stages.engine.sources import Source, SourceShard
from stages.engine.unfinished import FinishedShard, UnfinishedRun
from stages.engine.workers import WorkerPool

P = TypeVar("P")


@dataclass(frozen=True)
class EngineParams:
    """How a stage runs; none of it changes what comes out."""

    executor: Literal["local", "ray"] = "local"  # this machine, or the Ray cluster at RAY_ADDRESS (see cluster.py)
    workers: int = 0  # processes; 0 for one on each core that no other stage here has one on
    max_failed: float = 0.05  # the stage fails when more than this fraction of its clips did
    clip_timeout_s: float = 600  # seconds that the function may take for one clip


class StageFailed(Exception):
    """Too many clips failed, or none came out; nothing was written to the output."""


class NoRay(ImportError):
    """`engine.executor` is `ray`, and it is not installed."""


def map_clips(
    stage: str,
    function: Callable[[Clip, P], Column | Skipped],
    params: P,
    source: Source,
    out: Path,
    work: Path,
    engine: EngineParams,
) -> Index:
    """Writes the shard set `out`, whose clips are `function(clip, params)` for each clip of the source.

    The function is defined in a module and its params are a dataclass of JSON values, for both go to other processes.
    It may skip a clip, raise, hang, or kill its process: each costs that clip, and the index says why.

    `out` appears whole or not at all, with the same bytes whatever the number of workers and however often the run was
    killed. Finished shards are kept in `work`, on the same file system, until all are done; a later run finds them
    again by the content of their source, the params and the code of the function.

    Raises StageFailed, WorkerCannotStart, AlreadyRunning, and DamagedShard from the source.
    """
    recipe = {"stage": stage, "params": asdict(params), "code": code_version(function.__module__)}  # type: ignore[call-overload]
    total = sum(len(shard.keys) for shard in source.shards)
    with UnfinishedRun(work, recipe) as run, Progress(stage, total) as progress:
        finished: dict[str, FinishedShard] = {}

        def clips_to_do() -> Iterator[tuple[SourceShard, Clip]]:
            for shard in source.shards:
                recalled = run.recall(shard)
                if recalled is None:
                    yield from ((shard, clip) for clip in shard.clips())
                else:
                    finished[shard.name] = recalled
                    progress.recalled(len(shard.keys))

        with _pool(pickle.dumps((function, params)), engine) as pool:
            for shard, of_shard in groupby(pool.map(clips_to_do()), key=itemgetter(0)):
                finished[shard.name] = _write(run.shards / shard.name, stage, of_shard, progress)
                run.remember(shard, finished[shard.name])

        results = [finished[shard.name] for shard in source.shards]
        left_out = {key: why for result in results for key, why in result.left_out.items()}
        index = Index.of([result.entry for result in results if result.entry], {**source.left_out, **left_out})
        _check(stage, index, left_out, total, engine.max_failed, out, work)
        run.publish(index, out)
        progress.finished(index.clips_out, left_out.values())
    return index


def _pool(job: bytes, engine: EngineParams) -> Pool:
    if engine.executor == "local":
        return WorkerPool(job, engine.workers, engine.clip_timeout_s)
    try:
        from stages.engine.cluster import RayPool
    except ModuleNotFoundError as error:
        raise NoRay("engine.executor is ray, which is not installed: pip install '.[ray]'") from error
    return RayPool(job, engine.workers, engine.clip_timeout_s)


def _write(path: Path, stage: str, outcomes: Iterable[tuple[SourceShard, str, Outcome]], progress: Progress) -> FinishedShard:
    left_out: dict[str, LeftOut] = {}

    def clips() -> Iterator[Clip]:
        for _, key, outcome in outcomes:
            progress.computed()
            match outcome:
                case Skipped(reason, detail):
                    left_out[key] = LeftOut("filtered", stage, reason, detail)
                case Failed(reason, detail):
                    left_out[key] = LeftOut("failed", stage, reason, detail)
                case column:
                    yield Clip(key, column)

    entry = write_shard(path, clips())
    return FinishedShard(entry if entry.keys else None, left_out)


def _check(stage: str, index: Index, left_out: dict[str, LeftOut], total: int, max_failed: float, out: Path, work: Path) -> None:
    failed = {key: why for key, why in left_out.items() if why.state == "failed"}
    if len(failed) > max_failed * total:
        raise StageFailed(
            f"{stage}: {len(failed)} of {total} clips failed, more than max_failed = {max_failed:g} allows.\n"
            f"{_most_frequent(failed)}\n"
            f"Nothing was written to {out}. Repair the cause and run the stage again: shards without failed clips are "
            f"kept in {work} and not made again."
        )
    if index.clips_out == 0 and total:
        raise StageFailed(
            f"{stage}: no clip came out of {total}: {summary(left_out.values(), 'filtered')}, "
            f"{summary(left_out.values(), 'failed')}. Nothing was written to {out}. Check the stage before this one, "
            "and this one's parameters in params.yaml."
        )


def _most_frequent(failed: dict[str, LeftOut], most: int = 5) -> str:
    """A line for each of the most frequent reasons, with an example."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for key, why in failed.items():
        by_reason[why.reason].append(key)
    reasons = sorted(by_reason.items(), key=lambda item: -len(item[1]))[:most]
    return "\n".join(f"  {len(keys)} × {reason}, as {keys[0]}: {failed[keys[0]].detail}" for reason, keys in reasons)
