"""A small z-buffer rasteriser: triangles to pixels, orthographic, smoothly shaded, anti-aliased.

Compiled by numba; on one thread, in double precision and without fast-math, so that the same input gives the same bytes.
World axes are those of the meshes: x to the right of the picture, y up, z towards the viewer.

Nothing in it is new: a depth buffer (Catmull 1974) of `SAMPLES`² samples a pixel, normals interpolated over each triangle
(Phong 1975), light after Lambert and from the hemisphere, colours mixed in linear light.
"""

from dataclasses import dataclass

import numba
import numpy as np

SAMPLES = 2  # samples a pixel along each axis
EDGE = 1e-9  # by which a triangle reaches over its edges, so that rounding leaves no crack between two

# A lamp above the viewer's left shoulder, a pale sky and a dimmer ground, in shares of what shows a colour as it is.
LAMP = np.array((-0.42, 0.58, 0.70)) / np.linalg.norm((-0.42, 0.58, 0.70))
LAMP_SHARE, SKY_SHARE, GROUND_SHARE = 0.60, 0.42, 0.26
GLOSS = 0.05  # of a highlight, in units of white
HALFWAY = LAMP + np.array((0, 0, 1))
HALFWAY /= np.linalg.norm(HALFWAY)  # between lamp and viewer
INSIDE = 0.12  # of its light a surface keeps that is seen from behind: the inside of a head, through its mouth

LEVELS = 4095  # of linear light, told apart by the table below


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, 0 to 1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


SRGB = np.rint(255 * _to_srgb(np.linspace(0, 1, LEVELS + 1))).astype(np.uint8)


def linear_light(colour: np.ndarray | tuple[float, float, float]) -> np.ndarray:
    """sRGB, 0 to 1, to linear light."""
    srgb = np.asarray(colour, np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True)
class View:
    """An orthographic camera in front of a mesh; it stays where it is while the mesh moves."""

    width: int  # pixels
    height: int
    scale: float  # pixels in a unit of the mesh
    middle_3: np.ndarray  # the point of the mesh in the middle of the picture
    turn_33: np.ndarray  # rotation of the mesh before it is looked at along −z

    def pixels(self, vertices_V3: np.ndarray) -> np.ndarray:
        """`(V, 3)`: x right and y down, in pixels from the picture's upper left corner, and z towards the viewer likewise."""
        turned_V3 = (np.asarray(vertices_V3, np.float64) - self.middle_3) @ self.turn_33.T * self.scale
        return turned_V3 * (1, -1, 1) + (self.width / 2, self.height / 2, 0)


def framed(box_N3: np.ndarray, width: int, height: int, turn_33: np.ndarray, fill: float) -> View:
    """The view in which points, once turned, take up the share `fill` of the picture's width or height, and of the other less."""
    turned_N3 = np.asarray(box_N3, np.float64) @ turn_33.T
    low_3, high_3 = turned_N3.min(axis=0), turned_N3.max(axis=0)
    scale = fill * min(width / (high_3[0] - low_3[0]), height / (high_3[1] - low_3[1]))
    return View(width, height, float(scale), (low_3 + high_3) / 2 @ turn_33, turn_33)


def turned(degrees: float) -> np.ndarray:
    """The rotation about the y axis that turns a face to the right of the picture."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array(((cosine, 0, sine), (0, 1, 0), (-sine, 0, cosine)))


@numba.njit(cache=True)
def vertex_normals(vertices_V3: np.ndarray, triangles_F3: np.ndarray) -> np.ndarray:
    """`(V, 3)` unit normals: the mean of the adjoining triangles', by area; 0 where there is none."""
    normals_V3 = np.zeros(vertices_V3.shape, np.float64)
    for number in range(len(triangles_F3)):
        a, b, c = triangles_F3[number]
        xa, ya, za = vertices_V3[a, 0], vertices_V3[a, 1], vertices_V3[a, 2]
        ux, uy, uz = vertices_V3[b, 0] - xa, vertices_V3[b, 1] - ya, vertices_V3[b, 2] - za
        vx, vy, vz = vertices_V3[c, 0] - xa, vertices_V3[c, 1] - ya, vertices_V3[c, 2] - za
        for corner in (a, b, c):
            normals_V3[corner, 0] += uy * vz - uz * vy
            normals_V3[corner, 1] += uz * vx - ux * vz
            normals_V3[corner, 2] += ux * vy - uy * vx
    for vertex in range(len(normals_V3)):
        x, y, z = normals_V3[vertex]
        length = np.sqrt(x * x + y * y + z * z)
        if length > 0:
            normals_V3[vertex] /= length
    return normals_V3


def draw(
    vertices_V3: np.ndarray,
    triangles_F3: np.ndarray,
    colours_V3: np.ndarray,
    view: View,
    background: np.ndarray,
    relief: float = 1.0,
) -> np.ndarray:
    """The mesh as `(H, W, 3)` uint8 sRGB.

    colours, background: linear light, 0 to 1. relief: how much of the light is left, 0 (none: colours as they are) to 1.
    """
    points_V3 = view.pixels(vertices_V3)
    normals_V3 = vertex_normals(np.asarray(vertices_V3, np.float64), triangles_F3) @ view.turn_33.T
    which_HW, _ = visible(points_V3 * SAMPLES, triangles_F3, view.height * SAMPLES, view.width * SAMPLES)
    return _shade(which_HW, points_V3, triangles_F3, normals_V3, colours_V3, np.asarray(background, np.float64), relief)


@numba.njit(cache=True)
def visible(points_V3: np.ndarray, triangles_F3: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of the triangle nearest to the viewer at each pixel's centre, −1 for none, and its depth (larger is nearer)."""
    which_HW = np.full((height, width), -1, np.int32)
    depth_HW = np.full((height, width), -np.inf, np.float32)
    for number in range(len(triangles_F3)):
        a, b, c = triangles_F3[number]
        xa, ya, za = points_V3[a]
        xb, yb, zb = points_V3[b]
        xc, yc, zc = points_V3[c]
        double_area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if double_area == 0 or not np.isfinite(double_area):
            continue
        # A corner's weight is 1 there, 0 on the opposite edge, and linear between: so are depth and all else.
        ax, ay = (yb - yc) / double_area, (xc - xb) / double_area
        bx, by = (yc - ya) / double_area, (xa - xc) / double_area
        first, last = max(0, np.ceil(min(xa, xb, xc) - 0.5)), min(width - 1, np.floor(max(xa, xb, xc) - 0.5))
        top, bottom = max(0, np.ceil(min(ya, yb, yc) - 0.5)), min(height - 1, np.floor(max(ya, yb, yc) - 0.5))
        for row in range(int(top), int(bottom) + 1):
            a_row = ay * (row + 0.5 - yc) + ax * (0.5 - xc)
            b_row = by * (row + 0.5 - yc) + bx * (0.5 - xc)
            for column in range(int(first), int(last) + 1):
                wa, wb = a_row + ax * column, b_row + bx * column
                if wa >= -EDGE and wb >= -EDGE and wa + wb <= 1 + EDGE:
                    depth = np.float32(zc + wa * (za - zc) + wb * (zb - zc))
                    if depth > depth_HW[row, column]:
                        depth_HW[row, column] = depth
                        which_HW[row, column] = number
    return which_HW, depth_HW


@numba.njit(cache=True)
def _shade(
    which_HW: np.ndarray,
    points_V3: np.ndarray,
    triangles_F3: np.ndarray,
    normals_V3: np.ndarray,
    colours_V3: np.ndarray,
    background_3: np.ndarray,
    relief: float,
) -> np.ndarray:
    height, width = which_HW.shape[0] // SAMPLES, which_HW.shape[1] // SAMPLES
    picture_HW3 = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            red, green, blue = 0.0, 0.0, 0.0
            last, r, g, b = -2, 0.0, 0.0, 0.0
            for sample in range(SAMPLES * SAMPLES):
                number = which_HW[row * SAMPLES + sample // SAMPLES, column * SAMPLES + sample % SAMPLES]
                if number != last:  # shaded once for the samples of a pixel that see the same triangle
                    last = number
                    if number < 0:
                        r, g, b = background_3[0], background_3[1], background_3[2]
                    else:
                        r, g, b = _lit(column + 0.5, row + 0.5, points_V3, triangles_F3[number], normals_V3, colours_V3, relief)
                red += r
                green += g
                blue += b
            scale = LEVELS / SAMPLES**2
            picture_HW3[row, column, 0] = SRGB[min(LEVELS, int(red * scale + 0.5))]
            picture_HW3[row, column, 1] = SRGB[min(LEVELS, int(green * scale + 0.5))]
            picture_HW3[row, column, 2] = SRGB[min(LEVELS, int(blue * scale + 0.5))]
    return picture_HW3


@numba.njit(cache=True, inline="always")
def _lit(x, y, points_V3, triangle_3, normals_V3, colours_V3, relief):  # numba infers the types
    """Linear red, green and blue of a triangle at a point of the picture."""
    a, b, c = triangle_3
    xa, ya, xb, yb, xc, yc = points_V3[a, 0], points_V3[a, 1], points_V3[b, 0], points_V3[b, 1], points_V3[c, 0], points_V3[c, 1]
    double_area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    # A pixel's middle may lie outside a triangle that only one of its samples sees.
    wa = min(1.0, max(0.0, ((xb - x) * (yc - y) - (xc - x) * (yb - y)) / double_area))
    wb = min(1.0 - wa, max(0.0, ((xc - x) * (ya - y) - (xa - x) * (yc - y)) / double_area))
    wc = 1 - wa - wb
    nx = wa * normals_V3[a, 0] + wb * normals_V3[b, 0] + wc * normals_V3[c, 0]
    ny = wa * normals_V3[a, 1] + wb * normals_V3[b, 1] + wc * normals_V3[c, 1]
    nz = wa * normals_V3[a, 2] + wb * normals_V3[b, 2] + wc * normals_V3[c, 2]
    length = max(1e-12, np.sqrt(nx * nx + ny * ny + nz * nz))
    # Rows run down, so a triangle that faces the viewer has a negative area.
    behind = double_area > 0
    sign = (-1.0 if behind else 1.0) / length
    nx, ny, nz = sign * nx, sign * ny, sign * nz
    lamp = max(0.0, nx * LAMP[0] + ny * LAMP[1] + nz * LAMP[2])
    sky = 0.5 + 0.5 * ny
    light = LAMP_SHARE * lamp + SKY_SHARE * sky + GROUND_SHARE * (1 - sky)
    shine = max(0.0, nx * HALFWAY[0] + ny * HALFWAY[1] + nz * HALFWAY[2])
    for _ in range(4):  # to the 16th
        shine *= shine
    light = relief * light + 1 - relief
    gloss = relief * GLOSS * shine
    if behind:
        light, gloss = INSIDE * light, 0.0
    red = wa * colours_V3[a, 0] + wb * colours_V3[b, 0] + wc * colours_V3[c, 0]
    green = wa * colours_V3[a, 1] + wb * colours_V3[b, 1] + wc * colours_V3[c, 1]
    blue = wa * colours_V3[a, 2] + wb * colours_V3[b, 2] + wc * colours_V3[c, 2]
    return red * light + gloss, green * light + gloss, blue * light + gloss
