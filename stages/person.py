"""A film of somebody to a corpus of that person's, which geneface learns: what `talkingface person` does before the graph runs.

The film is copied to data/raw/<name>/, a manifest of the kind `person` says how it is cut, and params.yaml is pointed at it.
All three are written whole, in this order, so that the same command again goes on after a kill.
"""

import filecmp
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml
from ruamel.yaml import YAML

from data.corpora.person import FILM
from data.files import atomic_file
from data.manifest import HERE, corpora, manifest
from data.media import audio, video
from stages.params import PARAMS, output, raw_section

SYSTEM = "geneface"
LEARNERS = ("pretrain.head", "upon.postnet", f"systems.{SYSTEM}")  # sections of params.yaml whose corpus is the person's
ADAPTER = "person"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")

SHORTEST_FILM = 10.0  # seconds
CLIPS = 15  # of a film, at least, so that 1/22 of it, which validation and test each have, is about a clip
LONGEST_CLIP = 2.0, 8.0  # seconds: of a short film, and of one of minutes (data/manifests/person.yaml)
SHORTEST_CLIP = 3 / 8  # of the longest (likewise)


class CannotLearn(ValueError):
    """A film, or a name, of which no corpus can be made; says what to do."""


@dataclass(frozen=True)
class Person:
    """A corpus of one person's film."""

    corpus: str
    seconds: float  # of film
    before: str  # the corpus that geneface learnt until now; may be the same


def make_corpus(film: Path, name: str | None, crop: str) -> Person:
    """Makes the film the corpus `name` (None: the file's name) that geneface learns. Raises CannotLearn, WrongParams, OSError.

    crop: one of those that the stage `parsing` takes apart. What is there already of the same film is left as it is.
    """
    crops = raw_section("parsing.crops")
    if crop not in crops:
        raise CannotLearn(f"--crop {crop}: it is one of {', '.join(crops)}")
    before = [raw_section(f"{learner}.corpus") for learner in LEARNERS][-1]
    corpus, seconds = corpus_name(film, name), examined(film)
    place(film, corpus, crop)
    path = HERE / "manifests" / f"{corpus}.yaml"
    if not path.exists():
        with atomic_file(path) as file:
            file.write(manifest_of(corpus, crop, seconds).encode())
    learn(corpus)
    return Person(corpus, seconds, before)


def corpus_name(film: Path, name: str | None) -> str:
    """The name, or the film's as one. Raises CannotLearn for what YAML, or a folder, would not take as it is."""
    corpus = re.sub(r"[^a-z0-9_-]+", "_", film.stem.lower()).strip("_") if name is None else name
    if not NAME.fullmatch(corpus) or yaml.safe_load(corpus) != corpus:
        raise CannotLearn(
            f"{corpus!r} is no name of a corpus: give --name a word of small letters, digits, - and _, such as anna, at most 40"
        )
    return corpus


def examined(film: Path) -> float:
    """The seconds of a film that is long enough to be learnt from. Raises CannotLearn."""
    if not film.is_file():
        raise CannotLearn(f"there is no file {film}")
    if not FILM.fullmatch(film.suffix):
        raise CannotLearn(f"{film}: its name is not that of a film: name it .mp4, .mov, .mkv or .webm, as what it is")
    if (seconds := seconds_of(film)) < SHORTEST_FILM:
        raise CannotLearn(f"{film} lasts {seconds:.1f} s: film {SHORTEST_FILM:.0f} s or more, better a minute or some minutes")
    return seconds


def seconds_of(film: Path) -> float:
    """The film's seconds, once a picture and a second of sound were decoded. Raises CannotLearn."""
    try:
        next(video.frames_at(film, 1000))
        audio.samples_at(film, 16_000, 0.0, 1.0)
        return video.duration(film) or float(sum(1 for _ in video.frames_at(film, 1)))
    except video.NoStream as error:
        raise CannotLearn(f"{error}: film somebody who speaks, pictures and sound in one file") from error
    except video.Unusable as error:
        raise CannotLearn(f"{error}: convert it, as by `ffmpeg -i {film.name} {film.stem}_again.mp4`") from error
    except video.MediaError as error:
        raise CannotLearn(f"{film} cannot be read ({error.strerror}): see whether it plays, and convert it") from error


def place(film: Path, corpus: str, crop: str) -> None:
    """Copies the film to data/raw/<corpus>/, whole or not at all. Raises CannotLearn for a corpus of something else.

    A copy, not a link: DVC protects what is in its cache, and the film stays yours to change.
    """
    if corpus in corpora():
        known = manifest(corpus)
        if known.adapter != ADAPTER:
            raise CannotLearn(
                f"{film}: there is a corpus {corpus} already, and it is none of films of your own: give another --name"
            )
        if known.crop != crop:
            raise CannotLearn(
                f"data/manifests/{corpus}.yaml says crop: {known.crop}, not {crop}: change it there, or give --crop {known.crop}"
            )
    folder = output("download", corpus)
    target = folder / f"{corpus}{film.suffix.lower()}"
    begun = target.with_name(f"{target.name}.tmp")  # what a kill leaves of a copy
    others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in (target, begun)]
    if target.exists() and not filecmp.cmp(film, target, shallow=False):
        others = [target, *others]
    if others:
        raise CannotLearn(
            f"{film}: {others[0]} is another film of {corpus}: give this one another --name, or, if it takes that one's place, "
            f"remove {folder} and data/manifests/{corpus}.yaml first"
        )
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with film.open("rb") as source, atomic_file(target) as file:
            shutil.copyfileobj(source, file, 2**20)


def clip_lengths(seconds: float) -> tuple[float, float]:
    """The shortest and the longest clip that a film of so many seconds is cut into, so that each split has one."""
    longest = min(max(seconds / CLIPS, LONGEST_CLIP[0]), LONGEST_CLIP[1])
    return round(SHORTEST_CLIP * longest, 2), round(longest, 2)


def manifest_of(corpus: str, crop: str, seconds: float) -> str:
    """The YAML of its manifest."""
    shortest, longest = clip_lengths(seconds)
    return (
        f"like: {ADAPTER}\n"
        f"about: {corpus}, a film of {seconds:.0f} s\n"
        f"crop: {crop}\n"
        f"split: {ADAPTER}\n"
        f"settings: {{shortest: {shortest}, longest: {longest}}} # seconds of a clip\n"
    )


def learn(corpus: str) -> None:
    """Points params.yaml at the corpus: it is among `corpora`, and the one whose person geneface learns.

    Comments, order and layout stay; nothing else changes.
    """
    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = 2**16  # no line is broken
    round_trip.indent(mapping=2, sequence=4, offset=2)
    params = round_trip.load(PARAMS.read_text())
    if corpus not in params["corpora"]:
        params["corpora"].append(corpus)
    params["heads"][:] = [corpus]
    for learner in LEARNERS:
        below, name = learner.split(".")
        params[below][name]["corpus"] = corpus
    changed = io.StringIO()
    round_trip.dump(params, changed)
    with atomic_file(PARAMS) as file:
        file.write(changed.getvalue().encode())
