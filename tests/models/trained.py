"""Checkpoints that a bench compares: trained once, and kept beside each other."""

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.checkpoint import read_config
from models.given import Given
from models.trainer import Job, train

KEPT = Path("data/.work/bench")  # by default: not in git, and whole trainings


def trained(system: str, config: Any, given: Given, folder: Path) -> Path:
    """The checkpoint folder of this configuration, as it stands or newly trained; a killed training goes on where it was.

    ValueError if what stands there is of another configuration.
    """
    if folder.exists():
        if read_config(folder, type(config)) != config:
            raise ValueError(f"{folder} was trained with other numbers than this bench has: delete it, and it is trained anew")
        return folder
    beside = {name: str(path) for name, path in given.beside.items()}
    work = folder.with_name(f"{folder.name}.work")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice on workers and intervals that the configs settle
        train(Job(system, asdict(config), str(given.train), str(given.val), beside, str(work), str(folder)))
    return folder
