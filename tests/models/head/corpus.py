"""A head made by code: an ellipsoid with a dark mouth that opens with its landmarks, before a plain wall, over a shirt."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from data.media.video import encode_frames
from data.mesh import LANDMARKS_68, POINTS
from data.shardset import Clip, Index, json_bytes, npy_bytes, write_index, write_shard
from models.head.config import SAMPLE, SAMPLE_MLP
from models.landmarks import CANONICAL_P3

SIZE = 48
WALL = np.array([70, 110, 150], np.uint8)
SHIRT = np.array([40, 60, 40, 255], np.uint8)
RADII = np.array([0.075, 0.105, 0.085])  # metres
CENTER = np.array([0.0, -0.005, -0.01])
UPPER_LIP, MOUTH_WIDTH, WIDEST = -0.042, 0.05, 0.035  # metres: height of the upper lip, of the mouth; how far it opens
LOWER_LIP = [55, 56, 57, 58, 59, 65, 66, 67]  # of the 68: what goes down when the mouth opens
DARK = 60  # of 255: less is mouth

CONFIG = replace(
    SAMPLE,
    image_size=32,
    levels=4,
    finest=64,
    log2_rows=12,
    hidden=16,
    frame_codes=40,
    cells=16,
    rays=96,
    lip_share=0.0,
    steps=4,
    log_every=1,
    val_every=2,
    frames_per_clip=3,
)
CONFIG_MLP = replace(
    SAMPLE_MLP, image_size=32, hidden=16, coarse_samples=6, fine_samples=6, rays=48, steps=4, log_every=1, val_every=2,
    frames_per_clip=3,
)  # fmt: skip


def camera(size=SIZE):
    return {"focal": 2.9 * size, "center": [(size - 1) / 2] * 2}


def made_poses(length, seed=0):
    """(T, 4, 4) camera-from-head: a metre away, nodding and turning a little."""
    phases = np.random.default_rng(seed).uniform(0, 6, 2)
    poses = np.tile(np.eye(4), (length, 1, 1))
    for pose, (turn, nod) in zip(poses, 0.12 * np.sin(0.4 * np.arange(length)[:, None] + phases), strict=True):
        around_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
        around_x = np.array([[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]])
        pose[:3, :3] = np.diag([1, -1, -1]) @ around_y @ around_x
        pose[:3, 3] = [0, 0, 1]
    return poses


def vertices_of(openings_T):
    """(T, 478, 3) float32 metres: the canonical face, its lower lip and jaw down by the opening (metres)."""
    vertices = np.zeros((len(openings_T), POINTS, 3), np.float32)
    vertices[:, LANDMARKS_68] = CANONICAL_P3 / 100
    for points, share in ((LOWER_LIP, 1.0), (range(5, 12), 0.8)):
        moved = [LANDMARKS_68[point] for point in points]
        vertices[:, moved, 1] -= share * np.asarray(openings_T)[:, None]
    return vertices


def drawn_head(pose, opening, size=SIZE, samples=3):
    """(H, W, 4) float RGBA in [0, 255], by tracing rays to the ellipsoid; each pixel the mean of samples² of them."""
    fine = size * samples
    x, y = np.meshgrid(*[(np.arange(fine) + 0.5) / samples - 0.5] * 2)
    focal, (cx, cy) = camera(size)["focal"], camera(size)["center"]
    directions = np.stack([(x - cx) / focal, (y - cy) / focal, np.ones_like(x)], -1) @ pose[:3, :3]
    origin = (-pose[:3, 3] @ pose[:3, :3] - CENTER) / RADII
    along = directions / RADII
    a, b, c = (along**2).sum(-1), along @ origin, origin @ origin - 1
    root = b**2 - a * c
    hit = root > 0
    surface = origin + ((-b - np.sqrt(root.clip(0))) / a)[..., None] * along
    place = surface * RADII + CENTER
    light = (0.75 + 0.25 * surface[..., 2:])[..., None, 0]
    colour = light * np.where(place[..., 1:2] > 0.06, [90, 60, 40], [225, 170, 140])  # hair above the forehead
    below = UPPER_LIP - place[..., 1]
    mouth = (below > 0) & (below < opening) & (np.abs(place[..., 0]) < MOUTH_WIDTH / 2) & (surface[..., 2] > 0)
    colour[mouth] = [30, 10, 10]
    rgba = np.concatenate([colour * hit[..., None], 255.0 * hit[..., None]], -1)
    mean = rgba.reshape(size, samples, size, samples, 4).mean((1, 3))
    mean[..., :3] *= 255 / mean[..., 3:].clip(1)
    return mean


def made_torso(length, size=SIZE):
    """(T, H, W, 4) uint8: the lowest eighth."""
    torso = np.zeros((length, size, size, 4), np.uint8)
    torso[:, -size // 8 :] = SHIRT
    return torso


def composed(head_HW4, torso_HW4, size=SIZE):
    """(H, W, 3) uint8: the wall, the torso and the head, one over the other."""
    behind = np.where(torso_HW4[..., 3:] > 0, torso_HW4[..., :3], WALL).astype(float)
    share = head_HW4[..., 3:] / 255
    return np.rint(share * head_HW4[..., :3] + (1 - share) * behind).astype(np.uint8)


def openings_of(length, seed=0):
    return WIDEST * (0.5 - 0.5 * np.cos(0.9 * np.arange(length) + seed))


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def npz(torso):
    return packed(torso=torso)


def packed(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def members_of(openings_T, poses_T44, size=SIZE):
    """The members of a clip of the stages, as it is in the shards."""
    length, torso, vertices = len(openings_T), made_torso(len(openings_T), size), vertices_of(openings_T)
    heads = [drawn_head(pose, opening, size) for pose, opening in zip(poses_T44, openings_T, strict=True)]
    frames = [composed(head, shirt, size) for head, shirt in zip(heads, torso, strict=True)]
    labels = np.where(np.stack(heads)[..., 3] > 254, 2, torso[..., 3] // 255).astype(np.uint8)
    in_camera = np.einsum("tij,tpj->tpi", poses_T44[:, :3, :3], vertices) + poses_T44[:, None, :3, 3]
    landmarks = in_camera * camera(size)["focal"] / in_camera[..., 2:] + (size - 1) / 2
    return {
        "mp4": encode_frames(iter(frames), fps=25, crf=0),
        "landmarks.npy": npy_bytes(landmarks.astype(np.float32)),
        "vertices.npy": npy_bytes(vertices),
        "pose.npy": npy_bytes(poses_T44.astype(np.float32)),
        "camera.json": json_bytes(camera(size)),
        "background.png": png(np.broadcast_to(WALL, (size, size, 3)).copy()),
        "torso.npz": npz(torso),
        "parsing.npz": packed(labels=labels),
        "json": json_bytes({"frames": length, "fps": 25, "size": size}),
    }


def made_clip(index, length, size=SIZE):
    return Clip(f"person/clip{index:02d}", members_of(openings_of(length, index), made_poses(length, index), size))


def write_set(folder, clips):
    folder.mkdir(parents=True)
    write_index(folder, Index.of([write_shard(folder / "00000.tar", clips)], {}))
    return folder


def write_corpus(folder, lengths, size=SIZE):
    return write_set(folder, [made_clip(index, length, size) for index, length in enumerate(lengths)])
