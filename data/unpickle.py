"""Pickles of numbers from strangers, read without doing what they say.

A pickle is a program: it names functions of any module and calls them. Two corpora (VOCASET, and BIWI as FaceFormer left it)
come as pickles, so here is a reader that knows only the instructions and the names that plain data needs: dicts, lists,
tuples, strings, numbers, and numpy's arrays, scalars and dtypes of booleans, integers, floats and complex numbers, in
protocols 0 to 5, as Python 2 and 3 and numpy 1 and 2 write them. Nothing that a pickle names is imported: what it may name is
listed in `find_class`, and stands for functions of this module.
"""

import io
import pickle
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 1 << 30  # bytes; VOCASET's sound, the largest pickle that is read, has some 10⁸
MOST_STEPS = 20_000_000  # an instruction of one byte can make an object of a hundred

NUMBERS = re.compile(r"[<>=|]?[biufc](1|2|4|8|16|32)")  # codes of dtypes; objects, records, text and dates are not among them
KEYS = (str, bytes, int, float, np.generic)  # of a dict; hashing a tuple that is deep enough crashes the interpreter

# Those of plain data. Left out: what makes instances and sets, and what refers to things outside of the file (persistent
# ids, extension codes, buffers).
INSTRUCTIONS = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.LONG4),
    *(pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.UNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8),
    *(pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8),
    *(pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE),
)


class UnsafePickle(ValueError):
    """A pickle asks for more than plain data, claims more than it holds, or is damaged. It was not obeyed."""


def load(path: Path) -> Any:
    """The value of a pickle of plain data. Byte strings of Python 2 become str (latin-1). Raises UnsafePickle, OSError."""
    size = path.stat().st_size
    if size > LARGEST:
        raise UnsafePickle(f"{path} has {size} bytes; a pickle of more than {LARGEST} is not read")
    try:
        return _Reader(_Bytes(path.read_bytes()), size).load()
    except UnsafePickle as error:
        raise UnsafePickle(f"{path} {error}. It was not obeyed: check where the file comes from, then fetch it again") from error
    except Exception as error:  # whatever a damaged or malicious program may end in
        what = f"is damaged, or no pickle of plain data ({type(error).__name__}: {error})"
        raise UnsafePickle(f"{path} {what}: check where the file comes from, then fetch it again") from error


class _Bytes(io.BytesIO):
    """Bytes that are given only where there are as many as asked for, and for a limited number of times."""

    steps = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise UnsafePickle(f"takes more than {MOST_STEPS} steps")
        data = super().read(size)
        if size is not None and len(data) < size:
            raise UnsafePickle(f"ends too soon: {size} bytes should follow where {len(data)} are left")
        return data


@dataclass
class _Dtype:
    """Stands for a dtype while the pickle is read: numpy's own can be put into states that crash the process."""

    code: str


class _Instructions(dict[int, Any]):
    def __missing__(self, code: int) -> Any:
        names = [name for name in pickle.__all__ if name.isupper() and getattr(pickle, name) == bytes([code])]
        raise UnsafePickle(f"has the instruction {(names or [hex(code)])[0]}, which plain data does not need")


class _Reader(pickle._Unpickler):  # the one written in Python: its instructions can be chosen
    # Of the parent, unknown to its type stubs.
    stack: list[Any]
    read: Any
    readline: Any
    append: Any
    pop_mark: Any

    def __init__(self, file: _Bytes, size: int):
        super().__init__(file, encoding="latin1")
        self._left = 2 * size  # bytes that may still be made: each of the file's at most once as text and once as numbers
        self._unbuilt: dict[int, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        match module.replace("numpy._core.", "numpy.core.", 1), name:  # numpy 2's name, numpy 1's name
            case "numpy.core.multiarray", "_reconstruct":
                return self._unbuilt_array
            case "numpy.core.multiarray", "scalar":
                return self._scalar
            case "numpy.core.numeric", "_frombuffer":
                return self._array
            case "numpy", "dtype":
                return self._dtype
            case "numpy", "ndarray":
                return "numpy.ndarray"  # an argument of _reconstruct
            case "_codecs", "encode":  # in the old protocols, Python 3 writes bytes as text
                return self._encode
            case "__builtin__" | "builtins", "bytes":  # none of them, likewise
                return self._no_bytes
            case "collections", "OrderedDict":
                return self._ordered_dict
            case "collections", "defaultdict":
                return self._default_dict
            case "__builtin__" | "builtins", "dict" | "list" | "int" | "float":
                return name  # the argument of a defaultdict
        raise UnsafePickle(f"asks for {module}.{name}, which is neither numbers nor a container")

    # What a pickle may call: bound methods, on which it cannot even set an attribute.

    def _unbuilt_array(self, subtype: Any, shape: Any, code: Any) -> np.ndarray:
        if subtype != "numpy.ndarray" or shape != (0,):
            raise UnsafePickle("makes an array that is not numpy's own, or not empty at first")
        array = np.empty(0, np.int8)
        self._unbuilt[id(array)] = array
        return array

    def _dtype(self, code: Any, align: Any = False, copy: Any = False) -> _Dtype:
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            raise UnsafePickle(f"asks for numpy.dtype({str(code)[:40]!r}), which is no plain number")
        return _Dtype(code)

    def _array(self, data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
        data, dtype, shape = self._checked(data, dtype, shape)
        return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C").copy("K")

    def _scalar(self, dtype: Any, data: Any) -> np.generic:
        return self._array(data, dtype, (1,), "C")[0]

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise UnsafePickle(f"encodes text as {str(encoding)[:40]!r}")
        self._spend(len(text))
        return text.encode("latin1")

    def _no_bytes(self) -> bytes:
        return b""

    def _ordered_dict(self, items: Any = ()) -> dict[Any, Any]:
        return _checked_dict([part for key, value in items for part in (key, value)])

    def _default_dict(self, factory: Any = None) -> dict[Any, Any]:
        return {}

    # The instructions that do other than the parent's.

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Dtype):
            _, order, *record = state[:5]  # subarray, names and fields make a record of it
            if order not in ("<", ">", "|", "=") or any(part is not None for part in record):
                raise UnsafePickle(f"makes a record of a numpy.dtype({target.code!r})")
            target.code = order + target.code.lstrip("<>=|")
        elif self._unbuilt.pop(id(target), None) is not None:
            _, shape, dtype, is_fortran, data = state
            data, dtype, shape = self._checked(data, dtype, shape)
            target.__setstate__((1, shape, dtype, bool(is_fortran), data))  # in place: the memo may have given it away
        else:
            raise UnsafePickle(f"sets the state of a {type(target).__name__}")

    def load_frame(self) -> None:
        self.read(8)  # only a hint; without frames, all that is read comes from `_Bytes`

    def load_bytearray8(self) -> None:
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_checked_dict(items))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_checked_dict([key, value]))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_checked_dict(items))

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8") for _ in range(2))
        raise UnsafePickle(f"asks for {module}.{name}, to make an instance of it")

    dispatch = _Instructions({code[0]: pickle._Unpickler.dispatch[code[0]] for code in INSTRUCTIONS})
    dispatch |= {
        pickle.BUILD[0]: load_build,
        pickle.FRAME[0]: load_frame,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.INST[0]: load_inst,
    }

    def _checked(self, data: Any, dtype: Any, shape: Any) -> tuple[bytes, np.dtype, tuple[int, ...]]:
        """The parts of an array, if they fit each other."""
        data = data.encode("latin1") if isinstance(data, str) else data
        if type(data) is not bytes or not isinstance(dtype, _Dtype):
            raise UnsafePickle(f"makes an array of a {type(data).__name__} and a {type(dtype).__name__}")
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(count) is int and count >= 0 for count in shape):
            raise UnsafePickle("makes an array whose shape is no shape")
        real = np.dtype(dtype.code)
        if prod(shape) * real.itemsize != len(data):
            raise UnsafePickle(f"makes an array of {prod(shape)} numbers, {real.itemsize} bytes each, out of {len(data)} bytes")
        self._spend(len(data))
        return data, real, shape

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise UnsafePickle("makes more numbers than it holds")


def _checked_dict(items: list[Any]) -> dict[Any, Any]:
    """Of keys and values in turn."""
    for key in items[::2]:
        if not isinstance(key, KEYS):
            raise UnsafePickle(f"has a dict with a {type(key).__name__} for a key")
    return dict(zip(items[::2], items[1::2], strict=True))
