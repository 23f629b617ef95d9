"""Video by time: any frame rate in, 25 fps out, on the sound's clock."""

import multiprocessing

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
    import av

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
