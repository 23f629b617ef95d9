"""`python -m tests.models.postnet.bench [CHECKPOINT [PERSON [VOICES [KEPT]]]]`: what PostNet makes of strangers' sounds.

CHECKPOINT  of postnet, which holds the person's training motion (data/checkpoints/postnet)
PERSON      shards of that person (data/shards/webcam)
VOICES      shards whose val and test are heard, but for speakers that PERSON has (data/shards/sample)
KEPT        folder of a second sync expert, trained on VOICES with another seed (data/.work/bench/postnet): PostNet was trained
            to please the first, whose word is told beside it

Distance to the person: of a frame's 68 landmarks, the mean, to those of the nearest of all the person's training frames.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data.shardset import Clip, ShardSet, json_object
from models.given import Given
from models.landmarks import MOUTH, VALUES, Utterance, read_utterance
from models.motion.config import SYNCNET
from models.motion.generate import move
from models.postnet.examples import MOTION
from models.postnet.generate import adapt, load
from models.postnet.guards import Guards
from models.syncnet import expert
from models.syncnet.config import Config as SyncConfig
from models.syncnet.network import SyncNet
from tests.models.trained import KEPT, trained

DRAWS, SEED = 3, 1  # of each utterance; of the second expert
UNGUARDED = Guards(lle_share=0.0, lle_neighbours=10, clamp_std=0.0, upper_share=1.0, smoothing=0.0, blink="none")
MILLIMETRES = 10.0  # in a centimetre


def nearest(motion_TX: np.ndarray, person_NX: np.ndarray) -> float:
    """Millimetres a landmark, the mean over frames."""
    motion_TP3, person_NP3 = (rows.reshape(-1, VALUES // 3, 3) for rows in (motion_TX, person_NX))
    return MILLIMETRES * float(np.mean([np.linalg.norm(person_NP3 - frame, axis=2).mean(axis=1).min() for frame in motion_TP3]))


def scores(said: Utterance, motion_TX: np.ndarray, person_NX: np.ndarray, experts: Sequence[SyncNet]) -> tuple[float, ...]:
    """Distance to the person; the mouth's standard deviation over time, both in millimetres; each expert's confidence."""
    movement = MILLIMETRES * float(motion_TX[:, MOUTH].std(axis=0).mean())
    return nearest(motion_TX, person_NX), movement, *(expert.confidence(one, said.speech, motion_TX) for one in experts)


def speaker(clip: Clip) -> str:
    return json_object(clip.members["json"])["speaker"]


def strangers(person: Path, voices: Path) -> list[Clip]:
    """Held-out clips of VOICES by speakers that PERSON has not. ValueError if there are none."""
    known = {speaker(clip) for clip in ShardSet(person / "train").clips()}
    found = [clip for part in ("val", "test") for clip in ShardSet(voices / part).clips() if speaker(clip) not in known]
    if not found:
        raise ValueError(f"{voices} has no held-out clip of anybody but {', '.join(sorted(known))}: name other shards")
    return found


def table(checkpoint: Path, person: Path, voices: Path, kept: Path) -> list[str]:
    """Its lines, as Markdown has tables."""
    ready = load(checkpoint)
    network, hears, temperature = ready.network, ready.motion.config, ready.network.config.val_temperature
    second = trained("syncnet", SyncConfig.from_dict("sample", {"seed": SEED}), Given(voices / "train", voices / "val"), kept)
    experts = [expert.load(folder) for folder in (second, checkpoint / MOTION / SYNCNET)]
    heard = [read_utterance(clip, hears.audio, hears.audio_width) for clip in strangers(person, voices)]
    drawn = [(said, move(ready.motion, said.speech, temperature, seed)) for said in heard for seed in range(DRAWS)]
    lines = [
        f"{len(heard)} held-out utterances of strangers, {sum(len(said.motion) for said in heard)} frames; "
        f"{len(network.motion_NX)} frames of the person; temperature {temperature}.",
        "",
        "| motion | distance to the person, mm | mouth's movement, mm | sync confidence | of the expert trained with |",
        "|---|---|---|---|---|",
    ]
    for name, motions in (
        ("before PostNet", drawn),
        ("after", [(said, adapt(network, motion_TX, UNGUARDED)) for said, motion_TX in drawn]),
        ("after, guarded", [(said, adapt(network, motion_TX, network.config.guards)) for said, motion_TX in drawn]),
        ("the strangers' own", [(said, said.motion) for said in heard]),
    ):
        person_NX = network.motion_NX.numpy()
        distance, movement, *confidences = np.mean([scores(*each, person_NX, experts) for each in motions], axis=0)
        told = " | ".join(f"{confidence:.3f}" for confidence in confidences)
        lines.append(f"| {name} | {distance:.2f} | {movement:.2f} | {told} |")
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    named = [Path(word) for word in sys.argv[1:]]
    defaults = [Path("data/checkpoints/postnet"), Path("data/shards/webcam"), Path("data/shards/sample"), KEPT / "syncnet"]
    print("\n".join(table(*named, *defaults[len(named) :])))
