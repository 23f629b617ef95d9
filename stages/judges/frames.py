"""Painted videos: how near the real picture, whether the mouth moves with the real one, and the face back in its source."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data.media import audio, video
from data.shardset import Clip, json_object, npy_array
from stages.metrics import image, mouth
from stages.rendering import RenderParams

MEMBER = "generated.npy"
HEADINGS = {
    "psnr_mask": "PSNR in mask, dB ↑",
    "ssim_mask": "SSIM in mask ↑",
    "psnr_frame": "PSNR of frame, dB ↑",
    "ssim_frame": "SSIM of frame ↑",
    "mouth_correlation": "mouth opening, correlation ↑",
    "jitter_to_real": "jitter of lips, of the real one's → 1",
    "diversity": "between two noises, grey levels",
    "seconds_per_frame": "s per frame ↓",
}
NOTE = (
    "Means over frames, then clips; frame 0 of each clip is given and not counted. SSIM: Gaussian window, σ 1.5. "
    "Copying the previous real frame uses the answer, one frame late: a bound, not a rival."
)


def told(metrics: dict[str, Any]) -> str:
    """What the scores come to."""
    gain = metrics["own"]["psnr_mask"] - metrics["baselines"]["copy_identity_frame"]["psnr_mask"]
    return f"The generated lower face is {gain:+.1f} dB in the mask against copying the clip's first frame."


def scores(clip: Clip, fake_THW3: np.ndarray, raw: Path) -> dict[str, float]:
    """Of one clip. Frame 0 is given to the system, so it does not count."""
    real_THW3, boxes_T4 = truth(clip), npy_array(clip.members["mask.npy"])
    row = image.scores(real_THW3[1:], fake_THW3[1:], boxes_T4[1:])
    return row | mouth.scores(true_landmarks(clip.members["mp4"]), mouth.track(fake_THW3))


@lru_cache(maxsize=64)
def true_landmarks(mp4: bytes) -> np.ndarray:
    """`mouth.track` of a clip's own frames: once, however many videos are judged beside it."""
    return mouth.track(video.decode_frames(mp4))


def difference(clip: Clip, one_THW3: np.ndarray, other_THW3: np.ndarray) -> float:
    """Between two videos of one clip: mean difference of a colour in the masks, of 255 levels; frame 0 does not count."""
    inside_THW = image.box_mask(npy_array(clip.members["mask.npy"]), *one_THW3.shape[1:3])[1:]
    return float(np.abs(one_THW3[1:].astype(int) - other_THW3[1:])[inside_THW].mean())


def truth(clip: Clip) -> np.ndarray:
    """The clip's own frames, `(T, H, W, 3)` uint8."""
    return video.decode_frames(clip.members["mp4"])


def baselines(clips: Sequence[Clip], train: Iterable[Clip]) -> dict[str, list[np.ndarray]]:
    """Each clip's first frame in every mask; and the real frame before, which uses the answer: a bound, not a rival."""
    identity, previous = [], []
    for clip in clips:
        frames, boxes = truth(clip), npy_array(clip.members["mask.npy"])
        identity.append(paste_inside(frames, frames[:1], boxes))
        previous.append(paste_inside(frames, np.roll(frames, 1, axis=0), boxes))
    return {"copy_identity_frame": identity, "copy_previous_real_frame": previous}


def paste_inside(frames_THW3: np.ndarray, patch_THW3: np.ndarray, boxes_T4: np.ndarray) -> np.ndarray:
    """`frames` with each frame's box taken from `patch` (of T frames, or of one for all)."""
    pasted = frames_THW3.copy()
    for index, (x0, y0, x1, y1) in enumerate(boxes_T4):
        pasted[index, y0:y1, x0:x1] = patch_THW3[min(index, len(patch_THW3) - 1), y0:y1, x0:x1]
    return pasted


def sheet(clips: Sequence[Clip], made: Mapping[str, Sequence[np.ndarray]], raw: Path) -> Image.Image:
    """The same moments of the first clip: real, then as each sampler made it."""
    return contact_sheet([truth(clips[0]), *(videos[0] for videos in made.values())])


def contact_sheet(rows: list[np.ndarray], columns: int = 8) -> Image.Image:
    """Videos `(T, H, W, 3)` one below another, `columns` moments of each, twice as large."""
    moments = np.linspace(1, len(rows[0]) - 1, columns).round().astype(int)
    sheet = np.concatenate([np.concatenate(list(video[moments]), axis=1) for video in rows], axis=0)
    return Image.fromarray(sheet).resize((2 * sheet.shape[1], 2 * sheet.shape[0]), Image.Resampling.LANCZOS)


def seam_weights(boxes_T4: np.ndarray, size: int, seam: int) -> np.ndarray:
    """`(T, size, size)` float32: 0 outside the mask, rising to 1 over `seam` pixels inside it."""
    mask_THW = image.box_mask(boxes_T4, size, size).astype(np.uint8)
    # A border of zeros, so that the crop's own edge counts as the mask's.
    distances = [cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L1, 3)[1:-1, 1:-1] for mask in mask_THW]
    return np.clip(np.stack(distances) / (seam + 1), 0, 1).astype(np.float32)


def paste_back(source: np.ndarray, face: np.ndarray, weight: np.ndarray, transform_23: np.ndarray) -> np.ndarray:
    """One source frame `(H, W, 3)` with the aligned `face` in its place, mixed by `weight`; elsewhere the source's pixels."""
    height, width = source.shape[:2]
    size, back = (width, height), cv2.WARP_INVERSE_MAP
    placed = cv2.warpAffine(face, transform_23, size, flags=cv2.INTER_CUBIC | back, borderMode=cv2.BORDER_REPLICATE)
    mix = cv2.warpAffine(weight, transform_23, size, flags=cv2.INTER_LINEAR | back)[..., None]
    return np.rint(source * (1 - mix) + placed * mix).clip(0, 255).astype(np.uint8)


def film(clip: Clip, generated_THW3: np.ndarray, raw: Path, params: RenderParams) -> tuple[bytes, Image.Image]:
    """The mp4, real on the left and generated on the right, and the contact sheet of the two aligned faces."""
    about = json_object(clip.members["json"])
    boxes_T4, transforms = npy_array(clip.members["mask.npy"]), npy_array(clip.members["transform.npy"])
    weights = seam_weights(boxes_T4, about["size"], params.seam)
    sources = video.frames_at(raw / about["source"], about["fps"], about["start"], about["end"])
    both = []
    for source, face, weight, transform_23 in zip(sources, generated_THW3, weights, transforms, strict=True):
        source = source[: source.shape[0] // 2 * 2, : source.shape[1] // 2 * 2]
        both.append(np.concatenate((source, paste_back(source, face, weight, transform_23)), axis=1))
    encoded = video.encode_frames(np.stack(both), about["fps"], params.crf, audio.wav_samples(clip.members["wav"]))
    return encoded, contact_sheet([truth(clip), generated_THW3], params.sheet_columns)
