"""What is committed about each corpus: `manifests/` says where it comes from, `splits/` which clips are trained on and tested."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SPLITS = ("train", "val", "test")


def manifest(corpus: str) -> dict[str, Any]:
    """`data/manifests/<corpus>.yaml`: sources, sizes, checksums, licence."""
    return _read(HERE / "manifests" / f"{corpus}.yaml")


def splits(corpus: str) -> dict[str, list[str]]:
    """`data/splits/<corpus>.yaml`: `{"train": keys, "val": keys, "test": keys, "excluded": keys}`, each key in one of them."""
    path = HERE / "splits" / f"{corpus}.yaml"
    lists = _read(path)
    named = sorted(key for keys in lists.values() for key in keys)
    for key, following in pairwise(named):
        if key == following:
            raise ValueError(f"{path} names {key} twice: leave it in one split")
    return lists


def _read(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: a corpus named in params.yaml needs it (README, Adding a corpus)")
    return yaml.safe_load(path.read_text())
