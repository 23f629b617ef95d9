"""Pickles of strangers: what is plain data is read as Python reads it; what is more is refused, and nothing of it is done."""

import contextlib
import copyreg
import io
import os
import pickle
import struct
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from data.unpickle import UnsafePickle, load
from tests.miniatures.vocaset import python2_pickle

REAL = Path(__file__).parents[3] / "shared" / "media" / "flame" / "FLAME_masks.pkl"  # of Python 2, protocol 0

PLAIN = {
    "text": "ü",
    "bytes": b"\x00\xff",
    "no bytes": b"",
    "numbers": [1, -3, 2.5, None, True, 10**30, 300, 70_000],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    7: {"int64": np.int64(3), "float32": np.float32(2.5), "bool": np.bool_(True), "complex": np.complex64(1j)},
    "ordered": OrderedDict(a=1, b=OrderedDict()),
    "default": defaultdict(dict, {"a": defaultdict(list)}),
    "int16": np.arange(6, dtype=np.int16).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20, dtype=np.uint8)[::3],
    "big-endian": np.arange(3, dtype=">f4"),
    "empty": np.zeros((0, 5, 3)),
    "0-d": np.array(4.0),
    "large": np.arange(10_000, dtype=np.int16),
}


def same(read, written) -> bool:
    if isinstance(written, np.ndarray):
        return type(read) is np.ndarray and read.dtype == written.dtype and np.array_equal(read, written)
    if isinstance(written, dict):
        return type(read) is dict and list(read) == list(written) and all(same(read[key], written[key]) for key in written)
    if isinstance(written, list | tuple):
        return len(read) == len(written) and all(map(same, read, written))
    return type(read) is type(written) and read == written


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "of a stranger.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read_as_python_reads_it(tmp_path, protocol):
    data = pickle.dumps(PLAIN, protocol=protocol)
    assert same(load(written(tmp_path, data)), pickle.loads(data))


def test_a_pickle_of_python_2_is_read(tmp_path):
    value = {"FaceTalk_1_TA": {"sentence01": {"audio": np.arange(-300, 300, dtype=np.int16), "sample_rate": 22_000}}}
    data = python2_pickle(value)
    assert data.startswith(b"\x80\x02") and b"_codecs" not in data  # which is how Python 3 would write bytes there
    assert same(load(written(tmp_path, data)), value)


@pytest.mark.skipif(not REAL.exists(), reason="no FLAME masks beside the repository (../shared/media)")
def test_a_real_pickle_of_vocaset_s_makers_is_read(tmp_path):
    assert same(load(REAL), pickle.loads(REAL.read_bytes(), encoding="latin1"))


def test_numpy_2_s_names_are_known(tmp_path):
    value = {"a": np.arange(3.0), "b": np.float64(1)}
    new = pickle.dumps(value, protocol=2).replace(b"numpy.core.", b"numpy._core.")
    assert b"numpy._core.multiarray" in new
    assert same(load(written(tmp_path, new)), value)
    # Protocols 4 and 5 tell how long a name is.
    new = pickle.dumps(value["a"], protocol=5).replace(b"\x12numpy.core.numeric", b"\x13numpy._core.numeric")
    assert b"numpy._core.numeric" in new
    assert same(load(written(tmp_path, new)), value["a"])


def test_an_array_that_stands_twice_is_one(tmp_path):
    array = np.zeros(3)
    first, second = load(written(tmp_path, pickle.dumps([array, array], protocol=2)))
    assert first is second


class Calls:
    """Pickles itself as the call of a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


class Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "tensor 7" if value == "away" else None


def persistent(protocol: int) -> bytes:
    file = io.BytesIO()
    Persistent(file, protocol=protocol).dump(["away"])
    return file.getvalue()


def extension() -> bytes:
    copyreg.add_extension("posix", "getcwd", 240)
    try:
        return pickle.dumps(os.getcwd, protocol=2)
    finally:
        copyreg.remove_extension("posix", "getcwd", 240)


HOSTILE = {
    "os.system": (pickle.dumps(Calls(os.system, ("touch pwned",))), "posix.system"),
    "of protocol 0": (b"cos\nsystem\n(S'touch pwned'\ntR.", "os.system"),
    "an instance": (b"(S'touch pwned'\nios\nsystem\n.", "os.system"),
    "an object": (b"(cos\nsystem\nS'touch pwned'\no.", "os.system"),
    "eval": (pickle.dumps(Calls(eval, ("open('pwned', 'w')",))), "builtins.eval"),
    "eval of Python 2": (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
    "getattr": (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
    "an attribute of numpy's": (b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93.", "numpy.f2py.os.system"),
    "a chain of attributes": (b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x10sys.modules.keys\x93.", "sys.modules.keys"),
    "a module of numpy's": (b"cnumpy.testing._private.utils\nrunstring\n(S'1'\n}tR.", "runstring"),
    "numpy.load": (b"cnumpy\nload\n(S'/etc/hosts'\ntR.", "numpy.load"),
    "copyreg": (b"ccopy_reg\n_reconstructor\n(cos\nsystem\nN N tR.", "copy_reg._reconstructor"),
    "a class of one's own": (pickle.dumps(Path("pwned")), "pathlib"),
    "scipy's sparse arrays": (pickle.dumps(scipy.sparse.csr_matrix(np.eye(3))), "scipy.sparse"),
    "an array of objects": (pickle.dumps(np.array([1, "a"], dtype=object)), "'O8'"),
    "a record": (pickle.dumps(np.zeros(2, dtype=[("a", "f4"), ("b", "O")])), "'V12'"),
    "text in an array": (pickle.dumps(np.array(["a"])), "'U1'"),
    "a subclass of array": (pickle.dumps(np.ma.zeros(3)), "numpy.ma"),
    "a matrix": (pickle.dumps(np.asmatrix(np.eye(2))), "numpy.matrix"),
    "a scalar of objects": (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS'\\x00'\ntR.", "'O8'"),
    "a set": (pickle.dumps({1, 2}), "EMPTY_SET"),
    "a set of protocol 2": (pickle.dumps({1, 2}, protocol=2), "__builtin__.set"),
    "a persistent id": (persistent(2), "BINPERSID"),
    "a persistent id of protocol 0": (persistent(0), "PERSID"),
    "an extension code": (extension(), "EXT1"),
    "a new object": (b"\x80\x02cnumpy\ndtype\n)\x81.", "NEWOBJ"),
    "a buffer from outside": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "a call of an argument": (b"cnumpy\nndarray\n(I1000000000000\ntR.", "not callable"),
    "a state for a function": (b"cnumpy\ndtype\n}S'x'\nI1\nsb.", "sets the state of a method"),
    "a state for a dict": (b"}}S'x'\nI1\nsb.", "sets the state of a dict"),
    "two states for an array": (
        pickle.dumps(np.zeros(3), protocol=2).replace(b"b.", b"b}b."),
        "sets the state of a ndarray",
    ),
    "a tuple for a key": (pickle.dumps({(1, 2): 3}), "a tuple for a key"),
    "another encoding": (b"c_codecs\nencode\n(S'a'\nS'zip'\ntR.", "'zip'"),
    # Claims larger than the file.
    "long bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.", "1099511627776"),
    "a long bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"a.", "1099511627776"),
    "long text": (b"\x80\x04X" + struct.pack("<I", 0xFFFFFFFF) + b"a.", "4294967295"),
    "a long frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N", "ends too soon"),
    "an array larger than its bytes": (
        pickle.dumps(np.zeros(3), protocol=2).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
        "2147483647 numbers",
    ),
    "an array of a negative shape": (
        pickle.dumps(np.zeros((2, 2)), protocol=2).replace(b"K\x02K\x02\x86", b"J\xfe\xff\xff\xffJ\xfe\xff\xff\xff\x86"),
        "no shape",
    ),
    "an array made out of nothing": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99999999999\ntS'b'\ntR.",
        "not empty at first",
    ),
    "empty": (b"", "ends too soon"),
    "no pickle": (b"<!DOCTYPE html><html>", "DOCTYPE"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_more_than_plain_data_is_refused_by_name(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    data, named = HOSTILE[what]
    path = written(tmp_path, data)
    with pytest.raises(UnsafePickle) as refused:
        load(path)
    assert str(path) in str(refused.value)
    if what != "no pickle":
        assert named in str(refused.value)
    assert not (tmp_path / "pwned").exists()


def test_a_truncated_pickle_is_refused_wherever_it_ends(tmp_path):
    for protocol in (0, 2, 5):
        data = pickle.dumps({"a": np.arange(50), "b": [1.5, "text", {"c": np.float32(1)}]}, protocol=protocol)
        for end in range(len(data)):
            with pytest.raises(UnsafePickle):
                load(written(tmp_path, data[:end]))


def test_damaged_pickles_are_read_or_refused_and_never_crash(tmp_path):
    dice = np.random.default_rng(0)
    for protocol in (0, 2, 5):
        data = np.frombuffer(pickle.dumps(PLAIN | {"large": 0}, protocol=protocol), np.uint8)
        for _ in range(300):
            damaged = data.copy()
            damaged[dice.integers(0, len(data), 3)] = dice.integers(0, 256, 3)
            with contextlib.suppress(UnsafePickle):
                load(written(tmp_path, damaged.tobytes()))


def test_few_bytes_cannot_make_many(tmp_path):
    # A text of 100 kB, encoded a thousand times over from the memo: 100 MB if it were done.
    text, encoded = b"S'" + b"a" * 100_000 + b"'\np1\n", b"c_codecs\nencode\n(g1\nS'latin1'\ntR"
    with pytest.raises(UnsafePickle, match="more numbers than it holds"):
        load(written(tmp_path, b"(" + text + 1000 * encoded + b"l."))


def test_a_program_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("data.unpickle.MOST_STEPS", 1000)
    with pytest.raises(UnsafePickle, match="more than 1000 steps"):
        load(written(tmp_path, b"(" + b"N" * 2000 + b"l."))


def test_a_deep_pickle_does_not_overflow_the_stack(tmp_path):
    deep = b")" + b"\x85" * 300_000
    assert len(load(written(tmp_path, b"\x80\x02" + deep + b"."))) == 1
    with pytest.raises(UnsafePickle, match="a tuple for a key"):
        load(written(tmp_path, b"\x80\x02}" + deep + b"Ns."))


def test_a_pickle_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.pkl"
    with open(path, "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(UnsafePickle, match="more than 1073741824"):
        load(path)
