from dataclasses import replace

import numpy as np
import pytest
import torch

from data.media.video import decode_frames, encode_frames
from data.mesh import LANDMARKS_68
from data.shardset import Clip, Index, json_bytes, npy_array, npy_bytes, write_index
from models.given import Given
from models.head.examples import (
    STILL,
    TrainingExamples,
    decode_clip,
    face_boxes,
    lip_squares,
    loaders,
    motion_windows,
    painted_over,
    person_of,
    validation_examples,
)
from models.landmarks import motion_of
from models.radiance.cameras import project
from tests.models.head.corpus import CONFIG, SHIRT, WALL, made_clip, made_torso, npz, packed, write_corpus, write_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("head") / "train", [5, 4])


@pytest.fixture(scope="module")
def person(shards):
    return person_of(shards)


def test_what_is_known_of_a_person(shards, person):
    motions = [motion_of(npy_array(made_clip(index, length).members["vertices.npy"])) for index, length in ((0, 5), (1, 4))]
    all_frames = np.concatenate(motions)
    assert np.allclose(person.mean, all_frames.mean(axis=0), atol=1e-5)
    moves = all_frames.std(axis=0) > 0.1
    assert 0 < moves.sum() < 40 and np.allclose(person.std[moves], all_frames.std(axis=0)[moves], rtol=1e-4)
    assert np.allclose(person.std[~moves], STILL), "what stands still is not blown up"
    assert person.first == {"person/clip00": 0, "person/clip01": 5} and person.poses.shape == (9, 4, 4)
    assert person.size == (48, 48) and person.camera == (2.9 * 48, (23.5, 23.5))


def test_a_frame_and_what_is_told_of_it(person):
    clip = made_clip(1, 4)
    filmed = decode_clip(clip, replace(CONFIG, image_size=48), person)
    assert np.array_equal(filmed.images, decode_frames(clip.members["mp4"]))
    assert (filmed.behind[:, :42] == WALL).all() and (filmed.behind[:, 42:] == SHIRT[:3]).all()
    assert (filmed.images[filmed.heads] != WALL).any(1).all() and 200 < filmed.heads[0].sum() < 600
    example = filmed.example(2)
    motion = motion_of(npy_array(clip.members["vertices.npy"]))
    assert np.allclose(example.motion.numpy() * person.std + person.mean, motion[[0, 1, 2, 3, 3]], atol=1e-3)
    assert torch.equal(example.pose, torch.from_numpy(npy_array(clip.members["pose.npy"])[2]))
    assert int(example.number) == 5 + 2


def test_frames_of_others_have_the_number_0(person):
    filmed = decode_clip(made_clip(7, 3), CONFIG, person)
    assert not filmed.numbers.any()


def test_landmarks_are_where_the_reduced_cameras_rays_say(person):
    """The picture at two thirds of its size: each landmark, in metres, projects to where it is in the smaller picture."""
    clip = made_clip(0, 5)
    example = decode_clip(clip, CONFIG, person).example(3)
    assert example.image.shape == example.behind.shape == (32, 32, 3)
    points = torch.from_numpy(npy_array(clip.members["vertices.npy"])[3, LANDMARKS_68])
    pixels, _ = project(example.pose, float(example.focal), tuple(example.center.tolist()), points)
    known = npy_array(clip.members["landmarks.npy"])[3, LANDMARKS_68, :2]
    assert np.allclose(pixels.numpy(), (known + 0.5) * 2 / 3 - 0.5, atol=1e-3)
    lips, (x0, y0, x1, y1) = pixels[48:60], example.lips.tolist()
    assert x1 - x0 == y1 - y0 == 16
    assert np.allclose([(x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2], (lips.amin(0) + lips.amax(0)) / 2, atol=1)
    face = example.face.tolist()
    assert face[0] < pixels[:, 0].min() and face[2] > pixels[:, 0].max() and face[3] > pixels[8, 1]


def test_reduced_pixels_are_means(person):
    clip = made_clip(0, 2)
    small = decode_clip(clip, replace(CONFIG, image_size=24), person).images
    whole = decode_frames(clip.members["mp4"]).astype(float)
    assert np.abs(small - whole.reshape(2, 24, 2, 24, 2, 3).mean((2, 4))).max() <= 1


def test_windows_of_motion():
    motion = np.arange(1, 4, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    edge, zeros = motion_windows(motion, 5, "edge"), motion_windows(motion, 5, "zeros")
    assert edge[..., 0].tolist() == [[1, 1, 1, 2, 3], [1, 1, 2, 3, 3], [1, 2, 3, 3, 3]] and edge.shape == (3, 5, 2)
    assert zeros[..., 1].tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 0], [1, 2, 3, 0, 0]]
    assert motion_windows(motion[:1], 1, "edge").tolist() == [[[1, 1]]]


def test_boxes_of_the_release():
    """Centre x: the middle of the landmarks; half-width 1.5 times to the farthest; centre y: landmark 27; half-height 1.15 of the
    way to the chin."""
    points = np.zeros((1, 68, 2))
    points[0, :, 0] = np.linspace(40, 60, 68)
    points[0, :, 1], points[0, 27, 1], points[0, 8, 1] = 45, 40, 60
    assert face_boxes(points, 100).tolist() == [[35, 17, 65, 63]]
    assert face_boxes(points - [30, 30], 50).tolist() == [[5, 0, 35, 33]], "cut at the picture's edge"
    points[0, 48:60] = np.linspace([30, 50], [53.5, 60], 12)
    assert lip_squares(points, 100).tolist() == [[30, 43, 54, 67]]
    points[0, 48:60] = [2.0, 3.0]
    assert lip_squares(points, 100).tolist() == [[0, 0, 16, 16]], "no smaller than LPIPS takes, and inside of the picture"
    assert lip_squares(points, 12).tolist() == [[0, 0, 12, 12]]


def test_painting_over():
    torso = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    background = np.full((1, 3, 3), 100, np.uint8)
    assert painted_over(torso, background).tolist() == [[[200, 100, 0], [100, 100, 100], [120, 100, 80]]]


def test_batches(shards):
    train, val = loaders(replace(CONFIG, batch_size=2), Given(shards, shards))
    batch = next(iter(train))
    assert batch.image.shape == (2, 32, 32, 3) and batch.image.dtype == torch.uint8 and batch.motion.shape == (2, 5, 204)
    assert batch.motion.dtype == batch.pose.dtype == batch.focal.dtype == batch.center.dtype == torch.float32
    assert [len(batch.image) for batch in val] == [2, 2, 2], "three frames of each clip"


def test_every_frame_is_drawn_and_validation_is_always_the_same(shards, person):
    examples = iter(TrainingExamples(shards, CONFIG, person))
    assert {int(next(examples).number) for _ in range(100)} == set(range(9))
    first, second = (validation_examples(shards, CONFIG, person) for _ in range(2))
    assert [int(example.number) for example in first] == [0, 2, 4, 5, 7, 8]
    assert all(torch.equal(one.image, other.image) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda members: members.pop("torso.npz"), "clip person/clip00 has no torso.npz: run the stage that makes it"),
        (lambda members: members.update({"torso.npz": npz(made_torso(2))}), r"is uint8 \(2, 48, 48, 4\), not uint8 \(3,"),
        (lambda members: members.update({"torso.npz": npz(made_torso(3)[..., :3])}), r"torso.npz is uint8 \(3, 48, 48, 3\)"),
        (lambda members: members.update({"torso.npz": npz(made_torso(3))[:-30]}), "torso.npz is damaged"),
        (
            lambda members: members.update({"parsing.npz": packed(labels=np.zeros((3, 48, 47), np.uint8))}),
            r"labels of parsing.npz is",
        ),
        (lambda members: members.update({"pose.npy": npy_bytes(np.zeros((2, 4, 4)))}), r"pose.npy has the shape \(2, 4, 4\)"),
        (
            lambda members: members.update({"mp4": encode_frames(iter(np.zeros((4, 48, 48, 3), np.uint8)), 25, 0)}),
            "its mp4 is not 3 frames of 48 x 48 pixels",
        ),
        (
            lambda members: members.update({"mp4": encode_frames(iter(np.zeros((3, 32, 32, 3), np.uint8)), 25, 0)}),
            "its mp4 is not 3 frames of 48 x 48 pixels",
        ),
    ],
)
def test_a_clip_whose_members_do_not_fit_is_named(person, change, message):
    members = dict(made_clip(0, 3).members)
    change(members)
    with pytest.raises(ValueError, match=message) as refused:
        decode_clip(Clip("person/clip00", members), CONFIG, person)
    assert "person/clip00" in str(refused.value)


def test_pictures_that_are_too_small_are_refused(person):
    with pytest.raises(ValueError, match=r"clip person/clip00 has pictures of 48 x 48 pixels, .* at least 64"):
        decode_clip(made_clip(0, 2), replace(CONFIG, image_size=64), person)


def test_clips_of_different_cameras_are_refused(tmp_path):
    one, other = made_clip(0, 2), made_clip(1, 2)
    other = Clip(other.key, dict(other.members) | {"camera.json": json_bytes({"focal": 99.0, "center": [23.5, 23.5]})})
    with pytest.raises(ValueError, match="different cameras or sizes, as person/clip00 and person/clip01"):
        person_of(write_set(tmp_path / "train", [one, other]))


def test_a_set_without_clips_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    write_index(tmp_path / "train", Index.of([], {}))
    with pytest.raises(ValueError, match="holds no clip"):
        person_of(tmp_path / "train")
