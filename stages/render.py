"""Generated faces back into the video they came from: an mp4 with the driving sound beside the real one, and a contact sheet."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.files import in_place
from data.media import audio, video
from data.shardset import Clip, ShardSet, json_object, npy_array
from stages.evaluate import comparison_sheet
from stages.metrics.image import box_mask
from stages.params import output, section, system_params


@dataclass(frozen=True)
class RenderParams:
    """`render` in params.yaml."""

    seam: int  # aligned pixels over which the generated face fades into the real one, inside the mask
    crf: int  # x264 quality of the rendered video, 0 (lossless) to 51
    sheet_columns: int  # moments of each clip on the contact sheet


def seam_weights(boxes_T4: np.ndarray, size: int, seam: int) -> np.ndarray:
    """`(T, size, size)` float32: 0 outside the mask, rising to 1 over `seam` pixels inside it."""
    mask_THW = box_mask(boxes_T4, size, size).astype(np.uint8)
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


def render_clip(clip: Clip, generated_THW3: np.ndarray, raw: Path, params: RenderParams) -> tuple[bytes, Image.Image]:
    """The mp4, real on the left and generated on the right, and the contact sheet of the two aligned faces."""
    about = json_object(clip.members["json"])
    boxes_T4, transforms = npy_array(clip.members["mask.npy"]), npy_array(clip.members["transform.npy"])
    weights = seam_weights(boxes_T4, about["size"], params.seam)
    sources = video.frames_at(raw / about["source"], about["fps"], about["start"], about["end"])
    both = []
    for source, face, weight, transform_23 in zip(sources, generated_THW3, weights, transforms, strict=True):
        source = source[: source.shape[0] // 2 * 2, : source.shape[1] // 2 * 2]
        both.append(np.concatenate((source, paste_back(source, face, weight, transform_23)), axis=1))
    film = video.encode_frames(np.stack(both), about["fps"], params.crf, audio.wav_samples(clip.members["wav"]))
    return film, comparison_sheet([video.decode_frames(clip.members["mp4"]), generated_THW3], params.sheet_columns)


def run(system: str) -> None:
    corpus = system_params(system).corpus
    params = section("render", RenderParams)
    generated = {clip.key: clip for clip in ShardSet(output("generated", system)).clips()}
    with in_place(output("renders", system)) as out:
        for clip in ShardSet(output("shards", corpus) / "test").clips():
            frames = npy_array(generated[clip.key].members["generated.npy"])
            film, sheet = render_clip(clip, frames, output("download", corpus), params)
            name = clip.key.replace("/", "_")
            (out / f"{name}.mp4").write_bytes(film)
            sheet.save(out / f"{name}.png")
