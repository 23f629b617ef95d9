"""LRS3 (Afouras et al. 2018): sentences of TED speakers, faces already cut out at 224 × 224, 25 fps, with 16 kHz sound.

pretrain/<video>/00001.mp4    a sentence; beside it, in 00001.txt, what is said: a transcript, and in most the words' times
trainval/…  test/…            the same; a video, and so a speaker, may be in both of pretrain and trainval
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.corpora import Refused, UnsafeFile, safe_key, source_clip
from data.manifest import Manifest
from data.shardset import Clip

SETS = ("pretrain", "trainval", "test")
HEADER = re.compile(r"(Text|Conf):\s*(.*)")
WORDS = ["WORD", "START", "END"]  # heads of the table of words; files with other tables have them before it


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip | Refused]:
    """Every film of the three sets, with what is said in it where a text tells."""
    for part in SETS:
        for path in sorted((raw / part).glob("*/*.mp4")):
            yield _clip(safe_key(f"{part}-{path.parent.name}", path.stem), raw, path, part)


def text(written: str) -> dict[str, Any]:
    """`transcript`, `confidence` (the corpus's own, of the transcript) and `words` with start and end in seconds, of a text file.

    Raises ValueError for a file without a transcript, or with times that are none.
    """
    lines = [line.strip() for line in written.splitlines()]
    headers = {found[1]: found[2] for line in lines if (found := HEADER.fullmatch(line))}
    if not headers.get("Text"):
        raise ValueError("no line that begins with Text:")
    about: dict[str, Any] = {"transcript": headers["Text"]}
    if headers.get("Conf"):
        about["confidence"] = int(headers["Conf"])
    rows = [line.split() for line in lines]
    table = next((index + 1 for index, row in enumerate(rows) if row[:3] == WORDS), None)
    if table is not None:
        about["words"] = [_word(*row[:3]) for row in rows[table:] if row]
    return about


def _word(word: str, start: str, end: str) -> dict[str, Any]:
    if not 0 <= float(start) <= float(end):  # nor is NaN
        raise ValueError(f"{word} from {start} to {end}")
    return {"word": word, "start": float(start), "end": float(end)}


def _clip(key: str, raw: Path, path: Path, part: str) -> Clip | Refused:
    file, beside = str(path.relative_to(raw)), path.with_suffix(".txt")
    try:
        about = text(beside.read_text()) if beside.exists() else {}
        return source_clip(key, raw, file, set=part, **about)
    except UnsafeFile:
        return Refused(key, "unsafe file", f"{file!a} leads outside of {raw}: put the film itself there")
    except UnicodeEncodeError:
        return Refused(key, "unsafe file", f"the name {file!a} is not UTF-8: rename it")
    except (ValueError, TypeError) as error:
        return Refused(key, "unreadable text", f"{str(beside.relative_to(raw))!a}: {error}")
