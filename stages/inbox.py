"""New films, dropped into a folder, taken into the corpora that they are of; from there DVC sees that something is new.

    <inbox>/anna/kitchen.mov        of the person for whom the corpus `anna` is named
    <inbox>/crowd/bob/porch.mp4     of bob, in the corpus `crowd`

What a film becomes is data/raw/<corpus>/<speaker>/z<time of its arrival>-<its name>. A corpus of the kind `person` is divided in
the order of names: the newest film is last, so that what is held out comes after all that a champion was ever trained on.
"""

import filecmp
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data.corpora.person import FILM
from data.files import atomic_file
from data.manifest import corpora, manifest
from stages.params import output, raw_section, work
from stages.person import ADAPTER, CannotLearn, seconds_of

SETTLED_S = 30.0  # for so long a film has not grown: then it is whole


@dataclass(frozen=True)
class Found:
    """A film in the inbox. why_not: why it is left there, "" if it can be taken."""

    film: Path
    corpus: str
    speaker: str
    why_not: str


def look(inbox: Path) -> list[Found]:
    """Every film below `inbox`, in order of paths."""
    return list(_found(inbox)) if inbox.exists() else []


def take(found: list[Found]) -> list[Path]:
    """Moves those that can be taken, each whole or not at all; where they stand now."""
    return [_move(one) for one in found if not one.why_not]


def _found(inbox: Path) -> Iterator[Found]:
    for film in sorted(inbox.rglob("*")):
        inside = film.relative_to(inbox).parts
        if not film.is_file() or not FILM.fullmatch(film.suffix) or any(part.startswith(".") for part in inside):
            continue
        corpus, *speaker = inside[:-1] or ("",)
        why_not = _misplaced(corpus, inside, inbox) or _unfinished(film) or _unreadable(film) or _known(film, corpus)
        yield Found(film, corpus, "/".join(speaker) or corpus, why_not)


def _misplaced(corpus: str, inside: tuple[str, ...], inbox: Path) -> str:
    listed = raw_section("corpora")
    if len(inside) not in (2, 3):
        return f"it is to stand in {inbox}/CORPUS/ or {inbox}/CORPUS/SPEAKER/"
    if corpus not in listed or corpus not in corpora():
        return f"params.yaml names no corpus {corpus} under `corpora`: `talkingface person FILM --name {corpus}` makes one"
    if manifest(corpus).adapter != ADAPTER:
        return f"{corpus} is none of films of your own, so it takes no others"
    return ""


def _unfinished(film: Path) -> str:
    quiet_s = time.time() - film.stat().st_mtime
    return f"it changed {max(quiet_s, 0):.0f} s ago, and may still grow: it is looked at again" if quiet_s < SETTLED_S else ""


def _unreadable(film: Path) -> str:
    try:
        seconds_of(film)
    except CannotLearn as error:
        return str(error)
    return ""


def _known(film: Path, corpus: str) -> str:
    """The same film twice would be tested on what it was trained on; a kill between copy and removal leaves it so, too."""
    for other in sorted(output("download", corpus).rglob("*")):
        if other.is_file() and filecmp.cmp(film, other, shallow=False):
            return f"it is {other} already: remove it"
    return ""


def _move(one: Found) -> Path:
    arrived = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    name = f"z{arrived}-{one.film.name}"
    target, staged = output("download", one.corpus) / one.speaker / name, work("inbox", name)
    for folder in (target.parent, staged.parent):
        folder.mkdir(parents=True, exist_ok=True)
    # By way of a folder that no stage reads, as the inbox may be on another disk.
    with one.film.open("rb") as source, atomic_file(staged) as file:
        shutil.copyfileobj(source, file, 2**20)
    staged.replace(target)
    one.film.unlink()
    return target
