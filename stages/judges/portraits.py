"""Pictures that are made whole, of one person: how near the film's, and whether the mouth is where it was and moves with it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data.media import audio, video
from data.shardset import Clip, json_object, npy_array
from stages.judges.frames import MEMBER as MEMBER
from stages.judges.frames import contact_sheet, true_landmarks, truth
from stages.metrics import image, mouth
from stages.rendering import RenderParams

HEADINGS = {
    "psnr_frame": "PSNR, dB ↑",
    "ssim_frame": "SSIM ↑",
    "psnr_mask": "PSNR of lower face, dB ↑",
    "ssim_mask": "SSIM of lower face ↑",
    "landmark_distance": "distance of the mouth's landmarks, % of its width ↓",
    "mouth_correlation": "mouth opening, correlation ↑",
    "jitter_to_real": "jitter of lips, of the real one's → 1",
    "diversity": "between two noises, grey levels",
    "seconds_per_frame": "s per frame ↓",
}
NOTE = (
    "Means over frames, then clips, of pictures made whole; the film gives its sound and the pose of the head. SSIM: Gaussian "
    "window, σ 1.5. Landmarks: the mouth's 20, less their middle, as RAD-NeRF's meter. `filmed` paints the film's own landmarks: "
    "what the renderer can do."
)


def told(metrics: dict[str, Any]) -> str:
    """What the scores come to."""
    own, mean, still = metrics["own"], metrics["baselines"]["mean_frame"], metrics["baselines"]["still_frame"]
    gain = own["psnr_frame"] - mean["psnr_frame"]
    told = f"The pictures are {gain:+.1f} dB against the mean of the training frames"
    if None in (own["landmark_distance"], still["landmark_distance"]):
        return f"{told}; no mouth was found in them."
    ours, theirs = own["landmark_distance"], still["landmark_distance"]
    return f"{told}; the mouth is {ours:.1f} % of its width off, a still frame's {theirs:.1f} %."


def scores(clip: Clip, fake_TSS3: np.ndarray, raw: Path) -> dict[str, float]:
    """Of one clip, at the size of what was made."""
    size, full = fake_TSS3.shape[1], json_object(clip.members["json"])["size"]
    real_TSS3, boxes_T4 = truth_of_size(clip, size), npy_array(clip.members["mask.npy"]).astype(np.int64) * size // full
    real_TP3 = true_landmarks(clip.members["mp4"])
    fake_TP3 = mouth.track(fake_TSS3) * np.float32(full / size)  # as in pictures of the clip's size
    row = image.scores(real_TSS3, fake_TSS3, boxes_T4) | mouth.scores(real_TP3, fake_TP3)
    return row | {"landmark_distance": mouth.landmark_distance(real_TP3, fake_TP3)}


def truth_of_size(clip: Clip, size: int) -> np.ndarray:
    """The clip's own frames, `(T, size, size, 3)` uint8, each pixel the mean of what it covers."""
    real_THW3 = truth(clip)
    if real_THW3.shape[1] == size:
        return real_THW3
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in real_THW3])


def difference(clip: Clip, one_TSS3: np.ndarray, other_TSS3: np.ndarray) -> float:
    """Between two videos of one clip: mean difference of a colour, of 255 levels."""
    return float(np.abs(one_TSS3.astype(int) - other_TSS3).mean())


def baselines(clips: Sequence[Clip], train: Iterable[Clip]) -> dict[str, list[np.ndarray]]:
    """The mean of all training frames, and the first of them, throughout."""
    total, count, first = 0.0, 0, None
    for clip in train:
        real_THW3 = truth(clip)
        first = real_THW3[0] if first is None else first
        total, count = total + real_THW3.sum(axis=0, dtype=np.float64), count + len(real_THW3)
    if first is None:
        raise ValueError("there is no training clip, of which the baselines are made")
    mean = np.rint(total / count).astype(np.uint8)
    lengths = [json_object(clip.members["json"])["frames"] for clip in clips]
    return {
        name: [np.repeat(one[None], frames, axis=0) for frames in lengths]
        for name, one in (("mean_frame", mean), ("still_frame", first))
    }


def sheet(clips: Sequence[Clip], made: Mapping[str, Sequence[np.ndarray]], raw: Path) -> Image.Image:
    """The same moments of the first clip: real, then as each sampler made it."""
    videos = [some[0] for some in made.values()]
    return contact_sheet([truth_of_size(clips[0], videos[0].shape[1]), *videos])


def film(clip: Clip, generated_TSS3: np.ndarray, raw: Path, params: RenderParams) -> tuple[bytes, Image.Image]:
    """The mp4, real on the left and generated on the right, and its contact sheet."""
    about, real_TSS3 = json_object(clip.members["json"]), truth_of_size(clip, generated_TSS3.shape[1])
    both = np.concatenate((real_TSS3, generated_TSS3), axis=2)
    encoded = video.encode_frames(both, about["fps"], params.crf, audio.wav_samples(clip.members["wav"]))
    return encoded, contact_sheet([real_TSS3, generated_TSS3], params.sheet_columns)
