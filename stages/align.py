"""Raw clips to aligned faces: 25 fps by time, 16 kHz mono, a square crop whose transform is kept.

A crop moves with the face or stands still. The moving one follows Vougioukas et al. (specification in DiffusionVideoEditing,
arXiv 2301.04474, §3.3): five points that speech does not move, averaged over 7 frames, fitted to a canonical face by a
similarity transform. A still one is the box that the corpus gives (HDTF), or the same fit to where the face is on average in the
whole film, so that all clips of one film show one background. The detector, by far the dearest part of all preprocessing, runs
once, here, on the source's own pixels; `landmarks` carries its points over.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.transform import SimilarityTransform

from data.media import audio, video
from data.mesh import STABLE_POINTS
from data.shardset import Clip, Column, Skipped, json_bytes, json_object, npy_bytes
from stages.catalogue import read_catalogue
from stages.engine import EngineParams, RawSource, map_clips
from stages.faces import carried, fill_gaps, seen, smooth
from stages.motion import MotionParams, align_motion
from stages.params import output, parts, section, work
from stages.tracking import FaceTracker

# Where the stable points stand in the canonical face, in units of the distance between the outer eye corners, from between
# the eyes.
CANONICAL_FACE = np.array([(0.0, 0.592), (-0.5, -0.01), (0.5, -0.01), (-0.216, 0.01), (0.216, 0.01)])

GLIMPSES = 25  # moments of a film at which its face is looked for, to place a still crop
FILM_S = 60.0  # seconds over which they are spread where the film's header does not tell its length

# Source frames are kept from finding the faces to cropping them; those of a longer clip are decoded twice instead, with the
# same bytes coming out: a minute of 1080p is 9 GB.
KEPT_BYTES = 2**29

ONLY_HERE = ("path", "beside")  # of a clip's json: where its files are on this machine


@dataclass(frozen=True)
class Crop:
    """`align.crops.<name>` in params.yaml, one of which each corpus names in its manifest."""

    size: int  # width and height, pixels; even, as h264 needs it
    eye_distance: float  # between the outer eye corners, in widths of the crop
    eye_height: float  # of the eyes below the crop's upper edge, in heights of the crop
    smoothing: int  # frames over which the stable points are averaged, centred; 0 for a still crop
    upright: bool  # whether the crop turns with the head, so that the eyes are level
    max_two_faces: float  # share of frames with a second face above which a clip is left out; at 1 the larger face is taken


@dataclass(frozen=True)
class AlignParams:
    """`align` in params.yaml."""

    fps: int  # frames per second of everything downstream; 25 in all four papers
    sample_rate: int  # of the sound, Hz
    min_frames: int  # a shorter clip is left out
    max_missing: float  # share of frames without a face, or with it outside of a still crop, above which a clip is left out
    crf: int  # x264 quality of the aligned video, 0 (lossless) to 51
    clips_per_shard: int  # clips in one shard, here and in every stage downstream
    crops: dict[str, Crop]


def align_clip(clip: Clip, params: AlignParams) -> Column | Skipped:
    """One source clip to its aligned video, sound, transforms and source landmarks, in the crop that its json names."""
    source = json_object(clip.members["json"])
    crop = params.crops.get(source["crop"])
    if crop is None:
        raise ValueError(f"align.crops in params.yaml has no {source['crop']}, which the manifest of this corpus names: add it")
    try:
        return _align(source, crop, params)
    except video.Unusable as error:
        return Skipped(error.reason, ": ".join(filter(None, (source["source"], error.detail))))
    except video.MediaError as error:
        return Skipped("unreadable file", f"{source['source']}: {error.strerror}")


def _align(source: dict[str, Any], crop: Crop, params: AlignParams) -> Column | Skipped:
    stretch = Path(source["path"]), params.fps, source["start"], source["end"]
    sound = audio.samples_at(Path(source["path"]), params.sample_rate, source["start"], source["end"])
    tracker, kept, kept_bytes = FaceTracker(), [], 0
    for frame in video.frames_at(*stretch):
        tracker.see(frame)
        kept_bytes += frame.nbytes
        if kept_bytes <= KEPT_BYTES:
            kept.append(frame)
        else:
            kept.clear()
    count = tracker.frames
    if count < params.min_frames:
        return Skipped("too short", f"{count} frames, {params.min_frames} wanted")

    landmarks_TP3 = tracker.landmarks(source.get("box"))
    found_T = seen(landmarks_TP3)
    if found_T.mean() < 1 - params.max_missing or not found_T.any():
        return Skipped("no face", f"in {(~found_T).sum()} of {count} frames")
    if tracker.frames_with_two > crop.max_two_faces * count:
        return Skipped("two faces", f"in {tracker.frames_with_two} of {count} frames")

    filled_TP3 = fill_gaps(landmarks_TP3, found_T)
    transforms_T23 = moving_transforms(filled_TP3, crop) if crop.smoothing else still_transforms(count, source, crop)
    centres_T2 = carried(filled_TP3, transforms_T23)[..., :2].mean(axis=1)
    outside_T = (centres_T2 < 0).any(axis=1) | (centres_T2 > crop.size).any(axis=1)
    if outside_T.mean() > params.max_missing:
        return Skipped("face outside of the crop", f"in {outside_T.sum()} of {count} frames")

    frames = kept if kept_bytes <= KEPT_BYTES else video.frames_at(*stretch)
    aligned = (warp(frame, matrix, crop.size) for frame, matrix in zip(frames, transforms_T23, strict=True))
    about = {key: value for key, value in source.items() if key not in ONLY_HERE} | {
        "fps": params.fps,
        "size": crop.size,
        "frames": count,
        "frames_without_face": int((~found_T).sum()),
        "sound_length_difference_s": round(len(sound) / params.sample_rate - count / params.fps, 4),
        "source_height": frame.shape[0],
        "source_width": frame.shape[1],
    }
    samples = audio.fit_length(sound, count * params.sample_rate // params.fps)
    return {
        "mp4": video.encode_frames(aligned, params.fps, params.crf),
        "wav": audio.wav_bytes(samples, params.sample_rate),
        "json": json_bytes(about),
        "transform.npy": npy_bytes(transforms_T23),
        "source_landmarks.npy": npy_bytes(landmarks_TP3),
    }


def moving_transforms(landmarks_TP3: np.ndarray, crop: Crop) -> np.ndarray:
    """`(T, 2, 3)` float32 similarity transforms, source pixels to aligned pixels, from the smoothed stable points."""
    stable_T52 = smooth(landmarks_TP3[:, STABLE_POINTS, :2].astype(np.float64), crop.smoothing)
    return np.stack([fit(points_52, crop) for points_52 in stable_T52])


def still_transforms(count: int, source: dict[str, Any], crop: Crop) -> np.ndarray:
    """`(T, 2, 3)` float32, `count` times one transform: the clip's box, or where the face is in its film."""
    if "box" in source:
        x, y, width, height = source["box"]
        scale = crop.size / max(width, height)
        centre = np.array((x + width / 2, y + height / 2)) - 0.5
        transform_23 = np.column_stack((scale * np.eye(2), crop.size / 2 - 0.5 - scale * centre)).astype(np.float32)
    else:
        transform_23 = fit(film_points(source["path"], source["sha256"]), crop)
    return np.repeat(transform_23[None], count, axis=0)


def fit(points_52: np.ndarray, crop: Crop) -> np.ndarray:
    """`(2, 3)` float32: the similarity transform that brings the stable points nearest to where the crop wants them."""
    canonical_52 = crop.size * (CANONICAL_FACE * crop.eye_distance + (0.5, crop.eye_height)) - 0.5
    fitted = SimilarityTransform.from_estimate(points_52, canonical_52)
    if crop.upright:
        return fitted.params[:2].astype(np.float32)
    shift_2 = canonical_52.mean(axis=0) - fitted.scale * points_52.mean(axis=0)
    return np.column_stack((fitted.scale * np.eye(2), shift_2)).astype(np.float32)


@lru_cache(maxsize=8)
def film_points(path: str, sha256: str) -> np.ndarray:
    """`(5, 2)` the stable points of a film's largest face, in source pixels: medians over moments spread over all of it.

    The file's sha256 is its name in the cache. Raises `Unusable` for a film without a face.
    """
    film, found = Path(path), []
    length = video.duration(film) or FILM_S
    for index in range(GLIMPSES):
        glimpse = next(video.frames_at(film, 1000, length * (index + 0.5) / GLIMPSES), None)
        if glimpse is not None:
            tracker = FaceTracker()
            tracker.see(glimpse)
            found += [points for points in tracker.landmarks() if seen(points[None])[0]]
    if not found:
        raise video.Unusable(film, "no face", f"at {GLIMPSES} moments of the whole film")
    return np.median([points[STABLE_POINTS, :2] for points in found], axis=0)


def warp(frame: np.ndarray, matrix_23: np.ndarray, size: int) -> np.ndarray:
    """The aligned `(size, size, 3)` view of a source frame; what lies outside the source repeats its border."""
    # Shrinking by more than two skips pixels under bilinear sampling: average them first.
    shrink = int(1 / np.hypot(matrix_23[0, 0], matrix_23[1, 0]))
    if shrink > 1:
        height, width = (length // shrink * shrink for length in frame.shape[:2])
        frame = cv2.resize(frame[:height, :width], (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
        to_source = np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]])
        matrix_23 = (matrix_23 @ to_source).astype(np.float32)
    return cv2.warpAffine(frame, matrix_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def run(part: str) -> None:
    corpus, _, name = part.partition("/")
    catalogue, params = read_catalogue(corpus), section("align", AlignParams)
    source = RawSource(catalogue.clips, params.clips_per_shard, catalogue.left_out, (parts().index(name), len(parts())))
    where = source, output("align", part), work("align", part), section("engine", EngineParams)
    if catalogue.crop is None:
        map_clips("align", align_motion, section("motion", MotionParams), *where)
    else:
        map_clips("align", align_clip, params, *where)
