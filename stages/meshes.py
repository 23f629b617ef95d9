"""The face's shape without the head's movement: the 478 points in metres, in a frame that the head carries, and its pose.

**Head frame**, as FLAME's: x to the person's left (the right of an unmirrored picture), y up, z out of the face, metres.
**Camera frame**, OpenCV's: x right, y down, z away from the camera. So a head that looks straight into the camera has the pose
diag(1, −1, −1), and `pose[t] @ (vertex, 1)`, times the focal length over its z, plus the centre, is the landmark in pixels.

One camera cannot tell a small head from a far one, nor a near wide lens from a far narrow one. Two things are assumed and not
measured: the head's size is that of MediaPipe's canonical face (metres are right to the spread of heads, some 5 %), and the
camera has a given focal length. MediaPipe's depth is a guess of its network in weak perspective. Others assume too: GeneFace++
fixes the focal length, AD-NeRF tries ten and keeps the best fit to a morphable model.
"""

from dataclasses import dataclass

import numpy as np

from data.mesh import LOWER_LIP, UPPER_LIP
from data.shardset import Clip, Column, json_bytes, json_object, npy_array, npy_bytes
from stages.columns import make_column
from stages.faces import smooth

# Points that speech does not move, metres in the head frame: where they are in MediaPipe's canonical face model (Apache-2.0).
# Chosen as those above the upper lip that moved least against each other in six speakers' clips, spread over the face.
MIDDLE = {
    **{6: (0.0, 0.0247, 0.0579), 8: (0.0, 0.0402, 0.0528), 9: (0.0, 0.0489, 0.0539), 10: (0.0, 0.0826, 0.0448)},
    **{151: (0.0, 0.0655, 0.0503), 168: (0.0, 0.0327, 0.0524), 195: (0.0, 0.0106, 0.0677), 197: (0.0, 0.0173, 0.0632)},
}
RIGHT_AND_LEFT = {  # the model is symmetric: a point on the right, its image on the left
    **{(21, 251): (-0.0709, 0.0543, 0.001), (31, 261): (-0.0506, 0.0193, 0.0278), (33, 263): (-0.0445, 0.0266, 0.0317)},
    **{(54, 284): (-0.0628, 0.0662, 0.0143), (67, 297): (-0.0352, 0.0801, 0.0373), (103, 332): (-0.0513, 0.0749, 0.0266)},
    **{(109, 338): (-0.0189, 0.0824, 0.0427), (113, 342): (-0.0499, 0.0307, 0.0308), (114, 343): (-0.013, 0.0142, 0.0483)},
    **{(124, 353): (-0.0559, 0.0321, 0.0269), (126, 355): (-0.0161, 0.0034, 0.049), (127, 356): (-0.0774, 0.0236, -0.0201)},
    **{(133, 362): (-0.0186, 0.0259, 0.0376), (162, 389): (-0.0756, 0.0411, -0.0099), (188, 412): (-0.0095, 0.0191, 0.052)},
}
RIGID_POINTS = [*MIDDLE, *(right for right, _ in RIGHT_AND_LEFT), *(left for _, left in RIGHT_AND_LEFT)]
CANONICAL_R3 = np.array([*MIDDLE.values(), *RIGHT_AND_LEFT.values(), *((-x, y, z) for x, y, z in RIGHT_AND_LEFT.values())])

ROUNDS = 10  # of fitting; after five, nothing moves by a hundredth of a millimetre
CLOSED = 0.2  # share of the frames, those with the mouth most closed, whose median is the neutral face


@dataclass(frozen=True)
class MeshParams:
    """`meshes` in params.yaml."""

    focal: dict[str, float]  # of the camera assumed for each crop, in widths of the crop
    smoothing: int  # frames over which the pose is averaged, centred; 1 for none


def find_mesh(clip: Clip, params: MeshParams) -> Column:
    """One clip's `vertices` (T, 478, 3), `template` (478, 3), `pose` (T, 4, 4), all float32, and its `camera`.

    The template is the speaker's neutral face: lips together, or nearest to it that the clip has.
    """
    about = json_object(clip.members["json"])
    focal, centre = params.focal[about["crop"]] * about["size"], (about["size"] - 1) / 2
    landmarks_TP3 = npy_array(clip.members["landmarks.npy"]).astype(np.float64)
    vertices_TP3, pose_T44 = without_pose(landmarks_TP3, focal, centre)
    return {
        "vertices.npy": npy_bytes(vertices_TP3.astype(np.float32)),
        "template.npy": npy_bytes(neutral(vertices_TP3).astype(np.float32)),
        "pose.npy": npy_bytes(smooth_poses(pose_T44, params.smoothing).astype(np.float32)),
        "camera.json": json_bytes({"focal": focal, "center": [centre, centre]}),
    }


def without_pose(landmarks_TP3: np.ndarray, focal: float, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks in pixels to `(T, P, 3)` vertices in the head frame, metres, and `(T, 4, 4)` camera-from-head.

    Each frame's rigid points are fitted to the speaker's own, which are their mean over the clip, of the canonical face's size
    and place (a generalised Procrustes analysis). A frame's scale is its head's distance.
    """
    shape_R3 = CANONICAL_R3
    scale_T, _, _ = fit_similarity(landmarks_TP3[:, RIGID_POINTS], shape_R3)
    metres_T11 = scale_T[:, None, None]  # in a pixel, at the depth of the head
    for _ in range(ROUNDS):
        depth_TP1 = (focal + landmarks_TP3[..., 2:]) * metres_T11
        camera_TP3 = np.concatenate(((landmarks_TP3[..., :2] - centre) * depth_TP1 / focal, depth_TP1), axis=-1)
        scale_T, rotation_T33, shift_T3 = fit_similarity(camera_TP3[:, RIGID_POINTS], shape_R3)
        scaled_TP3 = scale_T[:, None, None] * camera_TP3
        vertices_TP3 = scaled_TP3 @ rotation_T33.transpose(0, 2, 1) + shift_T3[:, None]
        metres_T11 = metres_T11 * scale_T[:, None, None]
        mean_R3 = vertices_TP3[:, RIGID_POINTS].mean(axis=0)
        scale_1, rotation_133, shift_13 = fit_similarity(mean_R3[None], CANONICAL_R3)
        shape_R3 = scale_1[0] * mean_R3 @ rotation_133[0].T + shift_13[0]
    pose_T44 = np.tile(np.eye(4), (len(landmarks_TP3), 1, 1))
    pose_T44[:, :3, :3] = rotation_T33.transpose(0, 2, 1)
    pose_T44[:, :3, 3] = -(shift_T3[:, None] @ rotation_T33)[:, 0]
    return vertices_TP3, pose_T44


def fit_similarity(points_TR3: np.ndarray, target_R3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each frame the scale `(T,)`, rotation `(T, 3, 3)` and shift `(T, 3)` that bring its points nearest to the target.

    Umeyama 1991, in closed form.
    """
    mean_T13, target_mean_3 = points_TR3.mean(axis=1, keepdims=True), target_R3.mean(axis=0)
    centred_TR3 = points_TR3 - mean_T13
    left_T33, values_T3, right_T33 = np.linalg.svd((target_R3 - target_mean_3).T @ centred_TR3)
    signs_T3 = np.ones_like(values_T3)
    signs_T3[:, 2] = np.sign(np.linalg.det(left_T33 @ right_T33))  # no reflection
    rotation_T33 = left_T33 * signs_T3[:, None] @ right_T33
    scale_T = (values_T3 * signs_T3).sum(axis=1) / (centred_TR3**2).sum(axis=(1, 2))
    shift_T3 = target_mean_3 - scale_T[:, None] * (mean_T13 @ rotation_T33.transpose(0, 2, 1))[:, 0]
    return scale_T, rotation_T33, shift_T3


def neutral(vertices_TP3: np.ndarray) -> np.ndarray:
    """`(P, 3)`: each point's median over the frames in which the lips are nearest to each other."""
    opening_T = np.linalg.norm(vertices_TP3[:, UPPER_LIP] - vertices_TP3[:, LOWER_LIP], axis=-1)
    return np.median(vertices_TP3[opening_T <= np.quantile(opening_T, CLOSED)], axis=0)


def smooth_poses(pose_T44: np.ndarray, frames: int) -> np.ndarray:
    """Poses averaged over `frames` frames; the mean of rotations is the rotation nearest to the mean of their matrices."""
    smoothed_T44 = smooth(pose_T44, frames)
    left_T33, _, right_T33 = np.linalg.svd(smoothed_T44[:, :3, :3])
    smoothed_T44[:, :3, :3] = left_T33 @ right_T33
    return smoothed_T44


def run(part: str) -> None:
    make_column("meshes", find_mesh, MeshParams, part, reads=["align", "landmarks"], needs="landmarks.npy")
