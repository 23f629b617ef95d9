"""Web videos: yt-dlp itself, against a server here; and the sentences that YouTube answers with, as people reported them."""

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest
from yt_dlp.utils import DownloadError as YtDlpError
from yt_dlp.utils import ExtractorError, GeoRestrictedError

from data.corpora import Video
from stages.fetch import DownloadError
from stages.fetch.record import VideoEntry
from stages.fetch.youtube import FINAL, Pauses, classify, fetch_videos, join
from tests.media import voice, write_video
from tests.servers import Drop, FileServer, Page, Refuse

AT_ONCE = Pauses(0, 0, 0)
FPS = 25


def film(path: Path, height: int, sound: bool) -> Path:
    """Half a second of noise, so that no two frames are alike."""
    chance = np.random.default_rng(height)
    frames = [chance.integers(0, 255, (height, height * 2, 3), np.uint8) for _ in range(FPS // 2)]
    return write_video(path, frames, [index / FPS for index in range(len(frames))], voice(0.5) if sound else None)


def spoken(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice(0.5)[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


MANIFEST = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT0.5S">
<Period>
<AdaptationSet mimeType="video/mp4">{pictures}</AdaptationSet>
<AdaptationSet mimeType="audio/mp4"><Representation id="sound" codecs="mp4a.40.2" bandwidth="64000" audioSamplingRate="44100">
<BaseURL>sound.m4a</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""
PICTURES = """<Representation id="p{height}" codecs="avc1.4d401e" bandwidth="{height}000" width="{width}" height="{height}">
<BaseURL>p{height}.mp4</BaseURL></Representation>"""


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[str, bytes]:
    """A video as YouTube has them: pictures of three heights, sound apart; and one whole, one silent."""
    folder = tmp_path_factory.mktemp("media")
    files = {f"p{height}.mp4": film(folder / f"{height}.mp4", height, sound=False) for height in (48, 96, 144)}
    files |= {"sound.m4a": spoken(folder / "sound.m4a"), "whole.mp4": film(folder / "whole.mp4", 96, sound=True)}
    pictures = "".join(PICTURES.format(height=height, width=2 * height) for height in (48, 96, 144))
    manifest = {"apart.mpd": MANIFEST.format(pictures=pictures).encode()}
    return {name: path.read_bytes() for name, path in files.items()} | manifest | {"silent.mp4": files["p48.mp4"].read_bytes()}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("YTDLP_COOKIES_FILE", raising=False)


@pytest.fixture
def server(media):
    with FileServer(media) as server:
        yield server


class Fetcher:
    def __init__(self, folder: Path, server: FileServer):
        self.videos, self.work, self.server = folder / "videos", folder / "work", server
        self.known: dict[str, VideoEntry] = {}
        self.told: list[str] = []

    def __call__(self, *videos: Video) -> dict[str, str]:
        """The status of each."""
        found = fetch_videos(videos, self.videos, self.work, self.known, self.told.append, AT_ONCE)
        self.known |= {video.name: entry for video, entry in found}
        return {video.name: self.known[video.name].status for video in videos}

    def video(self, name: str, file: str, height: int | None = None) -> Video:
        return Video(name, self.server.url(file), height)


@pytest.fixture
def fetch(tmp_path, server) -> Fetcher:
    return Fetcher(tmp_path, server)


def packets(data: Path, kind: str) -> list[tuple[bytes, float]]:
    """The compressed frames of a stream, and when each is shown."""
    with av.open(str(data)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (bytes(packet), float(packet.pts * packet.time_base)) for packet in container.demux(stream) if packet.dts is not None
        ]


@pytest.mark.parametrize(("wanted", "height"), [(96, 96), (100, 96), (48, 48), (20, 48), (None, 144), (1080, 144)])
def test_the_height_that_is_wanted_or_the_nearest_comes_with_sound(fetch, tmp_path, server, media, wanted, height):
    assert fetch(fetch.video("RD_Radio1", "apart.mpd", wanted)) == {"RD_Radio1": "downloaded"}
    entry = fetch.known["RD_Radio1"]
    path = tmp_path / "videos/RD_Radio1.mp4"
    assert (entry.wanted, entry.height, entry.bytes) == (wanted, height, path.stat().st_size)
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for kind, source in (("video", f"p{height}.mp4"), ("audio", "sound.m4a")):
        (tmp_path / "source").write_bytes(media[source])
        came, was = packets(path, kind), packets(tmp_path / "source", kind)
        assert [data for data, _ in came] == [data for data, _ in was]
        assert [time for _, time in came] == pytest.approx([time for _, time in was], abs=0.001)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_video_that_has_its_sound_with_it_comes_too(fetch, tmp_path):
    assert fetch(fetch.video("a", "whole.mp4")) == {"a": "downloaded"}
    assert len(packets(tmp_path / "videos/a.mp4", "video")) == 12
    assert packets(tmp_path / "videos/a.mp4", "audio")


def test_no_failure_ends_the_run(fetch, server):
    server.faults = {"a": [Refuse(404)], "b": [Refuse(429)] * 9, "c": [Page()], "d": [Refuse(410)]}
    for name in "abcd":
        server.put(name, b"x")
    assert fetch(
        fetch.video("gone", "a"),
        fetch.video("limited", "b"),
        fetch.video("page", "c"),
        fetch.video("deleted", "d"),
        fetch.video("silent", "silent.mp4"),
        Video("nowhere", "http://127.0.0.1:1/x.mp4", None),
        fetch.video("good", "whole.mp4"),
    ) == {
        "gone": "gone",
        "limited": "rate_limited",
        "page": "failed",
        "deleted": "gone",
        "silent": "no_format",
        "nowhere": "failed",
        "good": "downloaded",
    }
    assert "no sound" in fetch.known["silent"].detail
    assert all(entry.detail for entry in fetch.known.values() if entry.status != "downloaded")


def test_another_run_asks_for_what_may_come_and_for_nothing_else(fetch, server):
    wanted = [fetch.video("gone", "a"), fetch.video("limited", "b"), fetch.video("good", "whole.mp4")]
    server.put("b", b"")
    server.faults = {"b": [Refuse(429)] * 9}
    fetch(*wanted)
    server.faults = {}
    server.put("a", server._files["whole.mp4"])
    server.put("b", server._files["whole.mp4"])
    server.asked.clear()
    assert fetch(*wanted) == {"gone": "gone", "limited": "downloaded", "good": "downloaded"}
    assert {asked.name for asked in server.asked} == {"b"}


def test_what_a_person_placed_stays(fetch, server, media):
    fetch.videos.mkdir()
    (fetch.videos / "dead.mp4").write_bytes(media["whole.mp4"])
    (fetch.videos / "odd.mp4").write_bytes(b"no film")
    fetch.known["dead"] = VideoEntry("https://example.org/dead", "gone", "2026-01-01")
    assert fetch(fetch.video("dead", "nothing"), fetch.video("odd", "nothing")) == {"dead": "by_hand", "odd": "by_hand"}
    assert (fetch.videos / "dead.mp4").read_bytes() == media["whole.mp4"]
    assert (fetch.known["dead"].height, fetch.known["odd"].height) == (96, None)
    assert server.asked == []


def test_a_broken_connection_is_gone_on_with(fetch, server):
    server.faults = {"p96.mp4": [Drop(0.5)]}
    assert fetch(fetch.video("a", "apart.mpd", 96)) == {"a": "downloaded"}
    assert any(asked.name == "p96.mp4" and asked.first > 0 for asked in server.asked)


def test_a_server_that_refuses_is_left_alone(fetch, server):
    names = [f"v{i}" for i in range(9)]
    for name in names:
        server.put(name, b"x")
        server.faults[name] = [Refuse(429)] * 9
    assert set(fetch(*(fetch.video(name, name) for name in names)).values()) == {"rate_limited"}
    assert {asked.name for asked in server.asked} == set(names[:5])
    assert "not asked for" in fetch.known["v8"].detail


def test_a_video_with_an_evil_name_is_refused(fetch):
    with pytest.raises(DownloadError, match="evil"):
        fetch(fetch.video("../evil", "whole.mp4"))


COOKIE = "127.0.0.1\tFALSE\t/\tFALSE\t4000000000\tsession\tverysecret\n"


def test_cookies_come_from_the_file_that_is_named_which_stays_as_it_is(fetch, server, tmp_path, monkeypatch):
    file = tmp_path / "cookies.txt"
    file.write_text("# Netscape HTTP Cookie File\n" + COOKIE)
    before = file.read_bytes()
    monkeypatch.setenv("YTDLP_COOKIES_FILE", str(file))
    fetch(fetch.video("a", "whole.mp4"))
    assert server.asked[0].headers["Cookie"] == "session=verysecret"
    assert file.read_bytes() == before
    assert "verysecret" not in str(fetch.known)


@pytest.mark.parametrize("text", ["session=verysecret\n", '[{"name": "verysecret"}]', COOKIE.replace("\t", " ")])
def test_a_cookies_file_that_is_none_is_an_error_that_does_not_show_it(fetch, tmp_path, monkeypatch, capfd, text):
    (tmp_path / "cookies.txt").write_text("# Netscape HTTP Cookie File\n" + text)
    monkeypatch.setenv("YTDLP_COOKIES_FILE", str(tmp_path / "cookies.txt"))
    with pytest.raises(DownloadError, match="YTDLP_COOKIES_FILE") as caught:
        fetch(fetch.video("a", "whole.mp4"))
    assert "verysecret" not in str(caught.getrepr(style="short")) + "".join(capfd.readouterr())


def test_a_film_of_several_files_is_joined_from_the_right_ones(tmp_path, media):
    for name in ("silent.mp4", "whole.mp4", "sound.m4a"):
        (tmp_path / name).write_bytes(media[name])
    join([tmp_path / "silent.mp4", tmp_path / "whole.mp4"], tmp_path / "out.mp4")
    assert packets(tmp_path / "out.mp4", "video") == packets(tmp_path / "silent.mp4", "video")
    assert packets(tmp_path / "out.mp4", "audio") == packets(tmp_path / "whole.mp4", "audio")


HINT = "Use --cookies-from-browser or --cookies for the authentication."
REPORTED = {
    "Video unavailable. This content isn't available, try again later. The current session has been rate-limited": "rate_limited",
    "Unable to download API page: HTTP Error 429: Too Many Requests (caused by <HTTPError 429: …>)": "rate_limited",
    f"Sign in to confirm you’re not a bot. {HINT}": "bot_check",
    "Sign in to confirm you’re not a bot. This helps protect our community. Learn more": "bot_check",
    "Video unavailable. YouTube is requiring a captcha challenge before playback": "bot_check",
    f"Sign in to confirm your age. This video may be inappropriate for some users. {HINT}": "age_restricted",
    "Video unavailable. The uploader has not made this video available in your country": "geo_blocked",
    "This video contains content from SME, who has blocked it in your country on copyright grounds": "geo_blocked",
    f"Private video. Sign in if you've been granted access to this video. {HINT}": "private",
    "This video is private. If the owner of this video has granted you access, please sign in.": "private",
    "Video unavailable. This video is private": "private",
    "Join this channel to get access to members-only content like this video, and other exclusive perks.": "private",
    "Video unavailable": "gone",
    "Video unavailable. This video has been removed by the uploader": "gone",
    "This video is no longer available because the YouTube account associated with this video has been terminated.": "gone",
    "This video has been removed for violating YouTube's Terms of Service": "gone",
    "Video unavailable. This video is no longer available due to a copyright claim by Viacom": "gone",
    "This video isn't available anymore": "gone",
    "This video is not available": "gone",
    "This video is unavailable.": "gone",
    "Requested format is not available. Use --list-formats for a list of available formats": "no_format",
    "No video formats found!; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q=": "no_format",
    "This video is DRM protected": "no_format",
    "Video unavailable. This content isn’t available.": "failed",
    "The following content is not available on this app.. Watch on the latest version of YouTube": "failed",
    "Unable to download webpage: <urlopen error [Errno -2] Name or service not known> (caused by URLError())": "failed",
    "Premieres in 2 hours": "failed",
    "unable to download video data: HTTP Error 403: Forbidden": "failed",
}


@pytest.mark.parametrize(("sentence", "status"), REPORTED.items())
def test_what_youtube_says_is_understood(sentence, status):
    original = ExtractorError(sentence, expected=True, video_id="CPCoMyuBRM0", ie="youtube")
    error = YtDlpError(f"ERROR: {original}", (ExtractorError, original, None))
    found, detail = classify(error)
    assert found == status
    assert classify(YtDlpError(f"ERROR: [youtube] CPCoMyuBRM0: {sentence}"))[0] == status
    assert "caused by" not in detail
    assert "--cookies" not in detail
    assert "\n" not in detail
    assert (status in FINAL) == (status in ("gone", "private"))


def test_a_region_is_understood_without_words():
    original = GeoRestrictedError("Nicht verfügbar", countries=["DE"])
    assert classify(YtDlpError("ERROR: Nicht verfügbar", (GeoRestrictedError, original, None)))[0] == "geo_blocked"
