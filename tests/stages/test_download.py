"""The download stage as a user meets it: sources of all kinds from a server here, runs again, files placed by hand, errors."""

import hashlib
import io
import json
import os
import random
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.corpora import Video
from data.manifest import Licence, Manifest
from stages import download
from stages.fetch import DownloadError
from tests.project import make_wheel, sha256
from tests.servers import Corrupt, Drop, FileServer, Page, Refuse

RAW, RECORD = Path("data/raw/tiny"), Path("data/fetched/tiny.json")
FILMS = {"s1/bbaf2n.mpg": random.Random(0).randbytes(30_000), "s1/bbal6p.mpg": random.Random(1).randbytes(20_000)}


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


ARCHIVE = zipped(FILMS)


def standing(folder: Path = RAW) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Lab:
    """A folder with a server, in which corpora of a manifest of one's own are downloaded."""

    def __init__(self, server: FileServer, patch: pytest.MonkeyPatch):
        self.server, self._patch = server, patch
        self.adapter = SimpleNamespace()
        patch.setattr(download, "adapter", lambda _: self.adapter)
        patch.setattr(download, "HERE", Path.cwd())

    def download(self, *sources: dict, licence: Licence = Licence("CC BY 4.0", "https://example.org/licence")) -> dict:  # noqa: B008
        """The record."""
        known = Manifest("tiny", "a small corpus", licence, "tiny", "face", "tiny", sources)
        self._patch.setattr(download, "manifest", lambda _: known)
        self.server.asked.clear()
        download.run("tiny")
        return json.loads(RECORD.read_bytes())

    def refused(self, match: str, *sources: dict, **known) -> str:
        with pytest.raises(DownloadError, match=match) as caught:
            self.download(*sources, **known)
        return str(caught.value)

    def http(self, file: str, **known) -> dict:
        return {"http": self.server.url(file), "file": file} | known

    @property
    def asked(self) -> list[str]:
        return [asked.name for asked in self.server.asked]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("TALKINGFACE_ACCEPT_LICENCE", raising=False)
    with FileServer({"list.txt": b"a list", "s1.zip": ARCHIVE}) as server:
        yield Lab(server, monkeypatch)


def test_files_come_archives_are_unpacked_and_the_record_tells(lab):
    record = lab.download(lab.http("list.txt", into="lists", sha256=sha256(b"a list")), lab.http("s1.zip", unpack="zip"))
    assert standing() == FILMS | {"lists/list.txt": b"a list"}
    plain, archive = record["files"]["lists/list.txt"], record["files"]["s1.zip"]
    assert plain.keys() == {"url", "status", "date", "bytes", "sha256", "checksum", "validator"}
    assert (plain["url"], plain["status"], plain["bytes"]) == (lab.server.url("list.txt"), "downloaded", 6)
    assert archive["members"] == {name: len(data) for name, data in FILMS.items()}
    assert archive["sha256"] == sha256(ARCHIVE)
    assert record["licence"] == {"name": "CC BY 4.0", "page": "https://example.org/licence"}


def test_a_second_run_asks_nobody_and_changes_nothing(lab):
    sources = [lab.http("list.txt"), lab.http("s1.zip", unpack="zip")]
    lab.download(*sources)
    before = RECORD.read_bytes()
    lab.download(*sources)
    assert lab.asked == []
    assert RECORD.read_bytes() == before
    for forgotten in Path("data/.work/download/tiny").glob("*.json"):
        forgotten.unlink()
    lab.download(*sources)
    assert lab.asked == []


def test_what_is_missing_is_fetched_again_and_nothing_else(lab):
    sources = [lab.http("list.txt"), lab.http("s1.zip", unpack="zip", into="video")]
    lab.download(*sources)
    (RAW / "video/s1/bbaf2n.mpg").unlink()
    (RAW / "note_by_hand").write_text("mine")
    lab.download(*sources)
    assert lab.asked == ["s1.zip"]
    (RAW / "list.txt").unlink()
    lab.download(*sources)
    assert set(lab.asked) == {"list.txt"}
    films = {f"video/{name}": data for name, data in FILMS.items()}
    assert standing() == films | {"list.txt": b"a list", "note_by_hand": b"mine"}


def test_what_changed_on_the_disk_since_it_was_fetched_is_fetched_again(lab):
    source = lab.http("list.txt", sha256=sha256(b"a list"))
    lab.download(source)
    (RAW / "list.txt").write_bytes(b"a lust")
    lab.download(source)
    assert standing() == {"list.txt": b"a list"}


def test_a_new_version_that_the_manifest_names_replaces_what_was_fetched(lab):
    lab.download(lab.http("list.txt"), lab.http("s1.zip", unpack="zip"))
    new = FILMS | {"s1/bbaf2n.mpg": b"repaired"}
    lab.server.put("s1.zip", zipped(new))
    lab.server.put("list.txt", b"longer list")
    lab.download(lab.http("list.txt", bytes=11), lab.http("s1.zip", unpack="zip", md5=md5(zipped(new)).partition(":")[2]))
    assert standing() == new | {"list.txt": b"longer list"}


def test_without_a_published_checksum_the_first_is_trusted_and_no_other(lab):
    source = lab.http("list.txt")
    lab.download(source)
    lab.server.put("list.txt", b"another")
    (RAW / "list.txt").unlink()
    told = lab.refused("changed", source)
    assert sha256(b"a list") in told
    assert sha256(b"another") in told
    assert standing() == {}


def test_files_placed_by_hand_are_taken_and_stay(lab):
    RAW.mkdir(parents=True)
    (RAW / "list.txt").write_bytes(b"a list")
    (RAW / "s1.zip").write_bytes(ARCHIVE)
    sources = [lab.http("list.txt", md5=md5(b"a list")[4:]), lab.http("s1.zip", unpack="zip", form={"password": "NOT_SET"})]
    for _ in range(2):
        record = lab.download(*sources)
        assert lab.asked == []
        assert standing() == FILMS | {"list.txt": b"a list", "s1.zip": ARCHIVE}
        assert {entry["status"] for entry in record["files"].values()} == {"by_hand"}
    (RAW / "s1.zip").unlink()
    lab.download(*sources)
    assert lab.asked == []


def test_files_placed_by_hand_that_are_wrong_are_named_and_stay(lab):
    RAW.mkdir(parents=True)
    (RAW / "list.txt").write_bytes(b"a lust")
    told = lab.refused(r"Remove them to have them fetched", lab.http("list.txt", sha256=sha256(b"a list")))
    assert "data/raw/tiny/list.txt" in told
    assert sha256(b"a list") in told
    assert sha256(b"a lust") in told
    assert standing() == {"list.txt": b"a lust"}


def test_a_damaged_archive_is_fetched_anew_by_the_next_run(lab):
    source = lab.http("s1.zip", unpack="zip")
    lab.server.faults["s1.zip"] = [Corrupt(0.3)]
    told = lab.refused(r"s1\.zip is damaged", source)
    assert "run again" in told
    assert standing() == {}
    lab.download(source)
    assert standing() == FILMS


def test_a_damaged_archive_placed_by_hand_is_named_and_stays(lab):
    RAW.mkdir(parents=True)
    (RAW / "s1.zip").write_bytes(ARCHIVE[:-50])
    lab.refused(r"damaged[\s\S]*Replace data/raw/tiny/s1\.zip", lab.http("s1.zip", unpack="zip"))
    assert standing() == {"s1.zip": ARCHIVE[:-50]}


def test_a_hostile_archive_is_refused_by_name_and_not_fetched_twice(lab):
    lab.server.put("evil.zip", zipped({"good": b"x", "../../evil": b"x"}))
    for _ in range(2):
        lab.refused(r"evil\.zip has a member '\.\./\.\./evil'", lab.http("evil.zip", unpack="zip"))
    assert lab.asked == []
    assert standing(Path()).keys() & {"evil", "data/evil", "data/raw/evil"} == set()


def test_a_run_that_was_killed_before_it_unpacked_does_not_fetch_again(lab, monkeypatch):
    source = lab.http("s1.zip", unpack="zip")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("stages.fetch.files.unpack", killed)
        lab.download(source)
    lab.download(source)
    assert lab.asked == []
    assert standing() == FILMS
    assert not list(Path("data/.work").rglob("*.zip"))


def test_a_file_in_the_way_of_an_archive_s_is_not_replaced(lab):
    (RAW / "s1").mkdir(parents=True)
    (RAW / "s1/bbaf2n.mpg").write_bytes(b"repaired by hand")
    lab.refused(r"bbaf2n\.mpg is in the way", lab.http("s1.zip", unpack="zip"))
    assert standing() == {"s1/bbaf2n.mpg": b"repaired by hand"}


@pytest.mark.parametrize(
    "source", [{"file": "../evil"}, {"file": "/etc/evil"}, {"file": "a.zip", "unpack": "zip", "into": "../.."}]
)
def test_a_manifest_cannot_lead_out_of_its_folder(lab, source):
    lab.refused("leads out", {"http": lab.server.url("list.txt")} | source)


@pytest.mark.parametrize(
    "source",
    [{"ftp": "x"}, {"http": "x"}, {"http": "x", "file": "a", "sha265": "0"}, {"list": "a.txt"}, {"http": "x", "list": "y"}],
)
def test_a_source_that_is_written_wrongly_is_an_error(lab, source):
    lab.refused("source", source)


# Zenodo


def test_a_record_of_zenodo_tells_sizes_and_checksums(lab):
    archive = zipped({"s2/a.mpg": b"film"})  # once: it bears the time of its making
    lab.server.put("s2.zip", archive)
    api = lab.server.zenodo(3625687, ["s1.zip", "s2.zip"])
    source = {"zenodo": 3625687, "files": {"s1.zip": md5(ARCHIVE), "s2.zip": None}, "unpack": "zip", "api": api}
    record = lab.download(source)
    assert lab.asked[0] == "api/records/3625687"
    assert sorted(lab.asked[1:]) == ["s1.zip", "s2.zip"]
    assert standing() == FILMS | {"s2/a.mpg": b"film"}
    assert record["files"]["s2.zip"]["checksum"] == md5(archive)
    lab.download(source)
    assert lab.asked == []


def test_zenodo_and_the_manifest_must_agree(lab):
    api = lab.server.zenodo(1, ["s1.zip"])
    told = lab.refused("one of them is wrong", {"zenodo": 1, "files": {"s1.zip": md5(b"")}, "api": api})
    assert md5(b"") in told
    assert md5(ARCHIVE) in told
    lab.refused(r"has no s21\.zip; it has s1\.zip", {"zenodo": 1, "files": {"s21.zip": None}, "api": api})


def test_zenodo_s_page_of_an_outage_is_no_answer(lab, monkeypatch):
    api = lab.server.zenodo(1, ["s1.zip"])
    lab.server.put("api/records/1", b'{"status": 200}')
    lab.refused("otherwise than Zenodo's API", {"zenodo": 1, "files": {"s1.zip": None}, "api": api})
    lab.server.put("api/records/1", b"")
    monkeypatch.setattr("stages.fetch.http.Downloader._wait", lambda *_: None)
    lab.server.faults["api/records/1"] = [Page(), Page()]
    lab.refused("web page", {"zenodo": 1, "files": {"s1.zip": None}, "api": api})


# Lists


def make_list(lab: Lab, count: int) -> dict[str, bytes]:
    files = {f"VideoFlash/{i:05d} A.flv": b"film %d" % i for i in range(count)}
    Path("manifests").mkdir(exist_ok=True)
    lines = [f"{sha256(data)} {len(data)} {name}" for name, data in files.items()]
    Path("manifests/tiny.txt").write_text("\n".join(lines) + "\n")
    return files


def test_a_list_of_files(lab):
    files = make_list(lab, 50)
    for name, data in files.items():
        lab.server.put(name, data)
    lab.server.faults = {"VideoFlash/00007 A.flv": [Drop(0.5)], "VideoFlash/00009 A.flv": [Refuse(503, "0")]}
    source = {"list": "tiny.txt", "base": lab.server.url("")}
    lab.download(source)
    assert standing() == files
    assert lab.server.most_at_once <= 2


def test_a_pointer_instead_of_a_film_is_refused(lab, monkeypatch):
    """What CREMA-D's raw addresses give: Git LFS pointers."""
    files = make_list(lab, 3)
    for name in files:
        lab.server.put(name, b"version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setattr("stages.fetch.http.Downloader._wait", lambda *_: None)
    told = lab.refused("43 bytes", {"list": "tiny.txt", "base": lab.server.url("")})
    assert standing() == {}
    assert len(told.splitlines()) == 3


def test_thousands_of_files_that_stand_are_passed_in_no_time(lab):
    files = make_list(lab, 7442)
    (RAW / "VideoFlash").mkdir(parents=True)
    for name, data in files.items():
        (RAW / name).write_bytes(data)
    source = {"list": "tiny.txt", "base": lab.server.url("")}
    lab.download(source)
    started = time.perf_counter()
    lab.download(source)
    assert time.perf_counter() - started < 2
    (RAW / "VideoFlash/00003 A.flv").write_bytes(b"film 4")
    lab.refused(r"00003 A\.flv", source)
    assert lab.asked == []


# Videos


def test_videos_come_and_those_that_are_gone_are_told_of(lab, tmp_path, capfd):
    from tests.media import talking

    lab.server.put("film.mp4", talking(tmp_path / "film.mp4", seconds=0.4).read_bytes())
    lab.adapter.videos = lambda raw: [
        Video("RD_Radio1", lab.server.url("film.mp4"), 360),
        Video("RD_Radio2", lab.server.url("gone.mp4"), 720),
    ]
    record = lab.download({"youtube": "videos", "pauses": [0, 0, 0]})
    assert [path.name for path in (RAW / "videos").iterdir()] == ["RD_Radio1.mp4"]
    assert {name: video["status"] for name, video in record["videos"].items()} == {"RD_Radio1": "downloaded", "RD_Radio2": "gone"}
    assert record["videos"]["RD_Radio1"]["height"] == 360
    assert "1 downloaded, 1 gone" in capfd.readouterr().err
    lab.download({"youtube": "videos", "pauses": [0, 0, 0]})
    assert lab.asked == []


def test_that_no_video_came_is_an_error_that_says_why(lab):
    lab.adapter.videos = lambda raw: [Video(f"v{i}", lab.server.url("gone.mp4"), None) for i in range(3)]
    told = lab.refused("none of its 3 videos came: 3 gone; as one says: .*404", {"youtube": "videos", "pauses": [0, 0, 0]})
    assert "data/raw/tiny/videos/<name>.mp4" in told
    assert len(json.loads(RECORD.read_bytes())["videos"]) == 3


# By hand

MANUAL = {
    "manual": ["faces0?.tgz", "rest.tgz"],
    "or": [["vertices_npy/*.npy", "wav/*.wav", "templates.pkl"]],
    "why": "its site withdrew it",
    "page": "https://example.org/eula",
}


def place(*names: str) -> None:
    for name in names:
        (RAW / name).parent.mkdir(parents=True, exist_ok=True)
        (RAW / name).write_bytes(b"by hand")


def test_what_must_be_placed_by_hand_is_asked_for_in_full(lab):
    place("faces01.tgz")
    assert lab.refused("missing", MANUAL).splitlines() == [
        "tiny: missing: rest.tgz",
        "why it is not fetched: its site withdrew it",
        "licence: CC BY 4.0 https://example.org/eula",
        "files: faces0?.tgz rest.tgz, or vertices_npy/*.npy wav/*.wav templates.pkl",
        "folder: data/raw/tiny",
        "then run: dvc repro download@tiny",
    ]


@pytest.mark.parametrize("names", [("faces01.tgz", "rest.tgz"), ("vertices_npy/F2_e01.npy", "wav/F2_e01.wav", "templates.pkl")])
def test_either_form_of_what_is_placed_by_hand_will_do(lab, names):
    place(*names)
    lab.download(MANUAL)
    assert standing().keys() == set(names)


def test_what_an_archive_holds_may_be_placed_instead_of_it(lab):
    source = lab.http("s1.zip", unpack="zip", form={"password": "NOT_SET"}) | {"or": [["s1/*.mpg", "templates.pkl"]]}
    place("s1/a.mpg")
    lab.refused("NOT_SET", source)
    place("templates.pkl")
    lab.download(source)
    assert standing().keys() == {"s1/a.mpg", "templates.pkl"}


# Packages


def test_a_package_is_fetched_once(lab, tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path, {"tinymedia/a.mp4": b"a film"})
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    member = {"member": "tinymedia/a.mp4", "file": "a.mp4", "sha256": sha256(b"a film")}
    source = {"package": "tinymedia==1.0", "sha256": sha256(wheel.read_bytes()), "members": [member]}
    record = lab.download(source)
    assert standing() == {"a.mp4": b"a film"}
    assert (record["files"]["a.mp4"]["url"], record["files"]["a.mp4"]["status"]) == ("tinymedia==1.0", "downloaded")
    wheel.unlink()
    lab.download(source)


# Licences and logins

STRICT = Licence("for research alone", "https://example.org/licence", accept=True)


def test_a_licence_must_be_accepted_by_name_once(lab, monkeypatch):
    source = lab.http("list.txt")
    told = lab.refused("must be accepted", source, licence=STRICT)
    assert "https://example.org/licence" in told
    assert "TALKINGFACE_ACCEPT_LICENCE=tiny dvc repro download@tiny" in told
    assert lab.asked == []
    monkeypatch.setenv("TALKINGFACE_ACCEPT_LICENCE", "another,tiny2")
    lab.refused("must be accepted", source, licence=STRICT)
    monkeypatch.setenv("TALKINGFACE_ACCEPT_LICENCE", "another, tiny")
    accepted = lab.download(source, licence=STRICT)["licence"]["accepted"]
    assert accepted.startswith("20")
    monkeypatch.delenv("TALKINGFACE_ACCEPT_LICENCE")
    assert lab.download(source, licence=STRICT)["licence"]["accepted"] == accepted
    lab.refused("must be accepted", source, licence=Licence("other terms", "https://example.org/licence", accept=True))


def test_the_licence_is_told(lab, capfd):
    lab.download(lab.http("list.txt"))
    assert "licence: CC BY 4.0 https://example.org/licence" in capfd.readouterr().err


def test_a_login_is_asked_for_by_name_then_used_and_told_nowhere(lab, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    lab.server.login = {"username": "me@example.org", "password": "hunter2"}
    source = lab.http("s1.zip", unpack="zip", form={"username": "VOCA_USERNAME", "password": "VOCA_PASSWORD"})
    told = lab.refused("VOCA_USERNAME and VOCA_PASSWORD", source)
    assert "https://example.org/licence" in told
    assert "data/raw/tiny/s1.zip" in told
    monkeypatch.setenv("VOCA_USERNAME", "me@example.org")
    monkeypatch.setenv("VOCA_PASSWORD", "wrong")
    lab.refused("did not accept the login", source)
    monkeypatch.setenv("VOCA_PASSWORD", "hunter2")
    lab.download(source)
    assert standing() == FILMS
    kept = [path.read_text(errors="replace") for path in Path().rglob("*") if path.is_file() and RAW not in path.parents]
    for text in (*kept, *capfd.readouterr(), told):
        assert "hunter2" not in text
        assert "me@example.org" not in text


# All together


def test_sources_come_in_order_and_the_adapter_finishes(lab):
    """Each source may need what one before it brought, as HDTF's videos need its lists."""
    order = []
    lab.adapter.videos = lambda raw: order.append((raw / "list.txt").read_bytes()) or []
    lab.adapter.prepare = lambda raw: order.append(sorted(standing(raw)))
    lab.download(lab.http("list.txt"), {"youtube": "videos"})
    lab.refused("404", lab.http("missing.txt"), {"youtube": "videos"})
    assert order == [b"a list", ["list.txt"]]


def test_one_process_at_a_time(lab):
    folder = Path("data/.work/download/tiny")
    with download._alone(folder):
        lab.refused("another process", lab.http("list.txt"))
    lab.download(lab.http("list.txt"))
