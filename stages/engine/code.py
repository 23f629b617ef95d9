"""Which source files can change what a clip function returns, and their sha256.

The files are found by reading the import statements, not by importing, so that a test can compare them with `dvc.yaml`.
"""

import dis
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[2]
PACKAGES = ("data", "models", "stages")
# These decide where, when and how often a function runs, never what it returns for a clip.
WITHOUT_INFLUENCE = ("stages.engine", "stages.columns", "stages.params")


def code_files(module_name: str) -> list[Path]:
    """The module's file and every file of data/, models/ and stages/ that it imports, directly or not, sorted.

    Imports inside functions count. ValueError if the module has no source file.
    """
    start = _file_of(module_name) or _file_of_loaded(module_name)
    found = {start}
    pending = [(module_name, start)]
    while pending:
        importer, file = pending.pop()
        for name in _imported_names(importer, file):
            imported = _file_of(name)
            if imported is not None and imported not in found:
                found.add(imported)
                pending.append((name, imported))
    return sorted(found)


def code_version(module_name: str) -> str:
    """sha256 over the names and contents of `code_files`."""
    digest = hashlib.sha256()
    for file in code_files(module_name):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _file_of(name: str) -> Path | None:
    without_influence = any(f"{name}.".startswith(f"{module}.") for module in WITHOUT_INFLUENCE)
    if name.partition(".")[0] not in PACKAGES or without_influence:
        return None
    path = ROOT.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_name(path.name + ".py"))
    return next((file for file in candidates if file.is_file()), None)


def _file_of_loaded(name: str) -> Path:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        raise ValueError(f"module {name} has no source file: define the clip function in a module of stages/")
    return Path(file)


def _imported_names(importer: str, file: Path) -> Iterator[str]:
    """Full names of what the file imports, with the packages around it, whose __init__.py run first."""
    package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
    yield from _with_packages(package)
    for level, module, names in _imports(compile(file.read_bytes(), file, "exec")):
        if level:
            base = package.split(".")[: len(package.split(".")) - level + 1]
            module = ".".join([*base, module] if module else base)
        yield from _with_packages(module)
        yield from (f"{module}.{name}" for name in names)  # each may be a submodule


def _imports(code: CodeType) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Level, module and names of every import statement, of functions too.

    Of the bytecode: Python 3.11's ast.parse fails ("recursion depth mismatch") when another one, in a thread or in what the
    garbage collector calls, comes in between, as happened in a Prefect flow.
    """
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            yield level.argval, step.argval, names.argval or ()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imports(constant)


def _with_packages(name: str) -> Iterator[str]:
    """For a.b.c: a, a.b and a.b.c."""
    parts = name.split(".")
    return (".".join(parts[: n + 1]) for n in range(len(parts)))
