"""What is committed about each corpus: `manifests/` says where it comes from, `splits/` which clips are trained on and tested."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HERE = Path(__file__).parent
SPLITS = ("train", "val", "test")
EXCLUDED = "excluded"  # the split of clips that a protocol leaves out
WITHOUT_PICTURES = "none"  # the crop of a corpus that was scanned, not filmed


class WrongManifest(ValueError):
    """A manifest or split list has a key that nothing reads, lacks one that it needs, or contradicts itself."""


@dataclass(frozen=True)
class Licence:
    """Under which terms a corpus comes."""

    name: str
    page: str = ""
    accept: bool = False  # whether its user must accept it by name, once, before anything is fetched


@dataclass(frozen=True)
class Manifest:
    """`data/manifests/<corpus>.yaml`; the kinds of sources are described in `stages/download.py`."""

    corpus: str
    about: str  # in one line
    licence: Licence
    adapter: str  # module of data/corpora that knows its layout; its own name if not said
    crop: str  # which of `align.crops` in params.yaml its pictures get; "none" for a corpus without pictures
    split: str  # file of data/splits; its own name if not said
    sources: tuple[dict[str, Any], ...]
    settings: dict[str, Any] = field(default_factory=dict)  # the adapter's own
    known_bad: dict[str, str] = field(default_factory=dict)  # clip, with or without its speaker: what is wrong with it
    expect: dict[str, Any] = field(default_factory=dict)  # what `verify` compares with

    @property
    def pictures(self) -> bool:
        return self.crop != WITHOUT_PICTURES


def corpora() -> list[str]:
    """Every corpus that has a manifest."""
    return sorted(path.stem for path in (HERE / "manifests").glob("*.yaml"))


def manifest(corpus: str) -> Manifest:
    """The manifest of one corpus; what it does not say it takes from the one that it is `like`. Raises WrongManifest."""
    said = _said(corpus)
    known = {item.name for item in fields(Manifest)} - {"corpus"}
    if unknown := sorted(set(said) - known):
        raise WrongManifest(f"the manifest of {corpus} has {', '.join(unknown)}; one may have {', '.join(sorted(known))}")
    try:
        said["licence"] = Licence(**said["licence"])
        return Manifest(corpus, **said | {"sources": tuple(said["sources"])})
    except (TypeError, KeyError) as error:
        raise WrongManifest(f"the manifest of {corpus}: {error}") from error


def _said(corpus: str) -> dict[str, Any]:
    own = _read(HERE / "manifests" / f"{corpus}.yaml")
    like = own.pop("like", None)
    return (_said(like) if like else {"adapter": corpus}) | {"split": corpus} | own


@dataclass(frozen=True)
class Every:
    """Of the clips of list `start`, sorted, each `n`-th goes to `to`."""

    start: str
    to: str
    n: int


@dataclass(frozen=True)
class Splits:
    """`data/splits/<name>.yaml`: which clips are trained on, validated on and tested.

    lists: of each split and of `excluded`, clips ("s1/bbaf2n") and patterns ("s1/*"); a clip's own name beats a pattern.
    every: moves a share of one list to another.
    in_time: instead of lists, each split's share of a speaker's seconds, in the order of keys.
    """

    path: Path
    lists: dict[str, list[str]]
    every: Every | None = None
    in_time: dict[str, float] | None = None

    def divide(self, clips: Sequence[tuple[str, float]]) -> dict[str, str]:
        """The split of each clip, given keys and seconds. Raises WrongManifest for a clip in no list or in two."""
        clips = sorted(clips)
        if self.in_time:
            return _in_time(clips, self.in_time)
        named = {key: split for split, keys in self.lists.items() for key in keys}
        split_of = {key: named.get(key) or self._by_pattern(key) for key, _ in clips}
        if self.every:
            chosen = [key for key, split in split_of.items() if split == self.every.start]
            split_of |= dict.fromkeys(chosen[self.every.n - 1 :: self.every.n], self.every.to)
        return split_of

    def _by_pattern(self, key: str) -> str:
        found = {split for split, patterns in self.lists.items() if any(fnmatchcase(key, pattern) for pattern in patterns)}
        if len(found) == 1:
            return found.pop()
        what = f"in {' and '.join(sorted(found))}: leave it in one list" if found else "in no list: add it to one"
        raise WrongManifest(f"{self.path}: clip {key} is {what}")


def _in_time(clips: Sequence[tuple[str, float]], shares: dict[str, float]) -> dict[str, str]:
    """Each speaker's clips in order, cut where the splits' shares of the seconds end; a clip goes where its middle lies.

    No split stays empty where there are clips enough: the last ones have at least a clip each.
    """
    of_speaker: dict[str, list[tuple[str, float]]] = {}
    for key, seconds in clips:
        of_speaker.setdefault(key.partition("/")[0], []).append((key, seconds))
    order = [split for split in SPLITS if shares.get(split)]
    ends = np.cumsum([shares[split] for split in order]) / sum(shares.values())
    split_of = {}
    for own in of_speaker.values():
        seconds_N = np.array([seconds for _, seconds in own])
        middles_N = (np.cumsum(seconds_N) - seconds_N / 2) / seconds_N.sum()
        first = np.searchsorted(middles_N, ends[:-1])  # clip of each split but the first
        latest = len(own) - np.arange(len(first), 0, -1)
        starts = np.maximum(np.minimum(first, latest), 0)
        for number, (key, _) in enumerate(own):
            split_of[key] = order[int(np.searchsorted(starts, number, side="right"))]
    return split_of


def splits(name: str) -> Splits:
    """`data/splits/<name>.yaml`. Raises WrongManifest."""
    path = HERE / "splits" / f"{name}.yaml"
    said = _read(path)
    said.pop("origin", None)
    every, in_time = said.pop("every", None), said.pop("in_time", None)
    if unknown := sorted(set(said) - {*SPLITS, EXCLUDED}):
        raise WrongManifest(f"{path} has {', '.join(unknown)}; it may have {', '.join(SPLITS)}, {EXCLUDED}, every, in_time")
    for key, times in Counter(key for keys in said.values() for key in keys).items():
        if times > 1:
            raise WrongManifest(f"{path} names {key} twice: leave it in one list")
    return Splits(path, said, Every(every["from"], every["to"], every["n"]) if every else None, in_time)


def _read(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: a corpus named in params.yaml needs it (README, Adding a corpus)")
    return yaml.safe_load(path.read_text())
