"""Files and folders that appear whole or not at all."""

import pytest

from data.files import atomic_file, in_place


def test_in_place_is_all_or_nothing(tmp_path):
    out = tmp_path / "out"
    with in_place(out) as folder:
        (folder / "a").write_text("first")
        assert not out.exists()
    with pytest.raises(RuntimeError), in_place(out) as folder:
        (folder / "b").write_text("second")
        raise RuntimeError
    assert [path.name for path in out.iterdir()] == ["a"]
    with in_place(out) as folder:
        (folder / "c").write_text("third")
    assert [path.name for path in out.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"second")
        raise RuntimeError
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
