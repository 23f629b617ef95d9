"""Raw clips to aligned faces: 25 fps by time, 16 kHz mono, a steady square crop whose transform is kept.

The alignment follows Vougioukas et al. (specification in DiffusionVideoEditing, arXiv 2301.04474, §3.3): five points that
speech does not move, averaged over 7 frames, fitted to a canonical face by a similarity transform. The detector, by far the
dearest part of all preprocessing, runs once, here, on the source's own pixels; `landmarks` carries its points over.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from skimage.transform import SimilarityTransform

from data.corpora import corpus_clips
from data.media import audio, video
from data.shardset import Clip, Column, Skipped, json_bytes, json_object, npy_bytes
from stages.engine import EngineParams, RawSource, map_clips
from stages.faces import fill_gaps, seen
from stages.params import output, section, work
from stages.tracking import FaceTracker

# Base of the nose and the four eye corners (points 33, 36, 45, 39, 42 of the 68-point scheme) in the 478-point mesh, and
# where they stand in the canonical face, in units of the distance between the outer eye corners, from between the eyes.
STABLE_POINTS = (2, 33, 263, 133, 362)
CANONICAL_FACE = np.array([(0.0, 0.592), (-0.5, -0.01), (0.5, -0.01), (-0.216, 0.01), (0.216, 0.01)])


@dataclass(frozen=True)
class AlignParams:
    """`align` in params.yaml."""

    fps: int  # frames per second of everything downstream; 25 in all four papers
    size: int  # width and height of the aligned face, pixels
    sample_rate: int  # of the sound, Hz
    smoothing: int  # frames over which the stable points are averaged, centred (7 in the release of Vougioukas et al.)
    eye_distance: float  # between the outer eye corners, in widths of the crop
    eye_height: float  # of the eyes below the crop's upper edge, in heights of the crop
    min_frames: int  # a shorter clip is left out
    max_missing: float  # share of frames without a face above which a clip is left out
    max_two_faces: float  # share of frames with a second face above which a clip is left out
    crf: int  # x264 quality of the aligned video, 0 (lossless) to 51
    clips_per_shard: int  # clips in one shard, here and in every stage downstream


def align_clip(clip: Clip, params: AlignParams) -> Column | Skipped:
    """One source clip to its aligned video, sound, transforms and source landmarks."""
    source = json_object(clip.members["json"])
    path, start, end = Path(source["path"]), source["start"], source["end"]
    try:
        sound = audio.samples_at(path, params.sample_rate, start, end)
        frames, tracker = [], FaceTracker()
        for frame in video.frames_at(path, params.fps, start, end):
            tracker.see(frame)
            frames.append(frame)
    except video.NoStream as error:
        return Skipped(str(error), source["source"])
    except video.MediaError as error:
        return Skipped("unreadable file", f"{source['source']}: {error.strerror}")
    if len(frames) < params.min_frames:
        return Skipped("too short", f"{len(frames)} frames, {params.min_frames} wanted")

    landmarks_TP3 = tracker.landmarks()
    found_T = seen(landmarks_TP3)
    if found_T.mean() < 1 - params.max_missing or not found_T.any():
        return Skipped("no face", f"in {(~found_T).sum()} of {len(frames)} frames")
    if tracker.frames_with_two > params.max_two_faces * len(frames):
        return Skipped("two faces", f"in {tracker.frames_with_two} of {len(frames)} frames")

    transforms_T23 = crop_transforms(fill_gaps(landmarks_TP3, found_T), params)
    aligned = np.stack([warp(frame, matrix, params.size) for frame, matrix in zip(frames, transforms_T23, strict=True)])
    about = {key: value for key, value in source.items() if key != "path"} | {
        "fps": params.fps,
        "size": params.size,
        "frames": len(frames),
        "frames_without_face": int((~found_T).sum()),
        "source_height": frames[0].shape[0],
        "source_width": frames[0].shape[1],
    }
    samples = audio.fit_length(sound, len(frames) * params.sample_rate // params.fps)
    return {
        "mp4": video.encode_frames(aligned, params.fps, params.crf),
        "wav": audio.wav_bytes(samples, params.sample_rate),
        "json": json_bytes(about),
        "transform.npy": npy_bytes(transforms_T23),
        "source_landmarks.npy": npy_bytes(landmarks_TP3),
    }


def crop_transforms(landmarks_TP3: np.ndarray, params: AlignParams) -> np.ndarray:
    """`(T, 2, 3)` float32 similarity transforms, source pixels to aligned pixels, from the smoothed stable points."""
    stable_T52 = landmarks_TP3[:, STABLE_POINTS, :2].astype(np.float64)
    half = params.smoothing // 2
    padded = np.pad(stable_T52, ((half, half), (0, 0), (0, 0)), mode="edge")
    smooth_T52 = np.mean([padded[i : i + len(stable_T52)] for i in range(2 * half + 1)], axis=0)
    canonical_52 = params.size * (CANONICAL_FACE * params.eye_distance + (0.5, params.eye_height)) - 0.5
    return np.stack([SimilarityTransform.from_estimate(points, canonical_52).params[:2] for points in smooth_T52]).astype(
        np.float32
    )


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


def run(corpus: str) -> None:
    params = section("align", AlignParams)
    source = RawSource(corpus_clips(corpus, output("download", corpus)), params.clips_per_shard)
    map_clips(
        "align",
        align_clip,
        params,
        source,
        output("align", corpus),
        work("align", corpus),
        section("engine", EngineParams),
    )
