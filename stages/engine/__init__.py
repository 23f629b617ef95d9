"""Maps a pure function over clips: in parallel, in bounded memory, resumable, whatever a single clip does.

* sources.py    where the clips come from: a corpus, or shard sets joined clip by clip
* pool.py       what every pool of workers does: clips in by order, outcomes out by order, few in memory
* workers.py    a pool of processes that run the function, and may die of it
* slots.py      what stages side by side share: cores, GPUs, memory
* cluster.py    a pool over a Ray cluster, each of whose cores has such a process
* unfinished.py finished shards of a run that has not finished, found again by what they were made from
* code.py       which source files can change what a function returns
* progress.py   what a running stage tells
* mapping.py    map_clips, which puts these together
"""

from stages.engine.code import code_files, code_version
from stages.engine.mapping import EngineParams, StageFailed, map_clips
from stages.engine.sources import JoinedSource, RawSource, Source, SourceShard
from stages.engine.workers import die_with, own_group

__all__ = [
    "EngineParams",
    "JoinedSource",
    "RawSource",
    "Source",
    "SourceShard",
    "StageFailed",
    "code_files",
    "code_version",
    "die_with",
    "map_clips",
    "own_group",
]
