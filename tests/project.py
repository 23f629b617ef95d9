"""A copy of this project to run for real, on seconds of made media, away from the working tree."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

from tests.media import talking

ROOT = Path(__file__).parents[1]


def copy_project(folder: Path) -> Path:
    """The files git tracks or would track, in `folder`."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, folder / name
        if source.exists() and name != "dvc.lock":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return folder


def change_params(folder: Path, **sections: dict[str, Any]) -> None:
    """Change keys of sections of `params.yaml`."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for name, values in sections.items():
        params[name] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """A wheel `tinymedia==1.0` holding `members`, such as pip downloads from any index."""
    path = folder / "tinymedia-1.0-py3-none-any.whl"
    info = "tinymedia-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinymedia\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | metadata).items():
            archive.writestr(name, data)
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tiny_project(folder: Path) -> Path:
    """A git repository of this project whose `sample` and `webcam` corpora are 4 s of made media in a wheel of their own."""
    copy_project(folder)
    packages = folder / ".packages"
    packages.mkdir()
    film = talking(packages / "talker.mp4", seconds=4.0, fps=29.97).read_bytes()
    wheel = make_wheel(packages, {"tinymedia/talker.mp4": film, "tinymedia/unwanted.txt": b"stays in the wheel"})
    clips = [{"key": f"astronaut/{i}", "file": "talker.mp4", "start": float(i), "end": i + 1.0} for i in range(4)]
    member = {"member": "tinymedia/talker.mp4", "file": "talker.mp4", "sha256": sha256(film)}
    package = {"package": "tinymedia==1.0", "sha256": sha256(wheel.read_bytes()), "members": [member]}
    licence = {"name": "made by a test", "page": "https://example.org"}
    manifest = {"about": "tiny", "licence": licence, "crop": "face", "sources": [package], "settings": {"clips": clips}}
    (folder / "data/manifests/sample.yaml").write_text(yaml.safe_dump(manifest))
    person = {"like": "sample", "about": "the same, head and shoulders", "crop": "bust", "split": "sample"}
    (folder / "data/manifests/webcam.yaml").write_text(yaml.safe_dump(person))
    splits = {"train": ["astronaut/0", "astronaut/1"], "val": ["astronaut/2"], "test": ["astronaut/3"]}
    (folder / "data/splits/sample.yaml").write_text(yaml.safe_dump(splits))
    (folder / ".gitignore").open("a").write("/.packages/\n")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """What a shell in `folder` has: this interpreter's tools first, no index but the project's own packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "PIP_"))}
    tools = str(Path(sys.executable).parent)
    packages = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / ".packages"), "PIP_CONFIG_FILE": os.devnull}
    return kept | packages | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}


def run(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in `folder`; its output is in the failure if it fails."""
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=900)
    assert not check or done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done
