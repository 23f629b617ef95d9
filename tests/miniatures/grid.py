"""GRID in small, as Zenodo and as Sheffield deliver it: MPEG-1 pictures of 360 × 288 at 25 fps, MP2 sound of 44.1 kHz, stereo.

The encoders are those of the corpus (mpeg1video, mp2); a clip has 75 frames, and 131,328 samples of sound, 22 ms less.
"""

import zipfile
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

from data.corpora import grid
from tests.media import RATE, voice
from tests.miniatures.formats import Format, talker, write_film

FORMAT = Format("mpeg", "mpeg1video", "mp2", Fraction(25), RATE, "stereo", bit_rate=1_000_000, sound_bit_rate=224_000)
SAMPLES = 131_328

# Of speaker 1, clips of each list of data/splits/grid_s1.yaml; of others, one of each list of grid.yaml. The alignments of
# s11 stand in the folder of s10, as on Zenodo; those of s10 in that of s13.
CLIPS = {
    "s1": ("bbaf2n", "bbal8p", "bbaf3s", "bbaf4p", "bbif1a", "bbir8p"),
    "s9": ("bbae4n", "bbae5s"),
    "s10": ("bbab8n", "bbab9s"),
    "s11": ("bbae2n", "bbae3s"),
}
ALIGNED_IN = {"s1": "s1", "s9": "s9", "s10": "s13", "s11": "s10"}


def alignment(name: str) -> str:
    """An `.align` file like those of the corpus: silence, six words, silence; 1/25000 s."""
    bounds = [0, 23750, 29500, 34000, 35500, 41000, 47250, 53000, 74500]
    said = ["sil", *grid.sentence(name).split(), "sil"]
    return "".join(f"{start} {end} {word}\n" for start, end, word in zip(bounds[:-1], bounds[1:], said, strict=True))


@cache
def film(folder: Path, frames: int = grid.FRAMES) -> bytes:
    path = write_film(
        folder / f"{frames}.mpg", FORMAT, talker(3.0, Fraction(25), 360, 288, scale=0.8)[:frames], voice(3.0)[:SAMPLES]
    )
    data = path.read_bytes()
    path.unlink()
    return data


def write_native(raw: Path, clips: dict[str, Sequence[str]] = CLIPS) -> Path:
    """What stands in `data/raw/grid` after the download."""
    for speaker, names in clips.items():
        for name in names:
            _write(raw / speaker / f"{name}.mpg", film(raw))
            _write(raw / "alignments" / ALIGNED_IN[speaker] / f"{name}.align", alignment(name).encode())
    return raw


def write_zenodo(folder: Path, clips: dict[str, Sequence[str]] = CLIPS) -> Path:
    """`s1.zip`, … and `alignments.zip`, with what a Mac leaves in archives."""
    folder.mkdir(parents=True, exist_ok=True)
    for speaker, names in clips.items():
        with zipfile.ZipFile(folder / f"{speaker}.zip", "w") as archive:
            archive.writestr(f"{speaker}/.DS_Store", b"\0\0\0\1Bud1")
            for name in names:
                archive.writestr(f"{speaker}/{name}.mpg", film(folder))
                archive.writestr(f"__MACOSX/{speaker}/._{name}.mpg", b"\0\5\x16\7")
    with zipfile.ZipFile(folder / "alignments.zip", "w") as archive:
        for speaker, names in clips.items():
            for name in names:
                archive.writestr(f"alignments/{ALIGNED_IN[speaker]}/{name}.align", alignment(name))
                archive.writestr(f"__MACOSX/alignments/{ALIGNED_IN[speaker]}/._{name}.align", b"\0\5\x16\7")
    return folder


def write_sheffield(raw: Path, speaker: str, names: Sequence[str]) -> Path:
    """What `s1.mpg_6000.part1.tar` and the tar of alignments leave when they are unpacked into one folder."""
    for name in names:
        _write(raw / speaker / "video" / "mpg_6000" / f"{name}.mpg", film(raw))
        _write(raw / speaker / "align" / f"{name}.align", alignment(name).encode())
    return raw


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
