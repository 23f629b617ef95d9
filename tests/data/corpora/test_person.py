"""A film of one's own: where it is cut, what it may be named, and what is refused."""

import os
import struct
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from data.corpora import Refused, corpus_clips
from data.corpora.person import PAUSE, cut
from data.manifest import WrongManifest, manifest, splits
from data.media.audio import samples_at
from data.shardset import json_object
from tests.media import RATE
from tests.miniatures.formats import Format, talker, write_film
from tests.miniatures.lrs3 import write_native as write_lrs3
from tests.miniatures.person import FORMAT, PAUSES, SECONDS, speech, write_native, write_person

MEDIA = Path(__file__).parents[4] / "shared" / "media" / "person"


def found(raw: Path, **settings: float) -> tuple[dict[str, dict], dict[str, Refused]]:
    known = manifest("person")
    all_of_them = list(corpus_clips(replace(known, settings=known.settings | settings), raw))
    good = {clip.key: json_object(clip.members["json"]) for clip in all_of_them if not isinstance(clip, Refused)}
    bad = {refused.key: refused for refused in all_of_them if isinstance(refused, Refused)}
    assert len(good) + len(bad) == len(all_of_them)
    return good, bad


def stretches(clips: dict[str, dict], speaker: str) -> list[tuple[float, float]]:
    """Of one film, in the order of its keys; checked to cover it without gap or overlap, on the frames of 25 fps."""
    times = [(about["start"], about["end"]) for key, about in sorted(clips.items()) if key.startswith(f"{speaker}/")]
    assert times[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(times))
    assert all(end * 25 == pytest.approx(round(end * 25)) for _, end in times)
    return times


def test_a_film_is_cut_in_its_pauses_and_nothing_is_lost(tmp_path):
    good, bad = found(write_native(tmp_path))
    assert not bad
    anna = stretches(good, "anna")
    assert [key for key in good if key.startswith("anna/")] == [f"anna/{index:03d}" for index in range(len(anna))]
    assert len(anna) == len(PAUSES) + 1
    for (_, end), (quiet, loud) in zip(anna, PAUSES, strict=False):
        assert quiet < end < loud
    assert anna[-1][1] == SECONDS
    assert {key for key in good if key.startswith("ben/")} == {"ben/kitchen-000", "ben/monday-a_walk_31de1104-000"}
    assert len({about["sha256"] for about in good.values()}) == 2  # ben's films are equal


@pytest.mark.parametrize(("noise", "rate"), [(0.02, 16_000), (0.0, 8000)])
def test_pauses_are_found_in_noise_in_silence_and_at_any_rate(tmp_path, noise, rate):
    form = replace(FORMAT, container="matroska", rate=rate)
    write_person(tmp_path / "anna.mkv", form=form, noise=noise)
    good, _ = found(tmp_path)
    assert [any(quiet < end < loud for quiet, loud in PAUSES) for _, end in stretches(good, "anna")[:-1]] == [True] * len(PAUSES)


def test_without_a_pause_a_film_is_cut_as_late_as_allowed_and_no_stub_remains(tmp_path):
    write_person(tmp_path / "anna.mp4", 17.0, ())
    times = stretches(found(tmp_path)[0], "anna")
    assert times == [(0, 8), (8, 14), (14, 17)]


def test_every_cut_is_within_bounds_whatever_is_quiet():
    dice = np.random.default_rng(0)
    for _ in range(300):
        count, shortest = int(dice.integers(1, 900)), int(dice.integers(1, 60))
        longest = int(shortest * dice.uniform(2, 5))
        quiet = np.repeat(dice.random(count) < dice.random(), dice.integers(1, 12))[:count]
        cuts = cut(quiet, shortest, longest)
        lengths = np.diff(cuts)
        assert (cuts[0], cuts[-1]) == (0, count)
        assert (lengths <= longest).all()
        assert len(lengths) == 1 or (lengths >= shortest).all()


def test_the_longest_pause_is_taken_and_a_breath_is_none():
    quiet = np.zeros(300, bool)
    quiet[100:110] = quiet[130:145] = quiet[160 : 160 + PAUSE - 1] = True
    assert cut(quiet, 75, 200)[1] == 137
    assert cut(~np.ones(300, bool), 75, 200)[1] == 200
    with pytest.raises(WrongManifest, match="longest"):
        found(Path("nowhere"), shortest=3, longest=5)


def test_any_corpus_of_folders_of_films_is_taken(tmp_path):
    good, bad = found(write_lrs3(tmp_path) / "pretrain")
    assert not bad
    assert good.keys() == {"-AbC_1dEfGh/00001-000", "-AbC_1dEfGh/00002-000"}


def test_strange_names_are_made_safe_and_none_is_taken_for_another(tmp_path):
    write_person(tmp_path / "anna.mp4", 4.0, ())
    data = (tmp_path / "anna.mp4").read_bytes()
    names = ["anna.mov", "anna/000.mp4", "anna/film.mp4", "anna/a-b.mp4", "anna/a/b.mp4", "anna/a/b.MOV", "a\nb.mp4", "ä ö/ü.mp4"]
    names += [f"{'long ' * 40}.mp4", f"long/{'x' * 200}.mp4", "__x/__y.mp4", ".hidden/x.mp4", "anna/._x.mp4", "anna/notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with open(os.fsencode(tmp_path) + b"/\xe4.mp4", "wb") as file:
        file.write(data)
    good, bad = found(tmp_path)
    assert len(good) == 1 + len(names) - 3
    assert [(refused.reason, "rename" in refused.detail) for refused in bad.values()] == [("unsafe file", True)]
    assert "anna/000-000" in good
    assert {len({about["source"] for about in good.values()})} == {len(good)}


def test_what_is_no_film_is_refused_by_name_and_the_rest_goes_on(tmp_path):
    raw = tmp_path / "raw"
    write_person(raw / "anna.mp4", 4.0, ())
    whole = (raw / "anna.mp4").read_bytes()
    frames = talker(1.0, Fraction(25), 64, 64)
    write_film(raw / "mute.mp4", FORMAT, frames, None)
    with av.open(str(raw / "blind.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        samples = av.AudioFrame.from_ndarray(speech(1.0, ())[None], format="fltp", layout="mono")
        samples.sample_rate = RATE
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    (raw / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (raw / "page.mp4").write_bytes(b"<html></html>")
    (raw / "empty.mov").write_bytes(b"")
    write_giant(raw / "giant.avi")
    (tmp_path / "secret.mp4").write_bytes(whole)
    (raw / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    good, bad = found(raw)
    assert good.keys() == {"anna/000"}
    assert {key: refused.reason for key, refused in bad.items()} == {
        "mute/000": "no audio stream",
        "blind/000": "no video stream",
        "cut/000": "unreadable file",
        "page/000": "unreadable file",
        "empty/000": "unreadable file",
        "giant/000": "impossible picture size",
        "link/000": "unsafe file",
    }
    assert "40000x25000" in bad["giant/000"].detail or "0x0" in bad["giant/000"].detail


def write_giant(path: Path) -> None:
    """An .avi of uncompressed pictures whose header says that they have 10⁹ pixels."""
    form = Format("avi", "rawvideo", "pcm_s16le", Fraction(25), 44_100, pixels="bgr24")
    write_film(path, form, talker(1.0, Fraction(25), 64, 64), speech(1.0, ()))
    data = bytearray(path.read_bytes())
    for at in (data.index(b"avih") + 8 + 32, data.index(b"strf") + 8 + 4):
        assert struct.unpack_from("<i", data, at) == (64,)
        struct.pack_into("<ii", data, at, 40_000, 25_000)
    path.write_bytes(data)


def test_a_film_whose_clock_begins_late_is_cut_on_its_own_clock(tmp_path):
    late = tmp_path / "raw" / "anna.ts"
    late.parent.mkdir()
    whole = write_person(tmp_path / "anna.mp4")
    with av.open(str(whole)) as source, av.open(str(late), "w", options={"output_ts_offset": "500"}) as target:
        streams = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                target.mux(packet)
    with av.open(str(late)) as container:
        assert container.start_time > 499 * av.time_base
    times = stretches(found(late.parent)[0], "anna")
    assert len(times) == len(PAUSES) + 1
    for (_, end), (quiet, loud) in zip(times, PAUSES, strict=False):
        assert quiet < end < loud
        assert np.abs(samples_at(late, 16_000, end - 0.05, end + 0.05)).max() < 0.03


def test_a_film_of_three_minutes_has_clips_in_each_split():
    for seed in range(50):
        quiet = np.repeat(np.random.default_rng(seed).random(450) < 0.2, 10)
        cuts = cut(quiet, 75, 200)
        clips = [(f"anna/{index:03d}", (end - start) / 25) for index, (start, end) in enumerate(pairwise(cuts))]
        split_of = splits("person").divide(clips)
        order = [split_of[key] for key, _ in clips]
        assert order == sorted(order, key=["train", "val", "test"].index)
        assert set(order) == {"train", "val", "test"}


@pytest.mark.skipif(not MEDIA.exists(), reason="no real films beside the repository (../shared/media)")
def test_real_films_are_cut_where_their_speaker_is_quiet():
    good, bad = found(MEDIA)
    assert not bad
    for path, seconds in (("EDTalk__pose_source2", 59.96), ("EDTalk__uncrop_Obama", 20.0)):
        times = stretches(good, path)
        assert times[-1][1] == pytest.approx(seconds, abs=0.05)
        sound = samples_at(MEDIA / f"{path}.mp4", 16_000)
        level = np.sqrt(np.mean(sound[: len(sound) // 640 * 640].reshape(-1, 640) ** 2, axis=1))
        at_cuts = [level[round(end * 25) - 1 : round(end * 25) + 1].mean() for _, end in times[:-1]]
        assert np.median(at_cuts) < 0.2 * np.median(level)
