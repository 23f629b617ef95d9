"""`python -m stages.rescore SYSTEM CHECKPOINT OUT`: the held-out clips scored with another checkpoint, as `evaluate` scores them.

For a champion that was scored on other clips, or by other means, than its challenger.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from data.files import atomic_file
from data.shardset import ShardSet
from stages.evaluate import EvaluateParams, mean_row
from stages.judges import judge_of
from stages.params import output, section, system_params


def rescore(system: str, checkpoint: Path) -> dict[str, dict[str, Any]]:
    """By key of each held-out clip its scores; those of the system's own sampler, with the noise that `evaluate` draws."""
    corpus, params = system_params(system).corpus, section(f"evaluate.{system}", EvaluateParams)
    generator, judge = importlib.import_module(f"models.{system}.generate"), judge_of(system)
    clips = list(ShardSet(output("shards", corpus) / "test").clips())
    made = generator.regenerate(checkpoint, clips, params.sampler, params.steps, params.batch_size, params.seed)
    raw = output("download", corpus)
    return {clip.key: mean_row([judge.scores(clip, fake, raw)]) for clip, fake in zip(clips, made, strict=True)}


if __name__ == "__main__":
    scored = rescore(sys.argv[1], Path(sys.argv[2]))
    with atomic_file(Path(sys.argv[3])) as file:
        file.write(json.dumps(scored).encode())
