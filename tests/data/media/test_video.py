"""Video by time: any frame rate in, 25 fps out, on the sound's clock."""

import multiprocessing
from fractions import Fraction

import av
import numpy as np
import pytest

from data.media import audio, video
from tests.media import RATE, as_file, write_video


def grey(level: int) -> np.ndarray:
    return np.full((64, 64, 3), level, np.uint8)


def levels(frames) -> list[int]:
    return [round(float(frame.mean()) / 10) for frame in frames]


def test_a_frame_is_what_was_on_screen_at_its_time_for_an_irregular_source(tmp_path):
    # On screen: 1 from 0 s, 2 from 0.09, 3 from 0.10, 4 from 0.31 until 0.31 and one mean frame interval.
    path = write_video(tmp_path / "irregular.mp4", [grey(10), grey(20), grey(30), grey(40)], [0.0, 0.09, 0.10, 0.31], None)
    seen = levels(video.frames_at(path, fps=25))
    middles = [(index + 0.5) / 25 for index in range(len(seen))]
    expected = [1 if t < 0.09 else 2 if t < 0.10 else 3 if t < 0.31 else 4 for t in middles]
    assert seen == expected
    assert seen[-1] == 4


@pytest.mark.parametrize("fps", [24, 29.97, 30.12, 50])
def test_resampling_keeps_the_duration(tmp_path, fps):
    times = [index / fps for index in range(int(4 * fps))]
    path = write_video(tmp_path / "clip.mp4", [grey(100)] * len(times), times, None)
    assert len(list(video.frames_at(path, fps=25))) == pytest.approx(100, abs=1)


def test_a_stretch_of_a_file_equals_the_same_stretch_of_the_whole(tmp_path):
    times = [index / 30 for index in range(90)]
    path = write_video(tmp_path / "clip.mp4", [grey(2 * index) for index in range(90)], times, None)
    whole = list(video.frames_at(path, fps=25))
    part = list(video.frames_at(path, fps=25, start=1.0, end=2.0))
    assert len(part) == 25
    assert np.array_equal(part, whole[25:50])


FILMS = {
    "b-frames.mp4": {"options": {"bf": "4", "g": "120", "x264-params": "open-gop=1:b-pyramid=normal"}},
    "one-key-frame.mp4": {"options": {"g": "9999"}},
    "film.mkv": {},
    "film.mov": {"codec": "mpeg4", "sound_codec": "pcm_s16le"},
    "film.flv": {"codec": "flv", "sound_codec": "libmp3lame"},
    "film.mpg": {"codec": "mpeg1video", "sound_codec": "mp2", "rate": Fraction(30)},
    "film.avi": {"codec": "mpeg4", "sound_codec": "libmp3lame", "rate": Fraction(30)},
}


@pytest.mark.parametrize("name", FILMS)
def test_a_stretch_far_into_a_film_equals_the_same_stretch_of_the_whole(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 99, (64, 64, 3), np.uint8)
    frames = (np.roll(noise, index, axis=1) + np.uint8(index % 97) for index in range(600))
    time = np.arange(20 * RATE) / RATE
    path = write_video(
        tmp_path / name, frames, [index / 30 for index in range(600)], np.sin((300 + 40 * time) * time), **FILMS[name]
    )
    whole, heard = list(video.frames_at(path, 25)), audio.samples_at(path, 16000)
    for first in (251, 312, 377, 440):  # in no simple relation to key frames, to frames or to sound blocks
        start = first / 25
        assert np.array_equal(list(video.frames_at(path, 25, start, start + 0.4)), whole[first : first + 10])
        part = audio.samples_at(path, 16000, start, start + 0.4)
        assert np.abs(part - heard[640 * first : 640 * first + 6400]).max() < 1e-5  # AAC's overlaps round differently


def test_a_far_start_does_not_decode_what_comes_before_it(tmp_path, monkeypatch):
    path = write_video(
        tmp_path / "film.mp4", (grey(index % 200) for index in range(1500)), [index / 25 for index in range(1500)], None
    )
    decoded = []
    original = video.decoded
    monkeypatch.setattr(video, "decoded", lambda *args: (decoded.append(frame) or frame for frame in original(*args)))
    assert len(list(video.frames_at(path, 25, 50.0, 51.0))) == 25
    assert len(decoded) < 400  # a key frame each 250, and a second of lead


@pytest.mark.parametrize(("rotation", "corner"), [(90, (1, 0)), (-90, (0, 1)), (180, (1, 1)), (None, (0, 0))])
def test_frames_come_upright_and_with_square_pixels(tmp_path, rotation, corner):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # the upper left quarter
    path = write_video(
        tmp_path / "phone.mp4", [picture] * 3, [0, 0.04, 0.08], None, rotation=rotation, pixel_aspect=Fraction(3, 2)
    )
    frame = next(video.frames_at(path, 25))
    assert frame.shape[:2] == ((96, 48) if rotation in (90, -90) else (48, 96))
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    quarters = frame.reshape(2, height, 2, width, 3).mean(axis=(1, 3, 4))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == corner


def test_time_stamps_that_jump_are_refused_where_they_matter(tmp_path):
    path = write_video(tmp_path / "jump.mp4", [grey(100)] * 4, [0.0, 0.04, 0.08, 9000.0], None)
    assert len(list(video.frames_at(path, 25, end=2.0))) == 50
    with pytest.raises(video.Unusable, match="broken time stamps"):
        list(video.frames_at(path, 25))


def test_a_gap_in_the_sound_stays_a_gap(tmp_path):
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start in (0, 2 * RATE):
            block = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16)[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(block))
    sound = audio.samples_at(path, 16000)
    assert len(sound) == pytest.approx(48000, abs=20)
    loud = np.abs(sound) > 0.1
    assert loud[:15990].any() and loud[32010:].any()
    assert not loud[16010:31950].any()


def test_stereo_is_mixed_without_clipping(tmp_path):
    tone = (0.95 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    both, times = np.stack((tone, tone)), [0, 0.2, 0.4, 0.6, 0.8]
    path = write_video(tmp_path / "stereo.mov", [grey(9)] * 5, times, both, sound_codec="pcm_s16le")
    assert np.abs(audio.samples_at(path, 16000)).max() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("kind", ["mp4", "flv", "mpg", "avi"])
def test_damaged_files_end_with_frames_or_with_a_named_error(tmp_path, kind):
    frames, times = [grey(9 * index) for index in range(24)], [index / 30 for index in range(24)]
    whole = write_video(tmp_path / f"whole.{kind}", frames, times, np.zeros(RATE), **FILMS.get(f"film.{kind}", {}))
    data, path, random = whole.read_bytes(), tmp_path / f"damaged.{kind}", np.random.default_rng(0)
    outcomes = set()
    for _ in range(50):
        damaged = bytearray(data)
        for place in random.integers(0, len(damaged) if random.random() < 0.5 else 1500, 20):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(len(data) // 2, len(data))])
        for read in (lambda: len(list(video.frames_at(path, 25))), lambda: len(audio.samples_at(path, 16000))):
            try:
                outcomes.add(read() > 0)
            except (video.Unusable, video.MediaError) as error:
                outcomes.add(type(error))
    assert len(outcomes) > 1


def test_sound_and_pictures_share_one_clock(tmp_path):
    sound = np.zeros(RATE, np.float32)
    sound[RATE // 2 :] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)
    times = [index / 25 for index in range(50)]
    path = write_video(tmp_path / "late.mp4", [grey(100)] * 50, times, sound, sound_start=0.4)
    heard = audio.samples_at(path, 16000)
    onset = np.flatnonzero(np.abs(heard) > 0.1)[0] / 16000
    assert onset == pytest.approx(0.9, abs=0.03)  # 0.4 s late, then 0.5 s of silence; AAC smears by a frame
    later = audio.samples_at(path, 16000, start=0.5, end=1.0)
    assert len(later) == 8000
    assert np.array_equal(later, heard[8000:16000])


def test_files_without_a_stream_say_so(tmp_path):
    silent = write_video(tmp_path / "silent.mp4", [grey(100)] * 5, [index / 25 for index in range(5)], None)
    with pytest.raises(video.NoStream, match="no audio stream"):
        audio.samples_at(silent, 16000)
    with pytest.raises(video.NoStream, match="no video stream"):
        wav = tmp_path / "sound.wav"
        wav.write_bytes(audio.wav_bytes(np.zeros(1600), 16000))
        list(video.frames_at(wav, 25))


def _busy() -> None:
    while True:
        pass


def test_encoding_gives_the_same_bytes_on_a_busy_machine():
    # x264's macroblock tree does not, with AVX-512: 25 encodings gave up to 6 different files.
    random = np.random.default_rng(0)
    moving = [np.roll(np.kron(random.integers(0, 255, (16, 16, 3)), np.ones((14, 14, 1))), 3 * t, axis=1) for t in range(30)]
    frames = np.stack(moving).astype(np.uint8)
    others = [multiprocessing.get_context("spawn").Process(target=_busy, daemon=True) for _ in range(3)]
    for other in others:
        other.start()
    try:
        assert len({video.encode_frames(frames, 25, crf=18) for _ in range(15)}) == 1
    finally:
        for other in others:
            other.kill()


def test_what_is_encoded_decodes_to_nearly_itself_and_carries_its_sound():
    y, x = np.mgrid[:96, :128]
    frames = np.stack([np.stack((x + t, 255 - 2 * y, 128 + 0 * x), -1) for t in range(10)]).clip(0, 255).astype(np.uint8)
    sound = (0.3 * np.sin(np.arange(6400) / 5)).astype(np.float32)
    data = video.encode_frames(frames, 25, 10, (sound, 16000))
    assert np.abs(video.decode_frames(data).astype(int) - frames).mean() < 3
    with av.open(as_file(data)) as container:
        assert float(container.streams.video[0].average_rate) == 25
        assert container.streams.audio[0].rate == 16000


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="even width and height"):
        video.encode_frames(np.zeros((2, 33, 32, 3), np.uint8), 25, 20)


def test_wav_round_trip_is_exact_to_16_bits():
    sound = np.linspace(-1, 1, 999).astype(np.float32)
    back, rate = audio.wav_samples(audio.wav_bytes(sound, 16000))
    assert rate == 16000
    assert np.abs(back - sound).max() <= 0.5 / 32767 + 1e-7
