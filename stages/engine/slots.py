"""What a machine has to share out among stages, and among their workers: a slot is a file, and whoever holds its flock has it.

The kernel frees the slots of a process that ends in any way, and all processes of one machine that work in this folder see the
same files: two runs at once never put two stages on one GPU.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

FOLDER = Path("data/.work/slots")


class Held:
    """Slots that were taken: names by kind, and the open files that hold them; a child given the files holds the slots too."""

    def __init__(self, names: dict[str, list[str]], files: list[int]) -> None:
        self.names, self.files = names, files

    def give_back(self) -> None:
        for file in self.files:
            os.close(file)
        self.files = []


class Slots:
    """Takes slots of kinds such as "cpu" or "gpu" out of `pools` (kind: names of its slots), all that a stage needs or none."""

    def __init__(self, pools: Mapping[str, list[str]], folder: Path = FOLDER) -> None:
        self.pools, self.folder = pools, folder
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, needs: Mapping[str, int], alone: str = "") -> Held | None:
        """The slots, or None if too few are free now. More than a pool has means all of it.

        Nobody else holds `alone`, a stage's name, at the same time.
        """
        guard = self._lock("guard", wait=True)  # else two could each take half of what both need
        assert guard is not None
        try:
            wanted = [(kind, self.pools[kind], count) for kind, count in needs.items()]
            if alone:
                wanted.insert(0, ("stage", [alone], 1))
            held = Held({}, [])
            for kind, slots, count in wanted:
                names = held.names.setdefault(kind, [])
                for slot in slots:
                    if len(names) < count and (file := self._lock(f"{kind}-{slot}")) is not None:
                        names.append(slot)
                        held.files.append(file)
                if len(names) < min(count, len(slots)):
                    held.give_back()
                    return None
            return held
        finally:
            os.close(guard)

    def _lock(self, name: str, wait: bool = False) -> int | None:
        file = os.open(self.folder / quote(name, safe="@=, "), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return None
        return file


def machine(jobs: int) -> dict[str, list[str]]:
    """The pools of this machine: `jobs` cpus, each GPU, each GB of memory. Without a GPU, what wants one takes a cpu alone."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**9
    return {"cpu": _numbers(jobs), "gpu": gpus(), "memory_gb": _numbers(max(1, memory))}


def gpus() -> list[str]:
    """The GPUs that torch would see, as CUDA_VISIBLE_DEVICES names them; found without torch, which takes seconds to import."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return _numbers(sum(line.startswith("GPU ") for line in told.splitlines()))


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]
