"""`python -m tests.models.motion.bench [SHARDS [SYNCNET [KEPT]]]`: what the flow is for.

SHARDS   with train, val and test (data/shards/sample)
SYNCNET  checkpoint of the sync expert, which all are trained with (data/checkpoints/syncnet)
KEPT     folder of the trainings, which a second run takes as they are (data/.work/bench/motion)

The same network with a flow for its prior, with a plain Gaussian, and as a regressor of the mean, each trained by the preset
`sample` from three seeds, move the mouth to held-out sounds. Landmarks are the mouth's 20, in millimetres, each utterance less
its own mean: how a person holds the mouth all along is not in the sound. The energy score weighs error against diversity, and
is lowest for the distribution that is right (Gneiting and Raftery 2007, §4.3): the error of one, less half the diversity.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch

from data.shardset import ShardSet
from models.given import Given
from models.landmarks import MOUTH, Utterance, read_utterance
from models.motion.config import PRESETS, SYNCNET, Prior
from models.motion.generate import load, move
from models.motion.network import MotionVAE
from tests.models.trained import KEPT, trained

DRAWS = 5  # of each utterance
SEEDS = (0, 1, 2)  # of trainings
MILLIMETRES = 10.0  # in a centimetre


class Scores(NamedTuple):
    """Of one utterance or of several, millimetres a landmark but for the last."""

    one: float  # error of one draw
    best: float  # of the best
    mean: float  # of the mean of all
    diversity: float  # between two draws
    energy: float  # see above
    movement: float  # standard deviation over time, of the real one's


def mouth(motion_TX: np.ndarray) -> np.ndarray:
    """(T, 20, 3) millimetres, less the utterance's mean."""
    mouth_TP3 = MILLIMETRES * motion_TX[:, MOUTH].reshape(len(motion_TX), -1, 3)
    return mouth_TP3 - mouth_TP3.mean(axis=0)


def apart(one_TP3: np.ndarray, other_TP3: np.ndarray) -> float:
    """The mean distance of a landmark from its other."""
    return float(np.linalg.norm(one_TP3 - other_TP3, axis=-1).mean())


def judged(real_TP3: np.ndarray, draws: Sequence[np.ndarray]) -> Scores:
    """Mouths that were drawn for one utterance, beside its own."""
    errors = [apart(draw, real_TP3) for draw in draws]
    one, diversity = float(np.mean(errors)), float(np.mean([apart(one, other) for one, other in combinations(draws, 2)]))
    return Scores(
        one,
        min(errors),
        apart(np.mean(draws, axis=0), real_TP3),
        diversity,
        one - diversity / 2,
        float(np.mean([draw.std(axis=0).mean() for draw in draws]) / real_TP3.std(axis=0).mean()),
    )


def scored(network: MotionVAE, utterances: Sequence[Utterance]) -> Scores:
    """The mean over utterances."""
    rows = [
        judged(mouth(said.motion), [mouth(move(network, said.speech, temperature=1.0, seed=seed)) for seed in range(DRAWS)])
        for said in utterances
    ]
    return Scores(*np.mean(rows, axis=0).tolist())


def table(shards: Path, syncnet: Path, kept: Path) -> Iterator[str]:
    """Its lines, as Markdown has tables: means over SEEDS, and standard deviations."""
    given, sample = Given(shards / "train", shards / "val", {SYNCNET: syncnet}), PRESETS["sample"]
    clips = [clip for part in ("val", "test") for clip in ShardSet(shards / part).clips()]
    held_out = [read_utterance(clip, sample.audio, sample.audio_width) for clip in clips]
    still = float(np.mean([apart(mouth(said.motion), np.zeros(3)) for said in held_out]))
    frames = sum(len(said.motion) for said in held_out)
    yield f"{len(held_out)} held-out utterances, {frames} frames; a still mouth errs by {still:.2f} mm.\n"
    yield f"| prior | error of one | best of {DRAWS} | mean of {DRAWS} | diversity | energy score | movement |"
    yield "|---|---|---|---|---|---|---|"
    for prior in get_args(Prior):
        rows = [
            scored(load(trained("motion", replace(sample, prior=prior, seed=seed), given, kept / f"{prior}_{seed}")), held_out)
            for seed in SEEDS
        ]
        both = zip(np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1), strict=True)
        yield f"| {prior} | {' | '.join(f'{mean:.2f} ± {std:.2f}' for mean, std in both)} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    named = [Path(word) for word in sys.argv[1:]]
    defaults = [Path("data/shards/sample"), Path("data/checkpoints/syncnet"), KEPT / "motion"]
    for line in table(*named, *defaults[len(named) :]):
        print(line, flush=True)
