import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.shardset import Clip, npy_array, npy_bytes
from models.checkpoint import BadCheckpoint, write_checkpoint
from models.geneface.generate import TEMPERATURE, load, paint, pose_path, regenerate, speak
from models.geneface.network import Seen, build, composed, places, pose_vector
from models.given import Given
from models.head import generate as heads
from models.head.examples import Camera, camera_of
from models.landmarks import motion_of
from models.motion.generate import move
from models.noise import seed_of
from models.postnet import generate as postnet
from models.radiance.cameras import rays
from tests.models.geneface.corpus import CONFIG, CONFIG_MLP, SIDE, made_clip, write_corpus
from tests.models.head.corpus import camera, made_poses

FORMS = pytest.mark.parametrize("form", ["grid", "mlp"])


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Given:
    return write_corpus(tmp_path_factory.mktemp("geneface"), [3])


@pytest.fixture(scope="module")
def checkpoints(given, tmp_path_factory):
    """Of each form, a torso that nobody trained but that is there, with what is below it."""
    below, folder = given.train.parent, tmp_path_factory.mktemp("checkpoints")
    for config in (CONFIG, CONFIG_MLP):
        torch.manual_seed(0)
        torso = build(config)
        with torch.no_grad():
            if config.form == "grid":
                torso.grid.embeddings.uniform_(-1, 1)
            else:
                torso.fine.density_out.bias.fill_(2)
                for layer in torso.fine.color_layers:
                    layer.weight.mul_(4)
                torso.fine.color_out.weight.mul_(4)
            torso.background.random_(0, 256)
            torso.first_pose.copy_(torch.from_numpy(made_poses(3)[2]))
        write_checkpoint(folder / config.form, torso, config, "", {name: below / name for name in ("head", "postnet")})
    return {config.form: folder / config.form for config in (CONFIG, CONFIG_MLP)}


def without(clip, *members):
    return Clip(clip.key, {name: data for name, data in clip.members.items() if name not in members})


@FORMS
def test_a_checkpoint_is_read_whole(checkpoints, form, tmp_path):
    person = load(checkpoints[form])
    assert person.torso.config.form == form and not any(network.training for network in (person.torso, person.head))
    assert not any(parameter.requires_grad for parameter in person.torso.parameters())
    assert person.voice.motion.config.audio_width == CONFIG.audio_width and len(person.voice.network.motion_NX) == 30
    for name in ("head", "postnet"):
        broken = shutil.copytree(checkpoints[form], tmp_path / name)
        shutil.rmtree(broken / name)
        with pytest.raises(BadCheckpoint, match=f"{name}/config.json does not exist"):
            load(broken)


@FORMS
def test_a_picture_is_torso_head_and_background_pixel_by_pixel(checkpoints, form):
    person, clip = load(checkpoints[form]), made_clip(1, 2)
    motion, poses = motion_of(npy_array(clip.members["vertices.npy"])), npy_array(clip.members["pose.npy"])
    frames = list(paint(person, motion, poses, Camera(**camera(SIDE)), npy_array(clip.members["speech.npy"])))
    assert len(frames) == 2 and frames[0].shape == (SIDE, SIDE, 3) and frames[0].dtype == np.uint8 and frames[0].std() > 5

    black = [np.zeros((SIDE, SIDE, 3), np.uint8)] * 2
    picture = list(heads.painted(person.head, motion, poses, Camera(**camera(SIDE)), black))[1]
    y, x, torso = 21, 13, person.torso
    first = rays(torso.first_pose, camera(SIDE)["focal"], camera(SIDE)["center"], torch.tensor([[float(x), float(y)]]))
    sound = torch.zeros(30, CONFIG.audio_width)  # the windows of frame 1: its rows are 2 and 3, of four in all
    sound[14:18] = torch.arange(1, 5)[:, None] / 10
    seen = Seen(
        places(SIDE, torch.tensor([y * SIDE + x])),
        pose_vector(torch.from_numpy(poses[1:2]), form)[0],
        torch.cat([picture.color[y, x], picture.opacity[y, x, None]])[None],
        torso.background[y, x][None] / 255,
        0,
        first if form == "mlp" else None,
        sound if form == "mlp" else None,
    )
    expected = 255 * composed(torso(seen, None), form == "mlp", seen)[0]
    assert np.abs(frames[1][y, x] - expected.numpy()).max() <= 0.6


def test_the_mlp_form_needs_to_hear(checkpoints):
    with pytest.raises(ValueError, match="this torso hears speech: give its rows"):
        next(paint(load(checkpoints["mlp"]), np.zeros((1, 204)), made_poses(1), Camera(**camera(SIDE)), None))


def test_clips_are_made_again_from_each_source_of_motion(checkpoints):
    clips = [made_clip(1, 3), made_clip(2, 2)]
    person, made = load(checkpoints["grid"]), {}
    for source in ("adapted", "generic", "filmed"):
        made[source] = regenerate(checkpoints["grid"], clips, source, 16, 1, 5)
        assert [frames.shape for frames in made[source]] == [(3, SIDE, SIDE, 3), (2, SIDE, SIDE, 3)]
    rows = npy_array(clips[0].members["speech.npy"])
    motions = {
        "adapted": speak(person, rows, "adapted", seed_of(5, "person/clip01")),
        "generic": speak(person, rows, "generic", seed_of(5, "person/clip01")),
        "filmed": motion_of(npy_array(clips[0].members["vertices.npy"])),
    }
    for source, motion in motions.items():
        poses, at = npy_array(clips[0].members["pose.npy"]), camera_of(clips[0], SIDE / 48)
        assert np.array_equal(np.stack(list(paint(person, motion, poses, at, None))), made[source][0])
    assert not np.array_equal(made["adapted"][0], made["generic"][0])
    with pytest.raises(ValueError, match="no source of motion 'ddim': there are adapted, generic, filmed"):
        regenerate(checkpoints["grid"], clips, "ddim", 16, 1, 0)


def test_the_mlp_form_hears_the_clip(checkpoints):
    clip = made_clip(1, 1)
    (frames,) = regenerate(checkpoints["mlp"], [clip], "filmed", 16, 1, 0)
    louder = Clip(clip.key, clip.members | {"speech.npy": npy_bytes(9 * npy_array(clip.members["speech.npy"]))})
    (others,) = regenerate(checkpoints["mlp"], [louder], "filmed", 16, 1, 0)
    assert frames.shape == (1, SIDE, SIDE, 3) and not np.array_equal(frames, others)


def test_what_is_said_is_the_person_s_postnet_s_or_the_generator_s(checkpoints):
    person, rows = load(checkpoints["grid"]), npy_array(made_clip(1, 6).members["speech.npy"])
    generic = move(person.voice.motion, rows, TEMPERATURE, 3)
    assert np.allclose(speak(person, rows, "generic", 3), generic, atol=1e-6)
    guards = person.voice.network.config.guards
    assert np.array_equal(speak(person, rows, "adapted", 3), postnet.adapt(person.voice.network, generic, guards))
    steady = replace(guards, smoothing=0.9)
    assert not np.array_equal(speak(person, rows, "adapted", 3, steady), speak(person, rows, "adapted", 3))
    assert np.array_equal(speak(person, rows, "generic", 3, steady), speak(person, rows, "generic", 3))


def test_steps_are_the_samples_of_a_ray(checkpoints):
    clips = [made_clip(1, 1)]
    few, many = (regenerate(checkpoints["grid"], clips, "filmed", steps, 1, 0)[0] for steps in (1, 16))
    assert not np.array_equal(few, many)


def test_clips_that_lack_something_are_named(checkpoints):
    clip = made_clip(1, 2)
    silent = without(clip, "speech.npy")
    assert len(regenerate(checkpoints["grid"], [silent], "filmed", 16, 1, 0)[0]) == 2, "the film's own motion needs no sound"
    for form, source, member in (
        ("grid", "adapted", "speech.npy"),
        ("mlp", "filmed", "speech.npy"),
        ("grid", "filmed", "vertices.npy"),
        ("grid", "generic", "pose.npy"),
        ("grid", "generic", "camera.json"),
    ):
        with pytest.raises(ValueError, match=f"clip person/clip01 has no {member}: run the stage that makes it"):
            regenerate(checkpoints[form], [without(clip, member)], source, 16, 1, 0)
    other = Clip(clip.key, clip.members | {"speech.npy": npy_bytes(np.zeros((4, 3), np.float32))})
    with pytest.raises(ValueError, match=r"clip person/clip01: speech.npy has the shape \(4, 3\)"):
        regenerate(checkpoints["grid"], [other], "adapted", 16, 1, 0)


def test_paths_of_poses():
    poses = made_poses(4)
    assert np.array_equal(pose_path(poses, 3, "film"), poses[:3])
    assert np.array_equal(pose_path(poses, 3, "still"), poses[[0, 0, 0]])
    assert np.array_equal(pose_path(poses, 10, "loop"), poses[[0, 1, 2, 3, 2, 1, 0, 1, 2, 3]])
    assert np.array_equal(pose_path(poses[:1], 3, "loop"), poses[[0, 0, 0]])
    assert np.array_equal(pose_path(poses[:2], 5, "loop"), poses[[0, 1, 0, 1, 0]])
    with pytest.raises(ValueError, match="the film has 4 poses, and the sound 5 frames: take a still, or a loop"):
        pose_path(poses, 5, "film")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@FORMS
def test_a_gpu_paints_the_same(checkpoints, form, monkeypatch):
    clips = [made_clip(1, 2)]
    (frames,) = regenerate(checkpoints[form], clips, "filmed", 16, 1, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (others,) = regenerate(checkpoints[form], clips, "filmed", 16, 1, 0)
    assert np.abs(frames.astype(int) - others).max() <= 2
