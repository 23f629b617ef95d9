"""CREMA-D in small: FLV, 480 × 360 at 29.97 fps with stamps in milliseconds, MP3 sound of 44.1 kHz, mono.

The corpus's pictures are VP6, which FFmpeg decodes and has no encoder for; FLV's other codec of that age (flv1, Sorenson H.263)
stands in for it.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from tests.media import RATE, voice
from tests.miniatures.formats import Format, talker, write_film

FORMAT = Format("flv", "flv", "libmp3lame", Fraction(30000, 1001), RATE, bit_rate=900_000, sound_bit_rate=64_000)
SECONDS = 1.5

# Of actors of each list of data/splits/cremad.yaml, and one film that is known to be bad.
CLIPS = (
    *("1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1002_TIE_SAD_XX", "1004_WSI_NEU_XX"),
    *("1003_ITH_FEA_XX", "1015_IEO_DIS_LO", "1020_TSI_NEU_XX", "1076_MTI_SAD_XX"),
)
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:10dc3fd1f2bc8203657431598bd7dc9312462008f93d08fda786043ae6a8d2f4\nsize 265922\n"
)


def write_native(raw: Path, names: Sequence[str] = CLIPS) -> Path:
    """What stands in `data/raw/cremad` after the download."""
    write_films(raw / "VideoFlash", names)
    return raw


def write_films(folder: Path, names: Sequence[str] = CLIPS) -> Path:
    """The films as they are served, one by one."""
    path = write_film(folder / "film.flv", FORMAT, talker(SECONDS, FORMAT.fps, 480, 360), voice(SECONDS))
    data = path.read_bytes()
    path.unlink()
    for name in names:
        (folder / f"{name}.flv").write_bytes(data)
    return folder


def listing(folder: Path) -> str:
    """Of a folder of films, what data/manifests/cremad.txt is of the corpus."""
    files = sorted(folder.glob("*.flv"))
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_size} {file.name}\n" for file in files)
