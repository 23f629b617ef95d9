"""`make bench`: what preprocessing costs beside bare decoding and the landmark detector alone, and what two workers bring.

Real clips are measured where they are (../shared/media/grid), else a made one; each is repeated under many keys. All figures
are from one run on one machine: compare the ratios, not the seconds.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2

from data.corpora import source_clip
from data.media.video import frames_at
from data.shardset import Clip, ShardSet
from stages.align import align_clip
from stages.engine import EngineParams, JoinedSource, RawSource, map_clips
from stages.landmarks import find_landmarks
from stages.masks import find_masks
from stages.meshes import find_mesh
from stages.parsing import parse
from stages.shards import ShardParams, divide
from stages.spectrograms import find_spectrogram
from stages.speech import find_speech
from stages.tracking import FaceTracker
from tests.media import talking
from tests.stages.params import ALIGN, LANDMARKS, MASKS, MESHES, PARSING, SPECTROGRAMS, SPEECH
from tests.stages.test_columns import MEDIA


def decoding_alone(files: list[Path], repeats: int) -> float:
    """Seconds of wall time to decode the files' pictures to RGB at 25 fps, in one process with one thread."""
    start = time.perf_counter()
    for _ in range(repeats):
        for file in files:
            deque(frames_at(file, ALIGN.fps), maxlen=0)
    return time.perf_counter() - start


def detector_alone(files: list[Path], repeats: int) -> float:
    """Seconds of wall time to find the landmarks of decoded frames in memory, in one process with one thread."""
    cv2.setNumThreads(1)
    clips = [list(frames_at(file, ALIGN.fps)) for file in files]
    FaceTracker().see(clips[0][0])  # the graph is built before the clock starts
    start = time.perf_counter()
    for _ in range(repeats):
        for frames in clips:
            tracker = FaceTracker()
            for frame in frames:
                tracker.see(frame)
    return time.perf_counter() - start


def pipeline(clips: list[Clip], workers: int, folder: Path, crop: str) -> dict[str, float]:
    """Seconds of wall time of each stage, process start and all."""
    engine = EngineParams(workers=workers)
    sets: dict[str, ShardSet] = {}
    seconds = {}
    for stage, function, params, reads in (
        ("align", align_clip, ALIGN, []),
        ("landmarks", find_landmarks, LANDMARKS, ["align"]),
        ("masks", find_masks, MASKS, ["align", "landmarks"]),
        ("meshes", find_mesh, MESHES, ["align", "landmarks"]),
        ("spectrograms", find_spectrogram, SPECTROGRAMS, ["align"]),
        ("speech", find_speech, SPEECH, ["align"]),
        *([("parsing", parse, PARSING, ["align", "landmarks"])] if crop in PARSING.crops else []),
    ):
        source = JoinedSource([sets[name] for name in reads]) if reads else RawSource(clips, ALIGN.clips_per_shard)
        start = time.perf_counter()
        map_clips(stage, function, params, source, folder / stage, folder / "work" / stage, engine)
        seconds[stage] = time.perf_counter() - start
        sets[stage] = ShardSet(folder / stage)
    start = time.perf_counter()
    split_of = {clip.key: "train" for clip in clips}
    divide([JoinedSource(list(sets.values()))], split_of, folder / "shards", ShardParams(64))
    seconds["shards"] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats",
        type=int,
        default=45,
        help="times that each clip is processed: 45 make 315 of seven, a third of a GRID speaker",
    )
    parser.add_argument("--crop", default="face", choices=ALIGN.crops, help="the crop that is measured; a portrait is parsed too")
    repeats, crop = parser.parse_args().repeats, parser.parse_args().crop
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = sorted((MEDIA / "grid").glob("*.mpg")) or [talking(folder / "talker.mp4", seconds=3)]
        clips = [
            source_clip(f"bench/{file.stem}-{i}", file.parent, file.name, crop=crop) for file in files for i in range(repeats)
        ]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            decoding = other.submit(decoding_alone, files, repeats).result()
            alone = other.submit(detector_alone, files, repeats).result()
        print(f"{len(clips)} clips of {len(files)} files, crop {crop}")
        print(f"decoding alone      {len(clips) / decoding:6.2f} clips/s")
        print(f"detector alone      {len(clips) / alone:6.2f} clips/s", flush=True)
        totals = {}
        for workers in (1, 2):
            seconds = pipeline(clips, workers, folder / str(workers), crop)
            totals[workers] = sum(seconds.values())
            parts = ", ".join(f"{stage} {len(clips) / value:.1f}" for stage, value in seconds.items())
            print(
                f"pipeline, {workers} worker{'s' * (workers > 1)} {len(clips) / totals[workers]:7.2f} clips/s   (each: {parts})",
                flush=True,
            )
    print(f"pipeline / detector, 1 worker   {alone / totals[1]:.2f}   (wanted: 0.7)")
    print(f"2 workers / 1 worker            {totals[1] / totals[2]:.2f}   (wanted: 1.7)")


if __name__ == "__main__":
    main()
