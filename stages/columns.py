"""From a clip function to a stage: what every stage that adds a column does alike."""

from collections.abc import Callable
from typing import TypeVar

from data.shardset import Clip, Column, ShardSet, Skipped
from stages.engine import EngineParams, JoinedSource, map_clips
from stages.params import output, section, work

P = TypeVar("P")


def make_column(
    stage: str, function: Callable[[Clip, P], Column | Skipped], params: type[P], corpus: str, reads: list[str]
) -> None:
    """Map `function` over the clips of `corpus`, with the columns that the stages `reads` made and this stage's params."""
    source = JoinedSource([ShardSet(output(column, corpus)) for column in reads])
    engine = section("engine", EngineParams)
    map_clips(stage, function, section(stage, params), source, output(stage, corpus), work(stage, corpus), engine)
