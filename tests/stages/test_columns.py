"""align, landmarks, masks and spectrograms as a clip passes through them: on made media, on real ones where they are."""

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import librosa
import numpy as np
import pytest

from data.corpora import source_clip
from data.media.audio import wav_samples
from data.media.video import decode_frames, frames_at
from data.mesh import RIGHT_SIDE, STABLE_POINTS
from data.shardset import Clip, Skipped, json_object, npy_array, npy_bytes
from stages.align import align_clip, warp
from stages.faces import fill_gaps, longest_gap, mouth_opening
from stages.landmarks import find_landmarks
from stages.masks import find_masks, lower_face_boxes
from stages.spectrograms import find_spectrogram, mel_spectrogram
from tests.media import astronaut, opening, talking, voice, write_video
from tests.stages.params import ALIGN, LANDMARKS, MASKS, SPECTROGRAMS

MEDIA = Path(__file__).parents[3] / "shared" / "media"
REAL = sorted([*MEDIA.glob("grid/*.mpg"), *MEDIA.glob("hdtf/*.mp4"), *MEDIA.glob("person/*uncrop*.mp4")])


def through_all(path: Path) -> Clip:
    """A file through the four stages."""
    clip = source_clip(f"someone/{path.stem.replace('.', '_')}", path.parent, path.name, crop="face")
    aligned = align_clip(clip, ALIGN)
    assert not isinstance(aligned, Skipped), aligned
    members = dict(aligned)
    for function, params in ((find_landmarks, LANDMARKS), (find_masks, MASKS), (find_spectrogram, SPECTROGRAMS)):
        column = function(Clip(clip.key, members), params)
        assert not isinstance(column, Skipped), column
        members |= column
    return Clip(clip.key, members)


@pytest.fixture(scope="session")
def talker(tmp_path_factory) -> Clip:
    return through_all(talking(tmp_path_factory.mktemp("talker") / "talker.mp4", seconds=2.0, fps=30))


def test_the_columns_have_the_contract_s_shapes(talker):
    check_contract(talker, frames=50)


def check_contract(clip: Clip, frames: int | None = None) -> None:
    """DESIGN's data contract, for one clip."""
    about = json_object(clip.members["json"])
    count = about["frames"]
    assert frames is None or count == frames
    video = decode_frames(clip.members["mp4"])
    assert video.shape == (count, 128, 128, 3)
    sound, rate = wav_samples(clip.members["wav"])
    assert rate == 16000
    assert len(sound) == 640 * count
    landmarks = npy_array(clip.members["landmarks.npy"])
    assert landmarks.shape == (count, 478, 3)
    assert landmarks.dtype == np.float32
    assert np.isfinite(landmarks).all()
    mel = npy_array(clip.members["mel.npy"])
    assert mel.shape == (2 * count, 256)
    assert mel.dtype == np.float32
    assert mel.min() >= -80
    assert mel.max() == pytest.approx(0, abs=1e-5)
    boxes = npy_array(clip.members["mask.npy"])
    assert boxes.shape == (count, 4)
    assert boxes.dtype == np.int16
    assert (boxes[:, 2] - boxes[:, 0] >= 32).all()
    assert (boxes[:, 3] == 128).all()
    assert (boxes >= 0).all()
    assert (boxes <= 128).all()


def test_the_face_stands_still_where_the_canonical_face_stands(talker):
    stable = npy_array(talker.members["landmarks.npy"])[:, STABLE_POINTS, :2]
    eyes = stable[:, 1:3].mean(axis=(0, 1))
    assert eyes == pytest.approx((63.5, 128 * 0.36 - 0.5), abs=2.5)
    assert np.linalg.norm(stable[:, 2] - stable[:, 1], axis=-1).mean() == pytest.approx(128 * 0.43, rel=0.1)
    assert stable.std(axis=0).max() < 1.0  # the astronaut sways by 8 source pixels


def test_the_transform_puts_landmarks_where_the_aligned_picture_shows_them(talker, tmp_path):
    # An oracle of its own: detect again, in the aligned picture.
    from stages.metrics.mouth import track

    again = track(decode_frames(talker.members["mp4"]))[..., :2] / 2
    carried = npy_array(talker.members["landmarks.npy"])[..., :2]
    assert np.linalg.norm(again - carried, axis=-1).mean() < 1.5


def test_the_mouth_s_movement_survives(talker):
    heights = mouth_opening(npy_array(talker.members["landmarks.npy"]))
    truth = opening((np.arange(50) + 0.5) / 25)
    assert np.corrcoef(heights, truth)[0, 1] > 0.8


def test_warp_is_a_plain_view_of_the_source():
    picture = np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8)
    shift = np.float32([[1, 0, -10], [0, 1, -5]])
    assert np.array_equal(warp(picture, shift, 32), picture[5:37, 10:42])


def test_warp_averages_when_it_shrinks():
    fine = np.indices((400, 400)).sum(axis=0) % 2 * 255  # a checkerboard finer than the crop can show: grey, not moiré
    picture = np.repeat(fine[..., None], 3, axis=2).astype(np.uint8)
    small = warp(picture, np.float32([[0.25, 0, 0], [0, 0.25, 0]]), 100)
    assert np.abs(small.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: talking(path, faces=2), "two faces"),
        (lambda path: talking(path, sound=False), "no audio stream"),
        (lambda path: talking(path, seconds=0.3), "too short"),
        (lambda path: path.write_bytes(b"not a video") and path, "unreadable file"),
        (
            lambda path: write_video(path, [np.full((96, 96, 3), 90, np.uint8)] * 50, [i / 25 for i in range(50)], voice(2)),
            "no face",
        ),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path, make, reason):
    path = make(tmp_path / "clip.mp4")
    result = align_clip(source_clip("someone/clip", path.parent, path.name, crop="face"), ALIGN)
    assert isinstance(result, Skipped)
    assert result.reason == reason


def test_a_truncated_file_is_skipped_or_used_never_raised(tmp_path):
    whole = talking(tmp_path / "whole.mp4").read_bytes()
    for share in (0.1, 0.5, 0.9):
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole[: int(share * len(whole))])
        result = align_clip(source_clip("someone/cut", tmp_path, path.name, crop="face"), ALIGN)
        assert isinstance(result, Skipped)
        assert result.reason == "unreadable file"


def test_a_face_lost_for_a_moment_is_bridged_and_one_lost_for_long_is_not(tmp_path):
    def lost(count: int) -> Path:
        frames = [astronaut(t / 25) for t in range(60)]
        frames[20 : 20 + count] = [np.full_like(frames[0], 120)] * count
        return write_video(tmp_path / f"lost{count}.mp4", frames, [t / 25 for t in range(60)], voice(2.4))

    bridged = through_all(lost(4))
    assert json_object(bridged.members["json"])["frames_without_face"] >= 4
    side = npy_array(bridged.members["landmarks.npy"])[:, RIGHT_SIDE, 0]
    assert np.ptp(side) < 6

    aligned = align_clip(source_clip("someone/lost", tmp_path, lost(20).name, crop="face"), replace(ALIGN, max_missing=0.5))
    assert not isinstance(aligned, Skipped)
    result = find_landmarks(Clip("someone/lost", aligned), LANDMARKS)
    assert result == Skipped("face lost", result.detail)


def test_gaps_are_measured_and_filled_linearly():
    found = np.array([False, True, False, False, True, True, False])
    assert longest_gap(found) == 2
    values = np.array([0.0, 1, 0, 0, 4, 5, 0])[:, None]
    assert fill_gaps(values, found)[:, 0].tolist() == [1, 1, 2, 3, 4, 5, 5]


def test_the_mask_is_the_rectangle_of_the_release():
    # Golden: sides (20, 55) and (108, 55) on 128² give 6497 pixels, x 20 to 108, y 55 to 127.
    landmarks = np.zeros((1, 478, 3), np.float32)
    landmarks[0, 234, :2], landmarks[0, 454, :2] = (20, 55), (108, 55)
    (x0, y0, x1, y1) = lower_face_boxes(landmarks, 128)[0]
    assert (x0, y0, x1 - 1, y1 - 1) == (20, 55, 108, 127)
    assert (x1 - x0) * (y1 - y0) == 6497


def test_a_degenerate_mask_never_comes_out(talker):
    landmarks = npy_array(talker.members["landmarks.npy"]).copy()
    landmarks[10:14, 454] = landmarks[10:14, 234]  # a profile: both sides of the face in one place
    changed = dict(talker.members)
    changed["landmarks.npy"] = npy_bytes(landmarks)
    boxes = npy_array(find_masks(Clip("someone/turned", changed), MASKS)["mask.npy"])
    assert (boxes[:, 2] - boxes[:, 0] >= MASKS.min_width).all()
    landmarks[:, 454] = landmarks[:, 234]
    changed["landmarks.npy"] = npy_bytes(landmarks)
    assert find_masks(Clip("someone/profile", changed), MASKS).reason == "face in profile"


def test_mel_equals_the_release_s_recipe_and_has_two_rows_a_frame():
    sound = voice(3.0)[:: 44100 // 16000][:48000]
    for frames in (1, 2, 73, 75):
        mel = mel_spectrogram(sound, 16000, frames, 25, SPECTROGRAMS)
        assert mel.shape == (2 * frames, 256)
    length = 640 * 75 - 1
    padded = np.pad(sound[:length], (0, max(0, length - len(sound))))
    power = np.abs(librosa.stft(padded, n_fft=2048, hop_length=320, win_length=640, center=True, pad_mode="constant")) ** 2
    expected = librosa.power_to_db(librosa.filters.mel(sr=16000, n_fft=2048, n_mels=256) @ power, ref=np.max, top_db=80).T
    assert np.abs(mel - expected).max() < 1e-3


def test_silence_is_quiet():
    assert (mel_spectrogram(np.zeros(16000, np.float32), 16000, 25, 25, SPECTROGRAMS) == -80).all()


def test_a_rate_without_whole_half_frames_is_refused():
    with pytest.raises(ValueError, match="sample_rate"):
        mel_spectrogram(np.zeros(11025, np.float32), 11025, 25, 25, SPECTROGRAMS)


@pytest.mark.skipif(not REAL, reason="no real clips beside the repository (../shared/media)")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_clips_pass_through_all_stages(path):
    clip = through_all(path)
    check_contract(clip, frames=75 if path.suffix == ".mpg" else None)
    boxes = npy_array(clip.members["mask.npy"])
    assert 70 < (boxes[:, 2] - boxes[:, 0]).mean() < 110
    mouth = npy_array(clip.members["landmarks.npy"])[:, 13, :2]
    inside = (mouth >= boxes[:, :2]).all(axis=1) & (mouth < boxes[:, 2:]).all(axis=1)
    assert inside.all()
    picture = decode_frames(clip.members["mp4"])[0]
    assert cv2.Laplacian(picture, cv2.CV_64F).var() > 20  # a picture, not a blur


def aligned(path: Path, crop: str, params=ALIGN, **about):
    return align_clip(source_clip("someone/clip", path.parent, path.name, crop=crop, **about), params)


def pair(path: Path, missing: range = range(0)) -> Path:
    """A large face on the left and a small one on the right; the large one is hidden in the frames `missing`."""
    frames = []
    for t in range(30):
        large, small = astronaut(t / 25), cv2.resize(astronaut(t / 25), None, fx=0.7, fy=0.7)
        small = cv2.copyMakeBorder(small, 0, large.shape[0] - small.shape[0], 0, 0, cv2.BORDER_REPLICATE)
        frames.append(np.concatenate((np.full_like(large, 120) if t in missing else large, small), axis=1))
    return write_video(path, frames, [t / 25 for t in range(30)], voice(1.2))


def test_of_two_faces_one_is_followed_the_larger_or_the_one_in_the_box(tmp_path):
    whole = npy_array(aligned(pair(tmp_path / "whole.mp4"), "portrait")["source_landmarks.npy"])
    assert (whole[:, 4, 0] < 320).all()
    hidden = npy_array(aligned(pair(tmp_path / "hidden.mp4", range(10, 14)), "portrait")["source_landmarks.npy"])
    assert np.isnan(hidden[10:14]).all()  # its place is not taken by the other face
    assert np.nanmax(np.abs(hidden[:10] - whole[:10])) < 5
    assert np.nanmax(hidden[:, 4, 0]) < 320
    small = npy_array(aligned(tmp_path / "whole.mp4", "portrait", box=[340, 0, 190, 190])["source_landmarks.npy"])
    assert (small[:, 4, 0] > 320).all()


def test_a_clip_that_does_not_fit_into_memory_gives_the_same_bytes(tmp_path, monkeypatch):
    path = talking(tmp_path / "clip.mp4", seconds=1)
    kept = aligned(path, "face")
    monkeypatch.setattr("stages.align.KEPT_BYTES", 10**6)
    assert aligned(path, "face") == kept


def test_a_box_is_the_crop(tmp_path):
    path = talking(tmp_path / "clip.mp4", seconds=0.8)
    result = aligned(path, "square", box=[20, 40, 256, 256])
    assert np.allclose(npy_array(result["transform.npy"]), [[1, 0, -20], [0, 1, -40]])
    source = next(frames_at(path, 25))
    shown = decode_frames(result["mp4"])[0]
    assert np.abs(shown.astype(int) - source[40:296, 20:276]).mean() < 3
    assert json_object(result["json"])["size"] == 256


def test_the_clips_of_a_film_share_a_still_crop_that_shows_head_and_shoulders(tmp_path):
    path = talking(tmp_path / "film.mp4", seconds=1.2)
    parts = [aligned_part(path, start, start + 0.6) for start in (0.0, 0.6)]
    transforms = np.concatenate([npy_array(part["transform.npy"]) for part in parts])
    assert (transforms == transforms[0]).all()
    assert transforms[0, 0, 1] == transforms[0, 1, 0] == 0
    crop = ALIGN.crops["portrait"]
    points = npy_array(find_landmarks(Clip("someone/film", parts[0]), LANDMARKS)["landmarks.npy"])[:, STABLE_POINTS, :2]
    eyes = points[:, 1:].mean(axis=1)
    assert np.allclose(eyes / crop.size, (0.5, crop.eye_height), atol=0.05)
    assert np.linalg.norm(points[:, 2] - points[:, 1], axis=-1).mean() == pytest.approx(crop.eye_distance * crop.size, rel=0.1)


def aligned_part(path: Path, start: float, end: float):
    return align_clip(source_clip("someone/film", path.parent, path.name, start, end, crop="portrait"), ALIGN)


def test_a_face_outside_of_its_box_and_a_crop_that_nobody_described_are_refused_by_name(tmp_path):
    path = talking(tmp_path / "clip.mp4", seconds=0.8)
    refused = aligned(path, "square", box=[0, 200, 60, 60])
    assert isinstance(refused, Skipped)
    assert refused.reason in ("no face", "face outside of the crop")
    with pytest.raises(ValueError, match=r"align\.crops.*has no oval"):
        aligned(path, "oval")


def test_a_phone_s_video_comes_upright(tmp_path):
    times = [t / 25 for t in range(25)]
    lying = [np.rot90(astronaut(t)) for t in times]  # as the sensor saw it
    path = write_video(tmp_path / "phone.mp4", lying, times, voice(1), rotation=-90)
    about = json_object(aligned(path, "face")["json"])
    assert (about["source_height"], about["source_width"]) == (360, 320)
    assert about["frames_without_face"] == 0


def test_a_header_that_claims_a_thousand_million_pixels_is_refused_by_name(tmp_path):
    path = write_video(
        tmp_path / "huge.avi",
        [np.zeros((32, 32, 3), np.uint8)] * 30,
        [t / 25 for t in range(30)],
        voice(1),
        codec="rawvideo",
        sound_codec="libmp3lame",
        rate=Fraction(25),
    )
    data = bytearray(path.read_bytes())
    sizes = data.index(b"strf") + 12
    data[sizes : sizes + 8] = struct.pack("<ii", 40_000, 25_000)
    path.write_bytes(data)
    result = aligned(path, "face")
    assert isinstance(result, Skipped)
    assert result.reason == "impossible picture size"
    assert "huge.avi" in result.detail


@pytest.mark.skipif(not REAL, reason="no real clips beside the repository (../shared/media)")
def test_the_words_of_grid_fall_where_they_are_heard():
    """swwp2s.align is in thousandths of a frame, 25 frames a second: the first word's start is where sound sets in."""
    words = [line.split() for line in (MEDIA / "grid" / "swwp2s.align").read_text().splitlines()]
    begin = next(int(start) for start, _, word in words if word not in ("sil", "sp")) / 25_000
    end = next(int(start) for start, _, word in reversed(words) if word == "sil") / 25_000
    sound, rate = wav_samples(aligned(MEDIA / "grid" / "swwp2s.mpg", "face")["wav"])
    level = np.sqrt(np.convolve(sound**2, np.ones(rate // 50) / (rate // 50), "same"))
    loud = np.flatnonzero(level > 5 * np.median(level[: rate // 2])) / rate
    assert loud[0] == pytest.approx(begin, abs=0.08)  # two frames: the "s" of "set" sets in softly
    assert loud[-1] == pytest.approx(end, abs=0.08)
