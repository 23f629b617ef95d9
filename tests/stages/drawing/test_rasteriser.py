"""Pixels against geometry: areas, planes and spheres whose picture is known in closed form."""

import numpy as np
import pytest

from stages.drawing.rasteriser import INSIDE, LAMP, SRGB, View, draw, framed, linear_light, turned, vertex_normals, visible

WHITE, BLACK = np.ones(3), np.zeros(3)


def as_is(width: int, height: int) -> View:
    """A unit is a pixel, and the origin in the middle."""
    return View(width, height, 1.0, np.zeros(3), np.eye(3))


def sphere(radius: float, rings: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and outward triangles of a globe."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij")
    points = np.stack((np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)), axis=-1)
    number = np.arange(points[..., 0].size).reshape(polar.shape)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    triangles = np.concatenate((np.stack((a, b, c), -1).reshape(-1, 3), np.stack((a, c, d), -1).reshape(-1, 3)))
    return radius * points.reshape(-1, 3), triangles.astype(np.int32)


def test_a_triangle_covers_its_area():
    random = np.random.default_rng(0)
    for _ in range(20):
        corners = random.uniform(0, 400, (3, 3))
        (ax, ay), (bx, by) = corners[1:, :2] - corners[0, :2]
        covered = (visible(corners, np.array([[0, 1, 2]], np.int32), 400, 400)[0] == 0).sum()
        perimeter = np.linalg.norm(corners[:, :2] - np.roll(corners[:, :2], 1, axis=0), axis=1).sum()
        assert abs(covered - abs(ax * by - ay * bx) / 2) < 0.5 * perimeter


def test_a_pixel_is_covered_by_its_middle_and_neighbours_leave_no_crack():
    """A fan of thin triangles about a point inside a square of 40 by 40: each pixel of the square is drawn, none around it."""
    rim = [(x, 0) for x in range(0, 40, 3)] + [(40, y) for y in range(0, 40, 3)]
    rim += [(x, 40) for x in range(40, 0, -3)] + [(0, y) for y in range(40, 0, -3)]
    points = np.array([(27.3, 33.1, 0), *((x + 10, y + 10, 0) for x, y in rim)])
    count = len(rim)
    fan = np.array([(0, 1 + i, 1 + (i + 1) % count) for i in range(count)], np.int32)
    drawn = visible(points, fan, 60, 60)[0] >= 0
    expected = np.zeros((60, 60), bool)
    expected[10:50, 10:50] = True
    assert (drawn == expected).all()


def test_depth_of_a_plane_and_of_two_that_cross():
    x, y = np.meshgrid(np.arange(50) + 0.5, np.arange(50) + 0.5)
    square = np.array([(-5, -5), (60, -5), (60, 60), (-5, 60)], float)
    falling, rising = (np.column_stack((square, square @ slope + base)) for slope, base in (((-2, 0.5), 100), ((1, 0.2), 10)))
    triangles = np.array([(0, 1, 2), (0, 2, 3)], np.int32)
    which, depth = visible(falling, triangles, 50, 50)
    assert depth == pytest.approx(100 - 2 * x + 0.5 * y, rel=1e-5)
    for first, second in ((falling, rising), (rising, falling)):
        both = np.concatenate((triangles, triangles + 4))
        which, depth = visible(np.concatenate((first, second)), both, 50, 50)
        expected = np.maximum(100 - 2 * x + 0.5 * y, 10 + x + 0.2 * y)
        assert depth == pytest.approx(expected, rel=1e-5)
        assert ((which >= 2) == (depth == visible(second, triangles, 50, 50)[1])).mean() > 0.99


def test_a_sphere_s_depth_and_normals():
    vertices, triangles = sphere(100)
    normals = vertex_normals(vertices, triangles)
    outward = (normals * vertices / 100).sum(axis=1)
    poles = np.abs(vertices[:, 1]) > 99.99
    assert outward[~poles].min() > 0.999
    which, depth = visible(as_is(256, 256).pixels(vertices), triangles, 256, 256)
    y, x = np.mgrid[:256, :256] - 127.5
    radius = np.hypot(x, y)
    assert (which[radius < 99.5] >= 0).all()
    assert (which[radius > 100] == -1).all()
    inside = radius < 95
    assert np.abs(depth - np.sqrt(np.maximum(100**2 - radius**2, 0)))[inside].max() < 0.5  # of chords of 5


def test_the_lamp_lights_the_upper_left():
    vertices, triangles = sphere(100)
    grey = np.full((len(vertices), 3), 0.5)
    picture = draw(vertices, triangles, grey, as_is(240, 240), WHITE)
    y, x = np.mgrid[:240, :240] - 119.5
    brightness = np.where(np.hypot(x, y) < 98, picture[..., 0], 0)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    expected = 100 * LAMP / np.linalg.norm(LAMP) * (1, -1, 1)
    assert np.hypot(column - 119.5 - expected[0], row - 119.5 - expected[1]) < 45  # drawn upwards by the sky, inwards by gloss
    assert (picture[0, 0] == 255).all()


def test_without_relief_a_colour_is_itself_and_halves_of_pixels_mix_in_linear_light():
    corners = np.array([(-10, -10, 0), (0, -10, 0), (0, 10, 0), (-10, 10, 0)], float)
    triangles = np.array([(0, 1, 2), (0, 2, 3)], np.int32)
    rgb = linear_light((200 / 255, 120 / 255, 40 / 255))
    view = View(20, 20, 1.0, np.array((0.5, 0.0, 0.0)), np.eye(3))  # so that the right edge is in the middle of a pixel
    picture = draw(corners, triangles, np.tile(rgb, (4, 1)), view, BLACK, relief=0.0)
    assert (picture[:, :9] == (200, 120, 40)).all()
    assert (picture[:, 10:] == 0).all()
    mixed = SRGB[np.rint(rgb / 2 * 4095).astype(int)]
    assert np.abs(picture[:, 9].astype(int) - mixed).max() <= 1


def test_the_srgb_table_undoes_linear_light():
    levels = np.arange(256)
    assert (SRGB[np.rint(linear_light(levels / 255) * 4095).astype(int)][13:] == levels[13:]).all()  # darker ones share entries
    assert np.abs(SRGB[np.rint(linear_light(levels / 255) * 4095).astype(int)].astype(int) - levels).max() <= 2


def test_a_surface_seen_from_behind_is_dark():
    corners = np.array([(-9, -9, 0), (9, -9, 0), (9, 9, 0), (-9, 9, 0)], float)
    front = np.array([(0, 1, 2), (0, 2, 3)], np.int32)
    pictures = [draw(corners, faces, np.full((4, 3), 0.5), as_is(20, 20), WHITE) for faces in (front, front[:, ::-1])]
    bright, dark = (linear_light(picture[10, 10] / 255) for picture in pictures)
    assert (dark < 2 * INSIDE * bright).all()


def test_a_framed_box_fills_its_share_and_turns_to_the_right():
    vertices, triangles = sphere(3.0)
    vertices = vertices * (1, 2, 1) + (50, -20, 7)
    view = framed(vertices, 200, 300, np.eye(3), fill=0.8)
    picture = draw(vertices, triangles, np.ones((len(vertices), 3)), view, BLACK)
    rows, columns = np.nonzero(picture.any(axis=2))
    assert rows.min() == pytest.approx(30, abs=1)
    assert rows.max() == pytest.approx(269, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(99.5, abs=1)
    nose = np.array([(50, -20, 11.0)])
    assert framed(vertices, 200, 300, turned(30), fill=0.8).pixels(nose)[0, 0] > 110


def test_broken_and_distant_vertices_draw_nothing_and_harm_nothing():
    good = [(5, 5, 0), (15, 5, 0), (10, 15, 0)]
    for bad in (np.nan, np.inf, 1e300, 1e12):
        points = np.array([*good, (bad, 0, 0), (0, bad, 0), (3, 3, bad)])
        triangles = np.array([(0, 1, 2), (3, 1, 2), (0, 4, 2), (1, 1, 1)], np.int32)
        which, _ = visible(points, triangles, 20, 20)
        assert which.shape == (20, 20)
        assert (which == 0).any()


def test_the_same_mesh_gives_the_same_bytes():
    vertices, triangles = sphere(80)
    colours = np.random.default_rng(0).uniform(0, 1, (len(vertices), 3))
    pictures = {draw(vertices, triangles, colours, as_is(200, 200), WHITE).tobytes() for _ in range(3)}
    assert len(pictures) == 1
