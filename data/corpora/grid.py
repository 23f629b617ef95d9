"""GRID (Cooke et al. 2006): 1,000 sentences of six words by each of 34 speakers, 33 of them filmed.

    s1/bbaf2n.mpg  or  s1/video/mpg_6000/bbaf2n.mpg            as Zenodo, or Sheffield's server, delivers it
    alignments/s1/bbaf2n.align  or  s1/align/bbaf2n.align      when each word is said

A clip's name spells its sentence, and no two clips of the corpus have one name.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.corpora import Refused, UnsafeFile, safe_key, source_clip
from data.manifest import Manifest
from data.media.video import MediaError, Unusable, opened, stream_of
from data.shardset import Clip

NAME = re.compile(r"[blps][bgrw][abiw][a-vxyz][1-9z][anps]")  # held against the 33,000 names of the corpus
SPEAKER = re.compile(r"s[1-9][0-9]?")
COMMANDS = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
PREPOSITIONS = {"a": "at", "b": "by", "i": "in", "w": "with"}
DIGITS = dict(zip("z123456789", ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], strict=True))
ADVERBS = {"a": "again", "n": "now", "p": "please", "s": "soon"}

FRAMES = 75  # of each clip, 25 a second
UNITS = 25_000  # of an alignment, in a second: 1,000 a frame
SILENCE = ("sil", "sp")
MIN_ALIGNED = 0.9  # share of a speaker's clips of which there must be an alignment


class NoAlignments(ValueError):
    """Too few of a speaker's clips have word times."""


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip | Refused]:
    """Every film in `raw`, of all speakers or those of the manifest's `speakers`, with its sentence and its word times.

    An alignment is found by the clip's name in whatever folder it stands: those of Zenodo's `alignments.zip` are mixed up (for
    s11, s12 and s15 none of 1,000 fits). Raises NoAlignments, and ValueError if a clip stands there twice.
    """
    speakers = manifest.settings.get("speakers")
    films: dict[str, str] = {}
    for path in _native(raw, "*.mpg"):
        file = str(path.relative_to(raw))
        speaker = next(filter(SPEAKER.fullmatch, path.relative_to(raw).parts), None)
        if speakers and speaker not in speakers:
            continue
        if speaker is None or not NAME.fullmatch(path.stem):
            yield Refused(safe_key(speaker or "unknown", file), "no name of GRID", f"{file!a} is not like s1/bbaf2n.mpg")
            continue
        key = safe_key(speaker, path.stem)
        if key in films:
            raise ValueError(
                f"{manifest.corpus}: {key} stands twice in {raw}, as {films[key]} and {file}: leave one of them there"
            )
        films[key] = file

    alignments: dict[str, list[Path]] = defaultdict(list)
    for path in _native(raw, "*.align"):
        alignments[path.stem].append(path)
    _require_alignments(films, alignments, raw)
    for key, file in films.items():
        yield _clip(key, raw, file, alignments[key.partition("/")[2]])


def sentence(name: str) -> str:
    """The six words that a clip's name spells: "bbaf2n" is "bin blue at f two now"."""
    command, colour, preposition, letter, digit, adverb = list(name)
    words = COMMANDS[command], COLOURS[colour], PREPOSITIONS[preposition], letter, DIGITS[digit], ADVERBS[adverb]
    return " ".join(words)


def words(alignment: str) -> list[dict[str, Any]]:
    """The words of an `.align` file, with their start and end in seconds; silence is no word. ValueError if it has no such."""
    lines = [line.split() for line in alignment.splitlines() if line.strip()]
    said = [(word, int(start) / UNITS, int(end) / UNITS) for start, end, word in lines]
    if not said or any(not 0 <= start <= end for _, start, end in said):
        raise ValueError("times that are none")
    return [{"word": word, "start": start, "end": end} for word, start, end in said if word not in SILENCE]


def _native(raw: Path, pattern: str) -> Iterator[Path]:
    """Files of the corpus, without what a Mac left in its archives: `__MACOSX/s1/._bbaf2n.mpg`."""
    for path in sorted(raw.rglob(pattern)):
        if not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(raw).parts):
            yield path


def _require_alignments(films: dict[str, str], alignments: dict[str, list[Path]], raw: Path) -> None:
    names_of: dict[str, list[str]] = defaultdict(list)
    for key in films:
        speaker, _, name = key.partition("/")
        names_of[speaker].append(name)
    for speaker, names in names_of.items():
        aligned = sum(name in alignments for name in names)
        if aligned < MIN_ALIGNED * len(names):
            raise NoAlignments(
                f"{raw}: {aligned} of the {len(names)} clips of {speaker} have an alignment of their name, and {MIN_ALIGNED:.0%} "
                "should. Put the alignments of all speakers there (alignments.zip, unpacked), in whatever folders."
            )


def _clip(key: str, raw: Path, file: str, alignments: list[Path]) -> Clip | Refused:
    about: dict[str, Any] = {"transcript": sentence(key.partition("/")[2])}
    texts = {path.read_bytes() for path in alignments}
    if len(texts) == 1:
        try:
            about["words"] = words(texts.pop().decode())
        except ValueError as error:
            return Refused(key, "unreadable alignment", f"{str(alignments[0].relative_to(raw))!a}: {error}")
    try:
        pictures = _pictures(raw / file)
        if pictures != FRAMES:
            return Refused(key, "not 75 frames", f"{file!a} has {pictures}")
        return source_clip(key, raw, file, **about)
    except UnsafeFile:
        return Refused(key, "unsafe file", f"{file!a} leads outside of {raw}: put the film itself there")
    except UnicodeEncodeError:
        return Refused(key, "unsafe file", f"the name {file!a} is not UTF-8: rename its folder")
    except Unusable as error:
        return Refused(key, error.reason, f"{file!a}: {error.detail}")
    except MediaError as error:
        return Refused(key, "unreadable file", f"{file!a}: {error.strerror}")


def _pictures(path: Path) -> int:
    """How many pictures a film holds; counted and not decoded, which is four times faster."""
    with opened(path) as container:
        return sum(packet.size > 0 for packet in container.demux(stream_of(container, "video")))
