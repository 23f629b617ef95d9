"""`python -m tests.models.motion.bench [SHARDS [SYNCNET [KEPT]]]`: what the flow is for.

SHARDS   with train, val and test (data/shards/sample)
SYNCNET  checkpoint of the sync expert, which all three are trained with (data/checkpoints/syncnet)
KEPT     folder of the three that are trained, which a second run takes as they are (data/.work/bench/motion)

The same network with a flow for its prior, with a plain Gaussian, and as a regressor of the mean, each trained by the preset
`sample`, move the mouth to held-out sounds. Landmarks are the mouth's 20, in millimetres, each utterance less its own mean: how
a person holds the mouth all along is not in the sound. What a prior is worth depends on the weight of the divergence from it, and
on the temperature of the draws, of which colder ones err less and differ less: rows of equal error are to be compared.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch

from data.shardset import ShardSet
from models.given import Given
from models.landmarks import MOUTH, Utterance, read_utterance
from models.motion.config import SYNCNET, Config, Prior
from models.motion.generate import load, move
from models.motion.network import MotionVAE
from tests.models.trained import KEPT, trained

DRAWS = 5  # of each utterance
TEMPERATURES = (1.0, 0.5)
WEIGHTS = (1e-4, 2e-4, 5e-4)  # of the divergence
MILLIMETRES = 10.0  # in a centimetre


class Scores(NamedTuple):
    """Of one utterance or of several, millimetres a landmark but for the last."""

    one: float  # error of one draw
    best: float  # of the best
    mean: float  # of the mean of all
    diversity: float  # between two draws
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
    return Scores(
        float(np.mean(errors)),
        min(errors),
        apart(np.mean(draws, axis=0), real_TP3),
        float(np.mean([apart(one, other) for one, other in combinations(draws, 2)])),
        float(np.mean([draw.std(axis=0).mean() for draw in draws]) / real_TP3.std(axis=0).mean()),
    )


def scored(network: MotionVAE, utterances: Sequence[Utterance], temperature: float) -> Scores:
    """The mean over utterances."""
    rows = [
        judged(mouth(said.motion), [mouth(move(network, said.speech, temperature, seed)) for seed in range(DRAWS)])
        for said in utterances
    ]
    return Scores(*np.mean(rows, axis=0).tolist())


def configurations() -> dict[str, Config]:
    """By the names of their folders. A regressor has no divergence to be weighted."""
    weighted = {
        f"{prior}_{weight:g}": {"prior": prior, "kl_weight": weight}
        for prior in get_args(Prior)
        for weight in WEIGHTS
        if prior != "none"
    }
    return {name: Config.from_dict("sample", overrides) for name, overrides in (weighted | {"none": {"prior": "none"}}).items()}


def table(shards: Path, syncnet: Path, kept: Path) -> Iterator[str]:
    """Its lines, as Markdown has tables."""
    given, configs = Given(shards / "train", shards / "val", {SYNCNET: syncnet}), configurations()
    heard = configs["none"].audio, configs["none"].audio_width
    held_out = [read_utterance(clip, *heard) for part in ("val", "test") for clip in ShardSet(shards / part).clips()]
    still = float(np.mean([apart(mouth(said.motion), np.zeros(3)) for said in held_out]))
    frames = sum(len(said.motion) for said in held_out)
    yield f"{len(held_out)} held-out utterances, {frames} frames; a still mouth errs by {still:.2f} mm.\n"
    yield f"| prior | weight | temperature | error of one | best of {DRAWS} | mean of {DRAWS} | diversity | movement |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, config in configs.items():
        network, drawn = load(trained("motion", config, given, kept / name)), config.prior != "none"
        for temperature in TEMPERATURES if drawn else TEMPERATURES[:1]:
            scores = " | ".join(f"{value:.2f}" for value in scored(network, held_out, temperature))
            yield f"| {config.prior} | {f'{config.kl_weight:g} | {temperature}' if drawn else '— | —'} | {scores} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    named = [Path(word) for word in sys.argv[1:]]
    defaults = [Path("data/shards/sample"), Path("data/checkpoints/syncnet"), KEPT / "motion"]
    for line in table(*named, *defaults[len(named) :]):
        print(line, flush=True)
