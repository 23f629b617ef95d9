"""What the stages that make a column of a corpus have in common: where their clips come from, where their column goes."""

from collections.abc import Callable
from typing import TypeVar

from data.files import in_place
from data.shardset import Clip, Column, Index, ShardSet, Skipped, write_index
from stages.engine import EngineParams, JoinedSource, map_clips
from stages.params import output, section, work

P = TypeVar("P")


def make_column(
    stage: str,
    function: Callable[[Clip, P], Column | Skipped],
    params: type[P],
    part: str,
    reads: list[str],
    needs: str,
) -> None:
    """Map `function` over the clips of `part` ("corpus/0"), with the columns of the stages `reads` and this stage's params.

    A corpus that has no member `needs` (no pictures, so no landmarks) has nothing to do here.
    """
    sets = [ShardSet(output(column, part)) for column in reads]
    if not any(needs in shard_set.index.columns for shard_set in sets):
        leave_empty(stage, part)
        return
    engine = section("engine", EngineParams)
    map_clips(stage, function, section(stage, params), JoinedSource(sets), output(stage, part), work(stage, part), engine)


def leave_empty(stage: str, part: str) -> None:
    """An empty shard set, for a stage that has nothing to do for this corpus."""
    with in_place(output(stage, part)) as out:
        write_index(out, Index.of([], {}))
