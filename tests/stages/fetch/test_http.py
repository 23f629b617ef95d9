"""The downloader against a server that misbehaves: the right bytes, or a clear error; never a wrong file."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.fetch import DownloadError, connections
from stages.fetch.http import Downloader, Patience
from stages.fetch.parts import Fetched, Remote
from stages.fetch.progress import FetchProgress
from tests.project import ROOT
from tests.servers import (
    LONG_AGO,
    PAGE,
    Change,
    Corrupt,
    Drop,
    FileServer,
    IgnoreRange,
    Lie,
    Page,
    Redirect,
    Refuse,
    Say,
    Served,
    Slow,
    WrongRange,
)

DATA = random.Random(0).randbytes(60_000)
OTHER = random.Random(1).randbytes(50_000)
NAME = "file.bin"


@dataclass
class Clock:
    """Time that passes only while one sleeps."""

    now: float = 1_700_000_000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def server():
    with FileServer({NAME: DATA}) as server:
        yield server


class Client:
    """A downloader with a clock of its own, and its files."""

    def __init__(self, folder: Path, server: FileServer, **patience):
        self.clock, self.server = Clock(), server
        self.work, self.out = folder / "work", folder / "out"
        self.downloader = Downloader(self.work, Patience(**patience), self.clock.sleep, self.clock, random.Random(0).random)

    def remote(self, name: str = NAME, **known) -> Remote:
        values = {"name": name, "url": self.server.url(name), "target": self.out / name, "place": Path("data/raw/x") / name}
        return Remote(**values | known)

    def fetch(self, name: str = NAME, **known) -> Fetched:
        with FetchProgress("test", 1) as progress:
            return self.downloader.fetch(self.remote(name, **known), progress)

    def refused(self, match: str, name: str = NAME, **known) -> str:
        """The message of the error that fetching ends in; nothing stands in the file's place."""
        with pytest.raises(DownloadError, match=match) as caught:
            self.fetch(name, **known)
        assert not self.out.exists() or not list(self.out.iterdir())
        return str(caught.value)


@pytest.fixture
def client(tmp_path, server) -> Client:
    return Client(tmp_path, server)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def git_blob(data: bytes) -> str:
    """As `git hash-object` names it."""
    done = subprocess.run(["git", "hash-object", "--stdin"], input=data, capture_output=True, check=True)
    return f"git_blob:{done.stdout.decode().strip()}"


@pytest.mark.parametrize("checksum", [sha256, md5, git_blob])
@pytest.mark.parametrize("data", [DATA, b""])
def test_a_file_comes_whole_and_is_checked(client, server, checksum, data):
    server.put(NAME, data)
    fetched = client.fetch(checksum=checksum(data), bytes=len(data))
    assert (client.out / NAME).read_bytes() == data
    assert (f"sha256:{fetched.sha256}", fetched.bytes) == (sha256(data), len(data))
    assert list(client.work.iterdir()) == []
    assert "talkingface" in server.asked[0].headers["User-Agent"]


@pytest.mark.parametrize("version", [Served(DATA, '"v1"', LONG_AGO), Served(DATA, '"v1"'), Served(DATA, None, LONG_AGO)])
def test_a_broken_download_goes_on_where_it_was(client, server, version):
    server.put(NAME, version)
    server.faults[NAME] = [Drop(0.6), Drop(0.5)]
    client.fetch(checksum=sha256(DATA))
    assert (client.out / NAME).read_bytes() == DATA
    assert [asked.first for asked in server.asked] == [0, 36_000, 48_000]
    assert server.asked[1].headers["If-Range"] == (version.etag or formatdate(LONG_AGO, usegmt=True))
    assert server.served(NAME) == len(DATA)


@pytest.mark.parametrize("version", [Served(DATA), Served(DATA, 'W/"v1"')])
def test_without_a_word_for_the_version_a_broken_download_begins_again(client, server, version):
    server.put(NAME, version)
    server.faults[NAME] = [Drop(0.6)]
    client.fetch(bytes=len(DATA))
    assert [asked.first for asked in server.asked] == [0, 0]


@pytest.mark.parametrize("known", [{}, {"bytes": len(OTHER)}, {"checksum": sha256(OTHER)}])
def test_a_file_that_changes_between_tries_is_not_sewn_together(client, server, known):
    server.faults[NAME] = [Change(OTHER)]
    client.fetch(**known)
    assert (client.out / NAME).read_bytes() == OTHER


def test_a_file_that_changes_in_silence_is_found_by_its_checksum(client, server):
    server.faults[NAME] = [Change(OTHER, silent=True)]
    client.fetch(checksum=sha256(OTHER))
    assert (client.out / NAME).read_bytes() == OTHER
    assert server.asked[-1].first == 0


def test_a_wrong_checksum_gets_one_fresh_try_then_an_error_with_both(client, server):
    told = client.refused("new version", checksum=sha256(OTHER))
    assert sha256(OTHER) in told
    assert sha256(DATA) in told
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "fault",
    [IgnoreRange(), WrongRange(-7), WrongRange(7), Say({"Content-Range": "bytes 0-9/10"}), Say({"Content-Range": None}),
     Say({"Content-Range": f"bytes 30000-{len(DATA) - 1}/99999"}), Say({"ETag": '"another"'}), Refuse(416), Refuse(206)],
)  # fmt: skip
def test_a_rest_that_is_not_the_rest_begins_again(client, server, fault):
    server.faults[NAME] = [Drop(0.5), fault]
    client.fetch()
    assert (client.out / NAME).read_bytes() == DATA


@pytest.mark.parametrize("known", [{}, {"bytes": len(DATA)}, {"checksum": md5(DATA)}])
@pytest.mark.parametrize("by", [-1, 1, -30_000, 30_000])
def test_a_lie_about_the_length_is_found(client, server, known, by):
    server.faults[NAME] = [Lie(by)]
    client.fetch(**known)
    assert (client.out / NAME).read_bytes() == DATA


@pytest.mark.parametrize("by", [-1, 1])
def test_a_server_that_goes_on_lying_about_the_length_gets_an_error(client, server, by):
    server.faults[NAME] = [Lie(by) for _ in range(20)]
    client.refused("bytes", bytes=len(DATA))


def test_a_length_that_is_not_said_needs_a_checksum(client, server):
    server.faults[NAME] = [Say({"Content-Length": None}), Say({"Content-Length": None})]
    client.fetch(checksum=sha256(DATA))
    (client.out / NAME).unlink()
    client.refused("checksum")


def test_what_the_server_asks_to_wait_is_waited(client, server):
    in_a_minute = formatdate(client.clock.now + 60, usegmt=True)
    server.faults[NAME] = [Refuse(429, "7"), Refuse(503, in_a_minute), Refuse(503, "soon"), Refuse(500), Refuse(503, "-1")]
    client.fetch()
    asked, until, *own = client.clock.slept
    assert (asked, until) == (7, pytest.approx(60 - 7, abs=1))
    assert all(2 <= seconds <= 16 for seconds in own)
    assert own == sorted(own)


def test_a_server_that_asks_to_wait_for_hours_gets_an_error_that_says_so(client, server):
    server.faults[NAME] = [Refuse(503, "7300")]
    client.refused("asks to wait 2 h 2 min")
    assert client.clock.slept == []


def test_patience_ends(client, server):
    server.faults[NAME] = [Refuse(503) for _ in range(99)]
    client.refused("answers 503")
    assert len(server.asked) == 8
    assert sum(client.clock.slept) < 200


def test_progress_renews_patience(client, server):
    data = random.Random(2).randbytes(200_000)
    server.put(NAME, data)
    server.faults[NAME] = [Drop(0.04) for _ in range(60)]
    Client(client.work.parent, server, step=1000, tries=3).fetch(checksum=sha256(data))
    assert len(server.asked) > 50


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(client, server, status):
    server.faults[NAME] = [Refuse(status)]
    client.refused(f"{status}[\\s\\S]*data/raw/x/file.bin")
    assert len(server.asked) == 1


def test_a_server_that_is_not_there(client):
    client.refused("no connection to 127.0.0.1.*run again", url="http://127.0.0.1:1/file.bin")


def test_a_server_that_falls_silent(tmp_path, server):
    server.faults[NAME] = [Slow(0.5)]
    client = Client(tmp_path, server, read_s=0.1)
    client.fetch(bytes=len(DATA))
    assert len(server.asked) == 2


def test_a_connection_that_all_but_stands_still_is_left(tmp_path, server):
    server.put(NAME, bytes(1_000_000))
    server.pace_s = 0.05
    Client(tmp_path, server, read_s=0.1, slowest=1e9, tries=3).refused("stands still")


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/zip"])
def test_a_page_is_no_file(client, server, content_type):
    server.faults[NAME] = [Page(content_type), Page(content_type)]
    told = client.refused("web page", holds="zip")
    assert "login or a licence" in told
    server.faults[NAME] = [Page(content_type)]
    client.fetch()
    assert (client.out / NAME).read_bytes() == DATA


def test_a_page_that_is_wanted_is_a_file(client, server):
    server.put("readme.html", PAGE)
    client.fetch("readme.html")
    assert (client.out / "readme.html").read_bytes() == PAGE


def test_what_is_no_zip_is_not_taken_for_one(client):
    client.refused("no zip", holds="zip")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(client, server, status):
    server.put("there.bin", DATA)
    server.faults[NAME] = [Redirect("/there.bin", status)]
    client.fetch()
    assert (client.out / NAME).read_bytes() == DATA


def test_redirects_end(client, server):
    server.faults[NAME] = [Redirect(f"/{NAME}") for _ in range(99)]
    client.refused("redirects more than 10 times")


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_out_of_http_is_refused(client, server, to):
    server.faults[NAME] = [Redirect(to)]
    client.refused("refused")


def test_nothing_goes_from_https_on_to_http(client, server, monkeypatch):
    """The one place where the network is not real: no certificate here is valid."""
    asked = []

    def request(session, method, url, **said):
        asked.append(url)
        answer = connections.requests.Response()
        answer.status_code, answer.headers["Location"], answer.raw = 302, server.url(NAME), SimpleNamespace(close=lambda: None)
        return answer

    monkeypatch.setattr(connections.requests.Session, "request", request)
    client.refused("https to http: refused", url="https://example.org/file.bin")
    assert asked == ["https://example.org/file.bin"]


def test_a_certificate_that_is_not_valid_is_not_accepted(client, server, tmp_path):
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
    client.refused("certificate of localhost is not valid", url=server.url(NAME, "localhost").replace("http:", "https:"))


LOGIN = {"username": "someone@example.org", "password": "hunter2&=ä"}
FORM = {"username": "TEST_USERNAME", "password": "TEST_PASSWORD"}
FORM_KNOWN = {"form": FORM, "holds": None, "page": "https://example.org/register"}


@pytest.fixture
def login(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, variable in FORM.items():
        monkeypatch.setenv(variable, LOGIN[name])


def test_a_login_is_posted_and_a_broken_download_goes_on(client, server, login):
    server.login = LOGIN
    server.faults[NAME] = [Drop(0.5)]
    client.fetch(**FORM_KNOWN)
    assert (client.out / NAME).read_bytes() == DATA
    assert [(asked.method, asked.form) for asked in server.asked[:2]] == [("POST", LOGIN)] * 2
    assert server.asked[1].first == len(DATA) // 2


def test_a_login_that_is_not_accepted_is_tried_once(client, server, login):
    server.login = LOGIN | {"password": "another"}
    told = client.refused("did not accept the login", **FORM_KNOWN)
    assert "TEST_USERNAME and TEST_PASSWORD" in told
    assert "https://example.org/register" in told
    assert len(server.asked) == 1


def test_a_login_that_is_not_there_is_asked_for_by_name(client, server, login, monkeypatch):
    monkeypatch.delenv("TEST_PASSWORD")
    told = client.refused("wants a login", **FORM_KNOWN)
    assert "TEST_PASSWORD" in told
    assert "https://example.org/register" in told
    assert "data/raw/x/file.bin" in told
    assert server.asked == []


def test_netrc_stands_in_for_the_environment(client, server, login, monkeypatch, tmp_path):
    for variable in FORM.values():
        monkeypatch.delenv(variable)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    server.login = {"username": "me", "password": "secret"}
    client.fetch(**FORM_KNOWN)
    assert "Authorization" not in server.asked[0].headers


def test_netrc_is_sent_to_nobody_who_is_not_asked_to_log_in(client, server, monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("default login me password secret\n")
    server.faults[NAME] = [Redirect(server.url(NAME, "localhost"))]
    client.fetch()
    assert all("Authorization" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_login_is_not_sent_on_to_another_host(client, server, login, status):
    server.put("there.bin", DATA)
    server.faults[NAME] = [Redirect(server.url("there.bin", "localhost"), status)]
    try:
        client.fetch(**FORM_KNOWN)
    except DownloadError as error:
        assert status in (307, 308)
        assert "login on to localhost" in str(error)
    assert server.asked[0].form == LOGIN
    there = [asked for asked in server.asked if asked.name == "there.bin"]
    assert [(asked.method, asked.body) for asked in there] == [("GET", b"")] * (status not in (307, 308))


def test_no_secret_is_told(client, server, login, capfd, caplog):
    """Neither in messages, nor in what is kept, whatever goes wrong."""
    caplog.set_level(0)
    told = []
    signed = Redirect("http://127.0.0.1:1/?X-Signature=signature")
    for faults in ([Page()], [Refuse(401)], [Refuse(404)], [Refuse(503)] * 8, [Corrupt(0.5)] * 2, [Drop(0.0)] * 8, [signed] * 8):
        server.faults[NAME] = faults
        address = server.url(NAME).replace("http://", "http://name:word@") + "?key=signature"
        with pytest.raises(DownloadError) as caught:
            client.fetch(**FORM_KNOWN, checksum=sha256(DATA), url=address)
        told += [str(caught.value), repr(caught.value), str(caught.getrepr(style="short"))]
        told += [path.read_text(errors="replace") for path in client.work.glob("*.json")]
        assert not any(word in told[-2] for word in ("word@", "signature"))
    for text in [*told, *capfd.readouterr(), caplog.text]:
        assert LOGIN["password"] not in text
        assert LOGIN["username"] not in text


def test_a_disk_that_is_too_small_is_told_before(client, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_010_000))
    client.refused("60.0 kB are to come, and 100 MB are free")
    assert len(server.asked) == 1


def test_a_disk_that_runs_full_keeps_what_came(client, server, monkeypatch):
    write = os.write
    monkeypatch.setattr("stages.fetch.parts.Part.append", lambda part, chunk: write(os.open("/dev/full", os.O_WRONLY), chunk))
    client.refused("disk is full")


def test_many_files_come_two_at_a_time_from_one_host(tmp_path, server):
    files = {f"many/{i}.bin": random.Random(i).randbytes(40_000) for i in range(12)}
    for name, data in files.items():
        server.put(name, data)
    server.pace_s = 0.01
    client = Client(tmp_path, server)
    remotes = [client.remote(name, checksum=sha256(data)) for name, data in files.items()]
    came = {}
    with FetchProgress("test", len(files)) as progress:
        client.downloader.fetch_all(remotes, progress, lambda remote, fetched: came.__setitem__(remote.name, fetched.sha256))
    assert came == {name: sha256(data).removeprefix("sha256:") for name, data in files.items()}
    assert server.most_at_once == 2


def test_one_failure_does_not_stop_the_others(tmp_path, server):
    names = [f"many/{i}" for i in range(12)]
    for name in names:
        server.put(name, DATA)
    server.faults["many/3"] = [Refuse(404)]
    client = Client(tmp_path, server)
    came = []
    with FetchProgress("test", 12) as progress, pytest.raises(DownloadError, match=r"^many/3: the server answers 404[^\n]*$"):
        client.downloader.fetch_all([client.remote(name) for name in names], progress, lambda remote, _: came.append(remote.name))
    assert sorted(came) == sorted(set(names) - {"many/3"})


def test_many_failures_in_a_row_stop_the_rest(tmp_path, server):
    client = Client(tmp_path, server)
    remotes = [client.remote(f"missing/{i}") for i in range(500)]
    with (
        FetchProgress("test", 500) as progress,
        pytest.raises(DownloadError, match="495 more files failed or were not tried"),
    ):
        client.downloader.fetch_all(remotes, progress, lambda *_: None)
    assert len(server.asked) < 50


DOWNLOAD = """
import sys
from pathlib import Path
from stages.fetch.http import Downloader
from stages.fetch.parts import Remote
from stages.fetch.progress import FetchProgress
url, folder = sys.argv[1], Path(sys.argv[2])
with FetchProgress("test", 1) as progress:
    Downloader(folder / "work").fetch(Remote("file.bin", url, folder / "out/file.bin", folder / "out/file.bin"), progress)
"""


def test_a_killed_process_goes_on_where_it_was(tmp_path, server):
    data = random.Random(3).randbytes(2_000_000)
    server.put(NAME, data)
    server.pace_s = 0.02
    part = tmp_path / "work/file.bin.part"
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, server.url(NAME), str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 1_000_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out/file.bin").exists()
    server.pace_s = 0
    Client(tmp_path, server).fetch(checksum=sha256(data))
    assert (tmp_path / "out/file.bin").read_bytes() == data
    assert server.asked[1].first > 1_000_000
    assert server.asked[1].served == len(data) - server.asked[1].first


def test_a_kill_between_the_last_byte_and_the_rename_costs_nothing(tmp_path, server, monkeypatch):
    def killed(part):
        raise KeyboardInterrupt

    client = Client(tmp_path, server)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("stages.fetch.parts.Part.publish", killed)
        client.fetch(checksum=sha256(DATA))
    client.fetch(checksum=sha256(DATA))
    assert (client.out / NAME).read_bytes() == DATA
    assert len(server.asked) == 1


def random_fault(chance: random.Random, other: bytes, checked: bool):
    """Any misbehaviour; those that only a checksum can find, only where there is one."""
    faults = [
        Drop(chance.random()),
        Drop(chance.random()),
        IgnoreRange(),
        Lie(chance.randint(-2000, -1)),
        Lie(chance.randint(1, 2000)),
        Refuse(429, str(chance.randint(0, 30))),
        Refuse(503, formatdate(1_700_000_000 + chance.randint(-100, 100), usegmt=True)),
        Refuse(chance.choice([500, 502, 503, 504])),
        Redirect(f"/{NAME}", chance.choice([301, 302, 303, 307, 308])),
        Page(chance.choice(["text/html", "application/octet-stream"])),
        Change(other),
        Slow(0.005),
        WrongRange(chance.choice([-100, -1, 1, 100])),
        Say({"Content-Length": None}),
        Say({"ETag": None, "Last-Modified": None}),
    ]
    if checked:
        faults += [Corrupt(chance.random()), Change(other, silent=True)]
    return chance.choice(faults)


def test_two_hundred_random_servers(tmp_path):
    """Each download ends with exactly the bytes of one version of the file, or with an error and nothing in its place."""
    outcomes = {"right": 0, "error": 0}
    with FileServer() as server:
        for seed in range(200):
            chance = random.Random(seed)
            data = chance.randbytes(chance.choice([0, 1, 511, 5_000, 70_000, 300_000]))
            other = chance.randbytes(chance.choice([0, 1, len(data), len(data) + 1, 40_000]))
            checksum = chance.choice([None, sha256, md5])
            wanted = chance.choice([data, data, other])
            known = {"checksum": checksum and checksum(wanted), "bytes": chance.choice([None, len(wanted)])}
            server.put(NAME, data)
            server.faults[NAME] = [random_fault(chance, other, checksum is not None) for _ in range(chance.randrange(7))]
            client = Client(tmp_path / str(seed), server)
            try:
                client.fetch(**known)
            except DownloadError as error:
                outcomes["error"] += 1
                assert NAME in str(error)
                assert not (client.out / NAME).exists()
            else:
                outcomes["right"] += 1
                found = (client.out / NAME).read_bytes()
                assert found in ([wanted] if checksum else [data, other]), f"seed {seed}: a wrong file"
                assert known["bytes"] in (None, len(found))
            finally:
                server.faults[NAME] = []
    assert outcomes["right"] > 100
    assert outcomes["error"] > 10
