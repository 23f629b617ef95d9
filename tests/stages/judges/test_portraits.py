"""A video that is made whole is scored at its own size, beside pictures that need no training, and shown beside the real one."""

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data.media.audio import wav_bytes
from data.media.video import decode_frames, encode_frames
from data.shardset import Clip, json_bytes, npy_bytes
from stages.judges import judge_of, portraits
from stages.judges.portraits import baselines, difference, film, scores, sheet, told, truth_of_size
from stages.rendering import RenderParams
from tests.media import astronaut

FRAMES, SIZE = 5, 256
NOWHERE = Path("nowhere")
RENDER = RenderParams(seam=0, mesh_size=64, crf=30, sheet_columns=3)
BOX = (70, 110, 190, 220)


def made(seed: int) -> Clip:
    moments = seed + np.arange(FRAMES) / 12
    frames = np.stack([astronaut(moment)[:SIZE, 34 : 34 + SIZE] for moment in moments])
    return Clip(
        f"person/clip{seed}",
        {
            "mp4": encode_frames(frames, fps=25, crf=10),
            "mask.npy": npy_bytes(np.tile(np.array(BOX, np.int16), (FRAMES, 1))),
            "wav": wav_bytes(np.zeros(FRAMES * 640, np.float32), 16_000),
            "json": json_bytes({"frames": FRAMES, "fps": 25, "size": SIZE}),
        },
    )


@pytest.fixture(scope="module")
def clip():
    return made(0)


@pytest.fixture(scope="module")
def real(clip):
    return decode_frames(clip.members["mp4"])


def reduced(frames, size):
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])


def test_geneface_is_judged_so():
    assert judge_of("geneface") is portraits


def test_the_film_s_own_frames_are_perfect_at_any_size(clip, real):
    row = scores(clip, real, NOWHERE)
    assert row["psnr_frame"] == row["psnr_mask"] == 100 and row["ssim_frame"] == pytest.approx(1)
    assert row["landmark_distance"] == 0 and row["jitter_to_real"] == pytest.approx(1)
    half = scores(clip, reduced(real, SIZE // 2), NOWHERE)
    assert half["psnr_frame"] == half["psnr_mask"] == 100
    # In a picture half as large landmarks are found less exactly; a mistake in the scale would be a factor of two.
    assert 0 < half["landmark_distance"] < 10 and 0.6 < half["jitter_to_real"] < 1.6 and half["mouth_correlation"] > 0.8
    assert set(row) <= set(portraits.HEADINGS)


def test_what_differs_outside_of_the_mask_is_no_error_in_it(clip, real):
    fake = reduced(real, SIZE // 2)
    fake[:, :50] = 255
    row = scores(clip, fake, NOWHERE)
    assert row["psnr_mask"] == 100 and row["psnr_frame"] < 20
    x0, y0, x1, y1 = np.array(BOX) // 2
    fake = reduced(real, SIZE // 2)
    fake[:, y0:y1, x0:x1] ^= 64
    assert scores(clip, fake, NOWHERE)["psnr_mask"] < 20


def test_a_picture_without_a_face_has_no_landmarks(clip, real):
    row = scores(clip, np.zeros_like(real), NOWHERE)
    assert np.isnan([row["landmark_distance"], row["mouth_correlation"], row["jitter_to_real"]]).all()


def test_the_baselines_are_of_the_training_frames(clip, real):
    train = [made(1), made(2)]
    found = baselines([clip, clip], iter(train))
    everything = np.concatenate([decode_frames(one.members["mp4"]) for one in train])
    assert [len(videos) for videos in found.values()] == [2, 2]
    assert all(video.shape == real.shape and video.dtype == np.uint8 for videos in found.values() for video in videos)
    assert np.abs(found["mean_frame"][1] - everything.mean(axis=0)).max() <= 0.5
    assert (found["still_frame"][0] == everything[0]).all()
    with pytest.raises(ValueError, match="there is no training clip"):
        baselines([clip], iter([]))


def test_two_videos_differ_by_their_colours(clip, real):
    fake = np.full((FRAMES, 8, 8, 3), 100, np.uint8)
    other = fake.copy()
    other[:, :4] = 110
    assert difference(clip, fake, other) == difference(clip, other, fake) == 5


def test_what_the_scores_come_to():
    metrics = {
        "own": {"psnr_frame": 24.26, "landmark_distance": 5.25},
        "baselines": {"mean_frame": {"psnr_frame": 22.0}, "still_frame": {"landmark_distance": 8.0}},
    }
    assert told(metrics) == (
        "The pictures are +2.3 dB against the mean of the training frames; the mouth is 5.2 % of its width off, a still frame's "
        "8.0 %."
    )
    metrics["own"]["landmark_distance"] = None
    assert told(metrics).endswith("no mouth was found in them.")


def test_the_real_one_is_shown_at_the_size_of_what_was_made(clip, real):
    fake = reduced(real, 64)
    assert np.array_equal(truth_of_size(clip, 64), fake) and np.array_equal(truth_of_size(clip, SIZE), real)
    encoded, shown = film(clip, fake, NOWHERE, RENDER)
    with av.open(io.BytesIO(encoded)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (128, 64)
        assert len(container.streams.audio) == 1
    assert len(decode_frames(encoded)) == FRAMES
    assert shown.size == (2 * 3 * 64, 2 * 2 * 64)
    assert sheet([clip], {"adapted 16": [fake], "filmed 16": [fake]}, NOWHERE).size == (2 * 8 * 64, 2 * 3 * 64)
