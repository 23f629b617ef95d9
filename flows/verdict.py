"""Whether a newly trained system takes the champion's place: pure functions of held-out scores."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Scores = Mapping[str, float | None]  # by key of a held-out clip; None where the score is undefined
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Decision:
    """gain: by how much the challenger is better, in the metric's unit, over `clips` held-out clips; None without any."""

    promoted: bool
    gain: float | None
    clips: int
    why: str


def decide(champion: Scores, challenger: Scores, margin: float, min_clips: int, better: Better) -> Decision:
    """The challenger wins if it is better by `margin` in the mean over the clips that both have: `min_clips` at least."""
    gains = [_gain(champion[clip], challenger[clip], better) for clip in sorted(champion.keys() & challenger.keys())]
    known = [gain for gain in gains if gain is not None and math.isfinite(gain)]
    if len(known) < max(min_clips, 1):
        why = f"{len(known)} held-out clips are scored of both, {min_clips} are needed"
        return Decision(False, math.fsum(known) / len(known) if known else None, len(known), why)
    gain = math.fsum(known) / len(known)
    return Decision(gain >= margin, gain, len(known), f"better by {gain:+.4g} than the champion, {margin:g} is needed")


def decide_first(challenger: Scores, own: float | None, baseline: float | None, min_clips: int, better: Better) -> Decision:
    """Where there is no champion: it wins if its mean score `own` is better than the baseline's."""
    clips = sum(score is not None and math.isfinite(score) for score in challenger.values())
    gain = _gain(baseline, own, better)
    if clips < max(min_clips, 1):
        return Decision(False, gain, clips, f"{clips} held-out clips are scored, {min_clips} are needed")
    if gain is None or not math.isfinite(gain):
        return Decision(False, None, clips, "its score, or the baseline's, is undefined")
    return Decision(gain > 0, gain, clips, f"the first one; better by {gain:+.4g} than its baseline, more than 0 is needed")


def _gain(before: float | None, after: float | None, better: Better) -> float | None:
    if before is None or after is None:
        return None
    return after - before if better == "higher" else before - after
