"""`python -m stages STAGE SUBJECT`: run one stage by hand, exactly as `dvc.yaml` does.

The subject is a corpus (`grid`), a part of one (`grid/0`) or a system (`video_editing`).
"""

import importlib
import logging
import os
import sys
from pathlib import Path

STAGES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\ndef run(" in path.read_text())


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] not in STAGES:
        print(f"usage: python -m stages STAGE CORPUS | CORPUS/PART | SYSTEM\nstages: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported; it tells its maker of every process
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Imported by name, so that worker processes find the stage's function under its own module, not under __main__.
    importlib.import_module(f"stages.{sys.argv[1]}").run(sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
