"""CREMA-D (Cao et al. 2014): 91 actors say twelve sentences in six emotions.

VideoFlash/1001_IEO_ANG_HI.flv      actor, sentence, emotion, level
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora import Refused, UnsafeFile, safe_key, source_clip
from data.manifest import Manifest
from data.shardset import Clip

SENTENCES = {
    "DFA": "Don't forget a jacket",
    "IEO": "It's eleven o'clock",
    "IOM": "I'm on my way to the meeting",
    "ITH": "I think I have a doctor's appointment",
    "ITS": "I think I've seen this before",
    "IWL": "I would like a new alarm clock",
    "IWW": "I wonder what this is about",
    "MTI": "Maybe tomorrow it will be cold",
    "TAI": "The airplane is almost full",
    "TIE": "That is exactly what happened",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}  # all but the last with IEO alone
NAME = re.compile(rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_({'|'.join(LEVELS)})")

POINTER = b"version https://git-lfs"  # what Git LFS leaves instead of a file, 130 bytes


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip | Refused]:
    """Every film, with its sentence, emotion and level."""
    for path in sorted((raw / "VideoFlash").glob("*.flv")):
        named = NAME.fullmatch(path.stem)
        if named is None:
            yield Refused(safe_key("unknown", path.stem), "no name of CREMA-D", f"{path.name!a} is not like 1001_IEO_ANG_HI.flv")
            continue
        yield _clip(safe_key(named[1], path.stem), raw, f"VideoFlash/{path.name}", named)


def _clip(key: str, raw: Path, file: str, named: re.Match[str]) -> Clip | Refused:
    try:
        with open(raw / file, "rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                again = f"delete {raw / file} and run the download again, or run `git lfs pull` where it was copied from"
                return Refused(key, "Git LFS pointer instead of a film", again)
        return source_clip(
            key,
            raw,
            file,
            transcript=SENTENCES[named[2]],
            sentence=named[2],
            emotion=EMOTIONS[named[3]],
            level=LEVELS[named[4]],
        )
    except UnsafeFile:
        return Refused(key, "unsafe file", f"{file} leads outside of {raw}: put the film itself there")
    except OSError as error:
        return Refused(key, "unreadable file", f"{file}: {error.strerror}")
