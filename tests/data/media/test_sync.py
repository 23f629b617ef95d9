"""Lips and sound stay together: a white flash and a beep at one moment come out at one moment, whatever the source is."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data.media import audio, video
from tests.media import RATE, write_video

RATES = {
    "23.976": Fraction(24000, 1001),
    "25": Fraction(25),
    "29.97": Fraction(30000, 1001),
    "30": Fraction(30),
    "30.12": Fraction(3012, 100),
    "59.94": Fraction(60000, 1001),
}
OLD = {"codec": "flv", "sound_codec": "libmp3lame"}  # CREMA-D's container and sound
GRID = {"codec": "mpeg1video", "sound_codec": "mp2", "options": {"b": "3000000"}}


def constant(name: str, seconds: float) -> list[float]:
    return [float(index / RATES[name]) for index in range(int(seconds * RATES[name]))]


def variable(seconds: float) -> list[float]:
    steps = np.random.default_rng(1).choice([0.01, 0.02, 0.033, 0.04, 0.1, 0.15], int(40 * seconds))
    return [0.0, *(time for time in np.cumsum(steps).round(3).tolist() if time < seconds)]


def flash_and_beep(path: Path, times: list[float], **how) -> np.ndarray:
    """A film of frames at `times` that flashes about once a second, each time with a beep that begins as the flash does."""
    moments = [-1.0]
    for time in times:
        if time > 0.3 and time < times[-1] - 0.3 and time - moments[-1] > 0.9:
            moments.append(time)
    events = np.array(moments[1:])
    noise = np.random.default_rng(0).integers(0, 20, (8, 64, 64, 3), np.uint8)  # frames of a size, as a camera makes them
    lit = [any(event <= time < event + 0.1 for event in events) for time in times]
    frames = (noise[index % 8] + np.uint8(220 if on else 10) for index, on in enumerate(lit))
    clock = np.arange(int((times[-1] + 0.1) * RATE)) / RATE
    beep = sum(((event <= clock) & (clock < event + 0.1)) * np.sin(2000 * np.pi * clock) for event in events)
    quick = {} if "codec" in how else {"options": {"preset": "ultrafast"}}
    write_video(path, frames, times, (0.5 * beep).astype(np.float32), **quick | how)
    return events


def seen_and_heard(path: Path, start: float = 0.0, end: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Seconds from `start` at which flashes and beeps begin."""
    white = np.array([frame.mean() > 120 for frame in video.frames_at(path, 25, start, end)])
    loud = np.abs(audio.samples_at(path, 16000, start, end)) > 0.25
    loud = np.convolve(loud, np.ones(160))[: len(loud)] > 0  # a beep, not its half waves
    return (np.flatnonzero(white[1:] & ~white[:-1]) + 1) / 25, (np.flatnonzero(loud[1:] & ~loud[:-1]) + 1) / 16000


@pytest.mark.parametrize(
    ("name", "kind", "how"),
    [
        *((name, "mp4", {}) for name in (*RATES, "variable")),
        *((name, "flv", OLD) for name in ("25", "29.97", "30.12", "variable")),
        *((name, "mpg", GRID) for name in ("23.976", "25", "29.97", "59.94")),
        *((name, "mkv", {}) for name in ("30", "variable")),
    ],
)
def test_flash_and_beep_come_within_20_ms_over_ten_seconds(tmp_path, name, kind, how):
    times = variable(10) if name == "variable" else constant(name, 10)
    path = tmp_path / f"film.{kind}"
    events = flash_and_beep(path, times, **how | ({"rate": RATES[name]} if kind == "mpg" else {}))
    seen, heard = seen_and_heard(path)
    assert len(seen) == len(heard) == len(events)
    # A frame stands for 40 ms, and is taken from its middle: 20 ms. One more for finding where a beep begins.
    assert np.abs(seen - heard).max() < 0.021


@pytest.mark.parametrize("kind", ["mp4", "flv", "mkv"])
def test_flash_and_beep_stay_together_far_into_a_film(tmp_path, kind):
    path = tmp_path / f"film.{kind}"
    flash_and_beep(path, constant("29.97", 24), **(OLD if kind == "flv" else {}))
    seen, heard = seen_and_heard(path, 12.5, 22.5)
    assert len(seen) == len(heard) >= 9
    assert np.abs(seen - heard).max() < 0.021
