"""A video and another voice to a film, through the command line, on made media."""

import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

import stages.edit.painting as painting
from data.media.audio import samples_at, wav_bytes
from data.media.video import frames_at
from flows.cli import app
from models.video_editing import generate
from stages.edit import edit
from tests.media import RATE, astronaut, talking, voice, write_video
from tests.project import ROOT, change_params, environment
from tests.stages.edit.making import SAMPLING, Mirror, heard, shown, workplace, write_network

MOUTH = np.s_[:, 165:195, 140:185]  # of the astronaut
SYSTEM = "video_editing"
WORK = Path("data/.work/edit")
MEDIA = ROOT.parent / "shared" / "media"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(workplace(tmp_path))
    talking(tmp_path / "talker.mp4", seconds=1.0, fps=30)
    (tmp_path / "voice.wav").write_bytes(wav_bytes(voice(1.4), RATE))
    return tmp_path


def command(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["edit", *words])
    return done.exit_code, done.output


def test_the_film_is_as_long_as_the_voice(place):
    for length, frames in (("loop", 35), ("hold", 35), ("trim", 25)):
        code, told = command("talker.mp4", "voice.wav", "-o", "out.mp4", "--length", length)
        assert (code, "synthetic" in told) == (0, True), told
        assert len(shown(place / "out.mp4")) == frames
        sound, rate = heard(place / "out.mp4")
        assert abs(sound.shape[1] / rate - frames / 25) < 0.06  # AAC's blocks at both ends
    (place / "short.wav").write_bytes(wav_bytes(voice(0.41), RATE))
    for length in ("loop", "trim"):
        assert command("talker.mp4", "short.wav", "-o", "out.mp4", "--length", length)[0] == 0
        assert len(shown(place / "out.mp4")) == 11  # a begun frame counts
    assert not list(WORK.iterdir()), "nothing is left behind"
    assert {path.name for path in place.iterdir()} == {
        *("data", "params.yaml", "talker.mp4", "voice.wav", "short.wav", "out.mp4")
    }


def test_the_mouth_is_painted_and_all_else_is_the_source_s(place):
    edit(Path("talker.mp4"), Path("voice.wav"), Path("out.mp4"), "largest", "trim", 0, SYSTEM)
    made, real = shown(place / "out.mp4"), shown(place / "talker.mp4")[np.arange(25) * 30 // 25]
    changed = np.abs(made.astype(int) - real)
    assert changed[:, :100].mean() < 2.5  # what two encodings lose
    assert changed[MOUTH].mean() > 15


def test_a_stereo_voice_at_48_khz_stays_so_and_in_time(place):
    random = np.random.default_rng(0)
    both = (random.standard_normal((57_600, 2)).cumsum(axis=0) % 400 * 40).astype("<i2")  # 1.2 s
    with wave.open(str(place / "stereo.wav"), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        file.writeframes(both.tobytes())
    assert command("talker.mp4", "stereo.wav", "-o", "out.mp4")[0] == 0
    assert len(shown(place / "out.mp4")) == 30
    sound, rate = heard(place / "out.mp4")
    assert (rate, len(sound)) == (48_000, 2)
    for channel in range(2):
        lags = range(-100, 101)
        wanted = both[1000:50_000, channel]
        agreement = [np.corrcoef(wanted, sound[channel, 1000 + lag : 50_000 + lag])[0, 1] for lag in lags]
        assert np.argmax(agreement) == 100
        assert max(agreement) > 0.9


def test_a_voice_that_begins_late_in_its_film_begins_late(place):
    write_video(place / "late.mkv", [astronaut(0.0)] * 10, [i / 10 for i in range(10)], voice(1.0), sound_start=0.4)
    assert command("talker.mp4", "late.mkv", "-o", "out.mp4", "--length", "hold")[0] == 0
    assert len(shown(place / "out.mp4")) in (35, 36)
    begins = [np.flatnonzero(np.abs(samples_at(place / name, 16_000)) > 0.01)[0] / 16 for name in ("out.mp4", "late.mkv")]
    assert begins[0] > 400
    assert abs(begins[0] - begins[1]) < 1  # ms, in which an mp4 counts the silence before a track


def test_frames_without_the_face_are_kept(place):
    times = [index / 25 for index in range(30)]
    frames = [astronaut(0.0) for _ in times]
    for frame in frames[10:18]:
        frame[60:260, 90:240] = 128
    write_video(place / "leaves.mp4", frames, times, None)
    edit(Path("leaves.mp4"), Path("voice.wav"), Path("out.mp4"), "largest", "trim", 0, SYSTEM)
    changed = np.abs(shown(place / "out.mp4").astype(int) - shown(place / "leaves.mp4"))[MOUTH].mean(axis=(1, 2, 3))
    assert changed[10:18].max() < 2
    assert changed[:10].min() > 8
    assert changed[18:].min() > 8


def test_each_refusal_is_one_sentence(place):
    (place / "silent.wav").write_bytes(wav_bytes(np.zeros(0, np.float32), RATE))
    (place / "noise.mp4").write_bytes(os.urandom(5000))
    talking(place / "mute.mp4", seconds=0.2, sound=False)
    write_video(place / "empty.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 5, [i / 25 for i in range(5)], None)
    for words, message in (
        (("nowhere.mp4", "voice.wav"), "no file nowhere.mp4"),
        (("talker.mp4", "nowhere.wav"), "no file nowhere.wav"),
        (("noise.mp4", "voice.wav"), "noise.mp4: Invalid data"),
        (("voice.wav", "voice.wav"), "voice.wav: no video stream"),
        (("talker.mp4", "noise.mp4"), "noise.mp4: Invalid data"),
        (("talker.mp4", "mute.mp4"), "mute.mp4: no audio stream"),
        (("talker.mp4", "silent.wav"), "silent.wav: no sound could be decoded"),
        (("empty.mp4", "voice.wav"), "empty.mp4: no face in any of 5 frames"),
        (("talker.mp4", "voice.wav", "--face", "middle"), "--face middle: it is one of largest, left, right"),
        (("talker.mp4", "voice.wav", "--length", "cut"), "--length cut: it is one of loop, hold, trim"),
        (("talker.mp4", "voice.wav", "--system", "diffspeaker"), "diffspeaker moves a mesh: use `talkingface speak`"),
        (("talker.mp4", "voice.wav", "--system", "nobody"), "no system nobody in params.yaml: there are video_editing, diff"),
    ):
        code, told = command(*words, "-o", "out.mp4")
        assert code == 1
        assert message in told
        assert "Traceback" not in told
    assert "name it so" in command("talker.mp4", "voice.wav", "-o", "out.avi")[1]
    assert "no folder" in command("talker.mp4", "voice.wav", "-o", "there/out.mp4")[1]
    assert "name another" in command("talker.mp4", "voice.wav", "-o", "talker.mp4")[1]
    assert not list(place.glob("out*"))
    (place / "data/checkpoints/video_editing/config.json").unlink()
    code, told = command("talker.mp4", "voice.wav", "-o", "out.mp4")
    assert code == 1
    assert "train the system" in told


@pytest.mark.parametrize("painter, batch_size", [pytest.param(generate.Painter, 1, marks=pytest.mark.slow), (Mirror, 7)])
def test_a_broken_off_run_goes_on_where_it_was(place, monkeypatch, painter, batch_size):
    change_params(place, evaluate={"video_editing": SAMPLING | {"batch_size": batch_size}})
    monkeypatch.setattr(painting, "KEPT_FRAMES", 10)
    monkeypatch.setattr(generate, "Painter", painter)
    arguments = Path("talker.mp4"), Path("voice.wav"), Path("out.mp4"), "largest", "loop"
    edit(*arguments, 0, SYSTEM)
    at_once = Path("out.mp4").read_bytes()
    Path("out.mp4").unlink()

    asked, paint = [], painter.paint

    def breaking(self, frames, before):
        def told():
            for one in frames:
                asked.append(one.index)
                if one.index == 27 and len(asked) < 30:
                    raise KeyboardInterrupt
                yield one

        return paint(self, told(), before)

    monkeypatch.setattr(painter, "paint", breaking)
    with pytest.raises(KeyboardInterrupt):
        edit(*arguments, 0, SYSTEM)
    assert not list(place.glob("out*"))
    edit(*arguments, 0, SYSTEM)
    assert asked == [*range(28), *range(20, 35)]
    assert Path("out.mp4").read_bytes() == at_once
    if painter is not Mirror:
        edit(*arguments, 1, SYSTEM)
        assert Path("out.mp4").read_bytes() != at_once, "another noise is another film"


def test_reading_ahead_makes_no_other_film(place, monkeypatch):
    monkeypatch.setattr(generate, "Painter", Mirror)
    films = []
    for batch_size in (1, 7):
        change_params(place, evaluate={"video_editing": SAMPLING | {"batch_size": batch_size}})
        edit(Path("talker.mp4"), Path("voice.wav"), Path("out.mp4"), "largest", "loop", 0, SYSTEM)
        films.append(Path("out.mp4").read_bytes())
    assert films[0] == films[1]


def test_the_crop_is_that_of_the_system_s_corpus(place):
    """Trained on HDTF, it paints in a crop of 256 pixels that does not move."""
    change_params(place, systems={"video_editing": {"corpus": "hdtf", "source": "shards", "preset": "sample", "overrides": {}}})
    code, told = command("talker.mp4", "voice.wav", "-o", "out.mp4")
    assert code == 1
    assert "paints 128 pixels, and align.crops.square.size is 256" in told
    write_network(place, image_size=256)
    edit(Path("talker.mp4"), Path("voice.wav"), Path("out.mp4"), "largest", "trim", 0, SYSTEM)
    made, real = shown(place / "out.mp4"), shown(place / "talker.mp4")[np.arange(25) * 30 // 25]
    changed = np.abs(made.astype(int) - real)
    assert changed[:, :90].mean() < 2.5
    assert changed[MOUTH].mean() > 15


def test_colours_are_told_as_the_source_tells_them(place):
    path, times = place / "hd.mp4", [index / 25 for index in range(10)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 320, 360, "yuv420p"
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        for _ in times:
            frame = astronaut(0.0)
            frame[:60] = (200, 40, 40)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode(None))
    edit(path, Path("voice.wav"), Path("out.mp4"), "largest", "trim", 0, SYSTEM)
    with av.open("out.mp4") as film:
        assert film.streams.video[0].codec_context.colorspace == 1
    assert np.abs(shown(place / "out.mp4")[:, :50].astype(int) - (200, 40, 40)).mean() < 3


@pytest.mark.slow
def test_a_network_that_hears_speech_features_hears_the_new_voice_so(place):
    write_network(place, audio="speech", audio_width=288, speech_encoder="moonshine-tiny")
    edit(Path("talker.mp4"), Path("voice.wav"), Path("out.mp4"), "largest", "trim", 0, SYSTEM)
    (place / "other.wav").write_bytes(wav_bytes(voice(1.4)[::-1], RATE))
    edit(Path("talker.mp4"), Path("other.wav"), Path("other.mp4"), "largest", "trim", 0, SYSTEM)
    assert (shown(place / "out.mp4")[MOUTH] != shown(place / "other.mp4")[MOUTH]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["grid/bbaf2n.mpg", "hdtf/HDTF__WDA_AlexandriaOcasioCortez_000.mp4", "person/EDTalk__uncrop_Obama.mp4"]
)
def test_a_real_clip_with_another_s_voice(place, name):
    source, other = MEDIA / name, MEDIA / "grid/swwp2s.mpg"
    if not source.exists():
        pytest.skip("no real clips here")
    edit(source, other, Path("out.mp4"), "largest", "loop", 0, SYSTEM)
    made, real = shown(place / "out.mp4"), np.stack(list(frames_at(source, 25, 0, 3)))
    assert len(made) == -(-len(samples_at(other, 16_000)) // 640) == 75
    assert made.shape == real.shape
    changed = np.abs(made.astype(int) - real).mean(axis=-1)
    height = made.shape[1]
    assert changed[:, : height // 8].mean() < 2.5  # what an encoding loses, above every face
    assert changed[:, height // 3 :].max(axis=(1, 2)).min() > 20  # each frame has been painted


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(place):
    talking(place / "talker.mp4", seconds=10.0, fps=25)
    (place / "voice.wav").write_bytes(wav_bytes(voice(12.0), RATE))
    words = [sys.executable, "-m", "flows.cli", "edit", "talker.mp4", "voice.wav", "-o"]
    variables = environment(ROOT)
    subprocess.run([*words, "whole.mp4"], cwd=place, env=variables, check=True, timeout=300)
    process = subprocess.Popen([*words, "killed.mp4"], cwd=place, env=variables, stderr=subprocess.DEVNULL)
    while not list(WORK.glob("*/0*.npz")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (place / "killed.mp4").exists()
    subprocess.run([*words, "killed.mp4"], cwd=place, env=variables, check=True, timeout=300)
    assert (place / "killed.mp4").read_bytes() == (place / "whole.mp4").read_bytes()
    assert not list(WORK.iterdir())
    assert not list(place.glob("*.tmp"))


# Prints the most memory that the process had, kB. (What getrusage tells begins with the size of the process that starts it.)
MEASURED = """
import sys
from flows.cli import app
app(sys.argv[1:], standalone_mode=False)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(place):
    peaks, second = [], [astronaut(index / 25) for index in range(25)]
    for seconds in (4, 40):
        times = [index / 25 for index in range(25 * seconds)]
        write_video(place / "talker.mp4", (second[index % 25] for index in range(len(times))), times, None)
        (place / "voice.wav").write_bytes(wav_bytes(voice(seconds), RATE))
        words = [sys.executable, "-c", MEASURED, "edit", "talker.mp4", "voice.wav", "-o", f"{seconds}.mp4"]
        done = subprocess.run(words, cwd=place, env=environment(ROOT), capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert len(shown(place / "40.mp4")) == 1000
    assert peaks[1] - peaks[0] < 60, f"MB at 4 s and at 40 s: {peaks}"  # the frames alone are 345
