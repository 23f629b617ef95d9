"""How near a generated motion is to the real one, and the motions that need no training to compare it with.

Motions are `(T, V, 3)`, templates `(V, 3)`, in the units of the data: metres for VOCASET and for any video's mesh, the root of
the surface for BIWI as CodeTalker scales it. Both motions are of the same frames: whoever compares cuts to the shorter one.

Conventions: LVE and FDD are of *squared* distances, as published, though papers print "mm"; FDD is signed, so that too much and
too little motion cancel over clips: its absolute value stands beside it. Each score is of one clip, and the mean over clips
is unweighted, as in DiffSpeaker's release (CodeTalker's script pools frames, so that long clips weigh more). Which
vertices are lips and upper face changes LVE threefold: `Topology.regions` names them, and belongs beside every score.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data.media.mesh import METRES, MILLIMETRES
from data.topology import Topology

MILLIMETRES_IN = {METRES: 1000.0, MILLIMETRES: 1.0}  # a unit; the other scalings have no length that is the same for all

BANDS, CONTEXT = 32, 5  # what linear regression hears: mel bands, and frames to both sides
RIDGE = 1.0  # its penalty, in variances of an input; of 0.1, 1 and 10 the best in mean LVE on eight real clips


def lip_vertex_error(real_TV3: np.ndarray, fake_TV3: np.ndarray, lips: np.ndarray) -> float:
    """LVE: of each frame the largest squared distance of a lip vertex, and the mean over frames. Units squared.

    `main/cal_metric.py` of CodeTalker, `losses/utils.py` of DiffSpeaker, and torchmetrics; MeshTalk's is not squared.
    """
    return float((_distances(real_TV3[:, lips], fake_TV3[:, lips]) ** 2).max(axis=1).mean())


def largest_lip_error(real_TV3: np.ndarray, fake_TV3: np.ndarray, lips: np.ndarray) -> float:
    """The same with distances that are not squared: a length."""
    return float(_distances(real_TV3[:, lips], fake_TV3[:, lips]).max(axis=1).mean())


def mean_vertex_error(real_TV3: np.ndarray, fake_TV3: np.ndarray) -> float:
    """MVE: the mean distance over frames and vertices (FaceDiffuser)."""
    return float(_distances(real_TV3, fake_TV3).mean())


def upper_face_deviation(real_TV3: np.ndarray, fake_TV3: np.ndarray, template_V3: np.ndarray, upper: np.ndarray) -> float:
    """FDD: how much more the real upper face moves than the generated one; negative where that moves more. Units squared.

    Motion is the standard deviation over time of a vertex's squared distance from the template (CodeTalker).
    """
    _distances(real_TV3, fake_TV3)
    real, fake = (_dynamics(motion[:, upper], template_V3[upper]) for motion in (real_TV3, fake_TV3))
    return real - fake


def diversity(fakes_KTV3: np.ndarray) -> float:
    """The mean distance between two of K motions for one sound, in K styles or from K seeds, over all pairs (FaceDiffuser)."""
    if len(fakes_KTV3) < 2:
        raise ValueError("diversity is of at least two motions")
    pairs = [(a, b) for b in range(len(fakes_KTV3)) for a in range(b)]
    return float(np.mean([mean_vertex_error(fakes_KTV3[a], fakes_KTV3[b]) for a, b in pairs]))


def jitter(vertices_TV3: np.ndarray, lips: np.ndarray) -> float:
    """The mean size of the lips' second difference: how much a motion changes its course in a frame. NaN under 3 frames."""
    bends = np.diff(vertices_TV3[:, lips].astype(np.float64), n=2, axis=0)
    return float(np.linalg.norm(bends, axis=-1).mean()) if len(bends) else float("nan")


def mouth_opening(vertices_TV3: np.ndarray, opening_N2: np.ndarray) -> np.ndarray:
    """`(T,)` the mean distance between upper and lower inner lip; NaN where a topology does not know them."""
    if not len(opening_N2):
        return np.full(len(vertices_TV3), np.nan)
    return _distances(vertices_TV3[:, opening_N2[:, 0]], vertices_TV3[:, opening_N2[:, 1]]).mean(axis=1)


def speech_energy(mel_MB: np.ndarray, frames: int) -> np.ndarray:
    """`(frames,)` dB: the mean over the bands of a mel spectrogram in dB that lasts as long as the frames.

    The mean of logarithms, not of power: on eight real clips the mouth's opening correlates more with it than with the sound's
    root mean square (0.32 to 0.70 against 0.02 to 0.57 on seven of GRID).
    """
    return mel_of_frames(mel_MB, frames, 1)[:, 0]


def correlation(a_T: np.ndarray, b_T: np.ndarray) -> float:
    """Pearson's, −1 to 1; NaN where either is constant or unknown."""
    if len(a_T) < 2 or not np.ptp(a_T) > 0 or not np.ptp(b_T) > 0:  # a constant's deviation may be a rounding error
        return float("nan")
    return float(np.corrcoef(a_T, b_T)[0, 1])


def scores(
    real_TV3: np.ndarray,
    fake_TV3: np.ndarray,
    template_V3: np.ndarray,
    mel_MB: np.ndarray,
    topology: Topology,
    scaling: str,
) -> dict[str, float]:
    """One clip's row; NaN where something is not defined: millimetres of data without a length, an opening nobody published."""
    millimetres = MILLIMETRES_IN.get(scaling, float("nan"))
    lips, energy_T = topology.lips, speech_energy(mel_MB, len(real_TV3))
    deviation = upper_face_deviation(real_TV3, fake_TV3, template_V3, topology.upper_face)
    real_T, fake_T = (mouth_opening(motion, topology.opening) for motion in (real_TV3, fake_TV3))
    real_jitter = jitter(real_TV3, lips)
    return {
        "lve": lip_vertex_error(real_TV3, fake_TV3, lips),
        "lve_mm": largest_lip_error(real_TV3, fake_TV3, lips) * millimetres,
        "mve": mean_vertex_error(real_TV3, fake_TV3),
        "mve_mm": mean_vertex_error(real_TV3, fake_TV3) * millimetres,
        "fdd": deviation,
        "fdd_absolute": abs(deviation),
        "jitter_to_real": jitter(fake_TV3, lips) / real_jitter if real_jitter else float("nan"),
        "opening_mm": float(fake_T.mean()) * millimetres,
        "opening_mm_real": float(real_T.mean()) * millimetres,
        "opening_correlation": correlation(fake_T, real_T),
        "energy_correlation": correlation(fake_T, energy_T),
        "energy_correlation_real": correlation(real_T, energy_T),
    }


def still(template_V3: np.ndarray, frames: int) -> np.ndarray:
    """`(frames, V, 3)`: a mesh that does not move."""
    return np.repeat(template_V3[None], frames, axis=0)


def mean_residual(residuals: Iterable[np.ndarray]) -> np.ndarray:
    """`(V, 3)`: the mean over the frames of all training clips of `(T, V, 3)` motion less template."""
    total_V3, frames = np.zeros(1), 0
    for residual_TV3 in residuals:
        total_V3, frames = total_V3 + residual_TV3.sum(axis=0, dtype=np.float64), frames + len(residual_TV3)
    if not frames:
        raise ValueError("no training clip to take the mean motion of")
    return total_V3 / frames


@dataclass(frozen=True)
class LinearMotion:
    """Ridge regression from the sound around a frame to the frame's motion: what a network has to beat."""

    mean: np.ndarray  # (D,) of the inputs
    deviation: np.ndarray  # (D,) of the inputs
    offset: np.ndarray  # (3V,)
    weights: np.ndarray  # (D, 3V)

    def predict(self, mel_MB: np.ndarray, frames: int) -> np.ndarray:
        """`(frames, V, 3)` motion less template."""
        inputs_TD = (windows(mel_MB, frames) - self.mean) / self.deviation
        return (inputs_TD @ self.weights + self.offset).reshape(frames, -1, 3)


def linear_motion(training: Iterable[tuple[np.ndarray, np.ndarray]]) -> LinearMotion:
    """From training clips, one in memory at a time: mel spectrogram `(M, bands)` in dB, and `(T, V, 3)` motion less template."""
    count, sums = 0, [np.zeros(1)] * 4
    for mel_MB, residual_TV3 in training:
        x_TD = windows(mel_MB, len(residual_TV3))
        y_T3V = residual_TV3.reshape(len(residual_TV3), -1).astype(np.float64)
        count += len(x_TD)
        sums = [total + new for total, new in zip(sums, (x_TD.sum(0), y_T3V.sum(0), x_TD.T @ x_TD, x_TD.T @ y_T3V), strict=True)]
    if not count:
        raise ValueError("no training clip to fit a regression to")
    mean_D, offset_3V, squares_DD, products_D3V = (total / count for total in sums)
    covariance_DD = squares_DD - np.outer(mean_D, mean_D)
    deviation_D = np.sqrt(np.maximum(np.diag(covariance_DD), 1.0))  # dB; a band that was silent in training stays weak
    correlation_DD = covariance_DD / np.outer(deviation_D, deviation_D)
    cross_D3V = (products_D3V - np.outer(mean_D, offset_3V)) / deviation_D[:, None]
    weights_D3V = np.linalg.solve(correlation_DD + RIDGE * np.eye(len(mean_D)), cross_D3V)
    return LinearMotion(mean_D, deviation_D, offset_3V, weights_D3V)


def windows(mel_MB: np.ndarray, frames: int) -> np.ndarray:
    """`(frames, (2 CONTEXT + 1) · BANDS)`: the sound of each frame and of its neighbours; beyond the ends, that at the ends."""
    mel_TB = mel_of_frames(mel_MB, frames, BANDS)
    padded = np.pad(mel_TB, ((CONTEXT, CONTEXT), (0, 0)), mode="edge")
    return np.concatenate([padded[shift : shift + frames] for shift in range(2 * CONTEXT + 1)], axis=1)


def mel_of_frames(mel_MB: np.ndarray, frames: int, bands: int) -> np.ndarray:
    """`(frames, bands)`: a mel spectrogram's mean over each frame's time, whatever the two rates, and over neighbouring bands."""
    mel_Mb = mel_MB.astype(np.float64).reshape(len(mel_MB), bands, -1).mean(axis=2)
    edges = np.linspace(0, len(mel_Mb), frames + 1)
    summed = np.concatenate((np.zeros((1, bands)), np.cumsum(mel_Mb, axis=0)))
    at_edges = np.stack([np.interp(edges, np.arange(len(summed)), column) for column in summed.T], axis=1)
    return np.diff(at_edges, axis=0) / np.diff(edges)[:, None]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between points of two arrays of one shape `(…, 3)`."""
    if a.shape != b.shape:
        raise ValueError(f"motions of the shapes {a.shape} and {b.shape} cannot be compared: cut them to the same frames first")
    return np.linalg.norm(a.astype(np.float64) - b, axis=-1)


def _dynamics(motion_TV3: np.ndarray, template_V3: np.ndarray) -> float:
    squared_TV = ((motion_TV3.astype(np.float64) - template_V3) ** 2).sum(axis=-1)
    return float(squared_TV.std(axis=0).mean())
