"""One uint8 array of many frames in a compressed .npz, written and read one frame at a time: whole, it may be gigabytes."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np


class BadFrames(ValueError):
    """An .npz that is damaged, or of another array than expected."""


@contextmanager
def npz_writer(file: BinaryIO, name: str, shape: tuple[int, ...]) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields what takes the array's frames, one after the other; the same bytes on every run."""
    with zipfile.ZipFile(file, "w", compresslevel=6) as archive:
        member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980 unless told otherwise
        member.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(member, "w", force_zip64=True) as content:  # 2,000 frames of a torso are 2 GB
            np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})

            def add(frame: np.ndarray) -> None:
                content.write(np.ascontiguousarray(frame).tobytes())

            yield add


def npz_frames(data: bytes, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The frames of the array `name`, which is to have this shape. Raises BadFrames."""
    size = int(np.prod(shape[1:]))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(f"{name}.npy") as file:
            np.lib.format.read_magic(file)
            found, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
            if found != shape or dtype != np.uint8 or by_columns:
                raise BadFrames(f"{name} is {dtype} {found}, not uint8 {shape}")
            for _ in range(shape[0]):
                content = file.read(size)
                if len(content) < size:
                    raise EOFError("it ends early")
                yield np.frombuffer(content, np.uint8).reshape(shape[1:])
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise BadFrames(f"{name} is damaged ({error})") from error
