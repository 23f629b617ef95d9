import io
import zipfile

import numpy as np
import pytest

from data.npz import BadFrames, npz_frames, npz_writer


def archive(frames: np.ndarray) -> bytes:
    file = io.BytesIO()
    with npz_writer(file, "labels", frames.shape) as add:
        for frame in frames:
            add(frame)
    return file.getvalue()


def test_the_archive_is_numpy_s_own_and_the_same_each_time():
    frames = np.random.default_rng(0).integers(0, 4, (5, 30, 40), np.uint8)
    assert np.array_equal(np.load(io.BytesIO(archive(frames)))["labels"], frames)
    assert np.array_equal(list(npz_frames(archive(frames), "labels", frames.shape)), frames)
    assert archive(frames) == archive(frames)
    assert len(archive(frames * 0)) < 400


def test_numpy_s_own_archive_is_read():
    frames, file = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), io.BytesIO()
    np.savez_compressed(file, labels=frames)
    assert np.array_equal(list(npz_frames(file.getvalue(), "labels", (2, 3, 4))), frames)


def test_other_and_damaged_arrays_are_refused():
    whole = archive(np.zeros((5, 30, 40), np.uint8))
    objects = io.BytesIO()
    np.savez(objects, labels=np.array([{}], dtype=object))
    for data, name, shape, message in (
        (whole, "labels", (5, 30, 41), r"labels is uint8 \(5, 30, 40\), not uint8 \(5, 30, 41\)"),
        (whole, "torso", (5, 30, 40), "torso is damaged"),
        (whole[:60], "labels", (5, 30, 40), "labels is damaged"),
        (objects.getvalue(), "labels", (1,), "labels is object"),
    ):
        with pytest.raises(BadFrames, match=message):
            list(npz_frames(data, name, shape))


def test_an_archive_whose_array_ends_early_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as short, short.open("labels.npy", "w") as content:
        np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": (2, 3)})
        content.write(bytes(4))
    with pytest.raises(BadFrames, match="damaged"):
        list(npz_frames(file.getvalue(), "labels", (2, 3)))
