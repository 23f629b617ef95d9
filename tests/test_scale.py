"""A thousand clips through every data stage: on two processes of one machine, and on a Ray cluster that loses a node midway."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from tests.media import astronaut, voice
from tests.miniatures.formats import Format, talker, write_film
from tests.project import change_params, environment, make_wheel, sha256, tiny_project

pytestmark = pytest.mark.slow

SECONDS = 5.0  # of a film
CLIP_S = 0.56  # of a clip: 14 frames
STEP_S = 0.05  # from the start of a clip to that of the next
GIB = 2**30

NTSC = Fraction(30000, 1001)
FORMATS = {  # of the films, each with a width and height and the scale of the face in it
    "grid": (Format("mpeg", "mpeg1video", "mp2", Fraction(25), 44_100, bit_rate=1_500_000), (360, 288), 0.8),
    "flash": (Format("flv", "flv", "libmp3lame", NTSC, 44_100, bit_rate=1_500_000), (480, 360), 1.0),
    "webcam": (Format("mp4", "libx264", "aac", NTSC, 44_100), (320, 360), 1.0),
    "phone": (Format("mov", "libx265", "aac", Fraction(30), 48_000, options={"x265-params": "log-level=none"}), (320, 360), 0.9),
    "television": (Format("mpegts", "mpeg2video", "ac3", Fraction(25), 48_000, bit_rate=3_000_000), (352, 288), 0.75),
    "cinema": (Format("matroska", "libx264", "mp2", Fraction(24000, 1001), 44_100), (400, 360), 1.0),
    "web": (Format("webm", "libvpx-vp9", "libopus", Fraction(30), 48_000, options={"cpu-used": "8"}), (320, 320), 0.85),
    "oldweb": (Format("webm", "libvpx", "libopus", Fraction(25), 48_000, bit_rate=2_000_000), (320, 320), 0.9),
    "camcorder": (Format("avi", "mjpeg", "pcm_s16le", Fraction(25), 44_100, pixels="yuvj420p"), (320, 360), 0.95),
    "divx": (Format("avi", "mpeg4", "libmp3lame", Fraction(25), 44_100, bit_rate=2_000_000), (384, 320), 0.85),
    "sports": (Format("mp4", "libx264", "aac", Fraction(60000, 1001), 44_100), (320, 360), 0.8),
    "windows": (
        Format("asf", "wmv2", "wmav2", Fraction(25), 44_100, bit_rate=2_000_000, sound_bit_rate=128_000),
        (320, 360),
        1.0,
    ),
}
EACH = 80  # clips of each of these films
FEW = 8  # clips of each film that cannot be used
TROUBLE = {"damaged": "unreadable file", "mute": "no audio stream", "empty": "no face", "couple": "two faces"}
SHORT, KNOWN = 4, 4  # clips that begin too late, and that the manifest knows to be bad


def films(folder: Path) -> Iterator[Path]:
    """A dozen films of a talking face, no two alike, and one for each trouble."""
    sound = voice(SECONDS)
    for name, (form, (width, height), scale) in FORMATS.items():
        yield write_film(folder / f"{name}.{form.container}", form, talker(SECONDS, form.fps, width, height, scale), sound)
    plain = FORMATS["webcam"][0]
    times = np.arange(round(SECONDS * plain.fps)) / float(plain.fps)
    whole = write_film(folder / "damaged.mp4", plain, talker(SECONDS, plain.fps, 320, 360), sound)
    os.truncate(whole, whole.stat().st_size // 2)
    yield whole
    yield write_film(folder / "mute.mp4", plain, talker(SECONDS, plain.fps, 320, 360), None)
    yield write_film(folder / "empty.mp4", plain, [np.full((360, 320, 3), 90, np.uint8)] * len(times), sound)
    yield write_film(folder / "couple.mp4", plain, [astronaut(time, faces=2) for time in times], sound)


def clip(file: str, number: int, start: float) -> dict[str, object]:
    return {"key": f"{Path(file).stem}/{number:03d}", "file": file, "start": round(start, 3), "end": round(start + CLIP_S, 3)}


def make_project(folder: Path) -> Path:
    """A tiny project whose corpus has a thousand clips; each goes through every stage, as all of them know a portrait."""
    tiny_project(folder)
    packages = folder / ".packages"
    media = {file.name: file.read_bytes() for file in films(folder / ".films")}
    wheel = make_wheel(packages, {f"tinymedia/{name}": data for name, data in media.items()})
    members = [{"member": f"tinymedia/{name}", "file": name, "sha256": sha256(data)} for name, data in media.items()]
    clips = []
    for file in media:
        usable = Path(file).stem in FORMATS
        clips += [clip(file, number, STEP_S * number) for number in range(EACH if usable else FEW)]
    first = next(iter(media))
    clips += [clip(first, 900 + number, SECONDS - 0.2) for number in range(SHORT)]
    clips += [clip(first, 950 + number, 0) for number in range(KNOWN)]
    assert len(clips) == 1000
    manifest = {
        "about": "a thousand clips made by a test",
        "licence": {"name": "made by a test", "page": "https://example.org"},
        "crop": "portrait",
        "sources": [{"package": "tinymedia==1.0", "sha256": sha256(wheel.read_bytes()), "members": members}],
        "settings": {"clips": clips},
        "known_bad": {f"{950 + number}": "the test says so" for number in range(KNOWN)},
    }
    (folder / "data/manifests/sample.yaml").write_text(yaml.safe_dump(manifest))
    patterns = [f"{Path(file).stem}/*" for file in media]
    splits = {"train": patterns[2:], "val": [patterns[0]], "test": [patterns[1]]}
    (folder / "data/splits/sample.yaml").write_text(yaml.safe_dump(splits))
    # Smaller and tighter than a real one, and a second face is refused as in the other crops.
    crops = yaml.safe_load((folder / "params.yaml").read_text())["align"]["crops"]
    crops["portrait"] |= {"size": 160, "eye_distance": 0.35, "max_two_faces": 0.1}
    change_params(folder, align={"crops": crops})
    return folder


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("untouched"))


@dataclass
class Repro:
    """What a `dvc repro` said, and the most memory that any of its processes held, bytes."""

    said: str
    peak: int


def reproduce(folder: Path, cluster_address: str | None = None, meanwhile: Callable[[], None] = lambda: None) -> Repro:
    """All data stages of the project, DVC and all, watched; `meanwhile` is called over and over."""
    variables = environment(folder) | ({"RAY_ADDRESS": cluster_address} if cluster_address else {})
    peak = 0
    with (folder / ".said").open("w") as said:
        command = ["dvc", "repro", "verify@sample"]
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=said, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                for child in psutil.Process().children(recursive=True):
                    with suppress(psutil.Error):
                        peak = max(peak, child.memory_info().rss)
                meanwhile()
                time.sleep(0.2)
        finally:
            process.kill()
    assert process.returncode == 0, (folder / ".said").read_text()
    return Repro((folder / ".said").read_text(), peak)


def shards(folder: Path) -> dict[str, str]:
    """sha256 of every shard, by stage or split and name, whatever the parts they were made in."""
    found = {}
    for file in sorted((folder / "data").glob("*/sample/*/*.tar")):
        place = file.parent.name if file.parts[-4] == "shards" else ""
        found[f"{file.parts[-4]}/{place}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def made_here(untouched, tmp_path_factory) -> tuple[Path, Repro]:
    folder = tmp_path_factory.mktemp("here") / "project"
    shutil.copytree(untouched, folder)
    change_params(folder, engine={"workers": 2})
    return folder, reproduce(folder)


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "data/verified/sample/report.json").read_text())


def test_a_thousand_clips_pass_in_bounded_memory(made_here):
    _, repro = made_here
    for stage in ("align", "landmarks", "masks", "meshes", "parsing", "spectrograms", "speech"):
        assert re.search(rf"^{stage}: \d+ clips in, 9[56]\d out", repro.said, re.MULTILINE), f"{stage} did nothing"
    assert repro.peak <= 2 * GIB


def test_the_totals_balance_and_each_trouble_is_told(made_here):
    folder, _ = made_here
    told = report(folder)
    left_out = {row["reason"]: row["clips"] for row in told["left_out"]}
    assert left_out == dict.fromkeys(TROUBLE.values(), FEW) | {"too short": SHORT, "known to be bad": KNOWN}
    assert told["clips"] == 1000
    assert sum(told["used"].values()) + sum(left_out.values()) == 1000
    assert told["used"] == {"train": EACH * (len(FORMATS) - 2), "val": EACH, "test": EACH}


def test_a_cluster_that_loses_a_node_midway_makes_the_same_bytes(untouched, made_here, tmp_path):
    pytest.importorskip("stages.engine.cluster", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    folder = tmp_path / "project"
    shutil.copytree(untouched, folder)
    change_params(folder, engine={"executor": "ray"})
    params = yaml.safe_load((folder / "params.yaml").read_text()) | {"parts": [0, 1]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1)]

    def lose_a_node() -> None:
        """Once, when a tenth of the clips is aligned; another takes its place."""
        if len(nodes) == 1 and len(list(folder.glob("data/.work/align/sample/0/records/*.json"))) > 25:
            cluster.remove_node(nodes[0], allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))

    try:
        repro = reproduce(folder, cluster.address, lose_a_node)
    finally:
        cluster.shutdown()
    assert len(nodes) == 2, "no node was lost"
    assert shards(folder) == shards(made_here[0])
    assert len(shards(folder)) > 8 * 200
    assert report(folder) == report(made_here[0])
    assert repro.peak <= 2 * GIB
