"""Pictures of faces as a viewer sees them: still, upright, open-mouthed, and red where they are wrong."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from data.media.mesh import METRES, MILLIMETRES
from data.media.video import decode_frames, encode_frames
from data.topology import mediapipe_mesh, topology_of
from stages.drawing.film import CLAY, MOUTH, PAPER, SCALES, Figure, caption, contact_sheet, heat_colours, legend, side_by_side
from tests.faces import face, talk

TABLES = Path(__file__).parents[4] / "shared" / "media" / "flame"
SIZE = 128


@pytest.fixture(scope="module")
def figure() -> Figure:
    return Figure(mediapipe_mesh(), face(), METRES, SIZE)


def drawn(picture: np.ndarray) -> np.ndarray:
    """`(H, W)` bool: where there is no paper."""
    return np.abs(picture.astype(int) - np.rint(np.array(PAPER) * 255)).max(axis=-1) > 3


def test_the_face_fills_the_picture_and_stays_where_it_is(figure):
    closed, wide = (figure.picture(vertices) for vertices in talk(np.array([0.0, 0.02])))
    rows, columns = np.nonzero(drawn(closed))
    assert rows.max() - rows.min() > 0.6 * SIZE
    assert not drawn(wide)[[0, -1]].any()
    assert not drawn(wide)[:, [0, -1]].any()
    assert (closed[: SIZE // 3] == wide[: SIZE // 3]).all()  # the brow does not move with the jaw
    assert (rows.min() + rows.max()) / 2 < SIZE * 0.55
    assert abs((columns.min() + columns.max()) / 2 - SIZE / 2) < 0.1 * SIZE


def test_an_open_mouth_is_dark(figure):
    def dark(opening: float) -> int:
        return int((figure.picture(talk(np.array([opening]))[0]).max(axis=-1) < 90).sum())

    assert max(MOUTH) * 255 < 90 < min(CLAY) * 255
    assert dark(0.0) < dark(0.006) < dark(0.012)


def test_scans_that_hang_upside_down_are_drawn_upright(figure):
    scanned = (face() * (1, -1, -1) * 1000).astype(np.float32)
    other = Figure(mediapipe_mesh(), scanned, MILLIMETRES, SIZE)
    difference = other.picture(scanned).astype(int) - figure.picture(face())
    assert np.abs(difference).max() <= 2


def test_the_error_s_colour_is_the_legend_s(figure):
    def colour(millimetres: float) -> np.ndarray:
        heat = figure.heat(face(), np.full(478, millimetres / 1000))
        row, column = figure.view.pixels(face())[151, 1::-1].astype(int)  # the middle of the forehead
        return heat[row, column] / 255

    bar = legend(512, SCALES[METRES])[14]
    assert np.abs(bar[120] / 255 - heat_colours(np.zeros(1))).max() < 0.05
    for millimetres, share in ((0, 0.0), (5, 0.5), (10, 1.0), (30, 1.0)):
        assert np.abs(colour(millimetres) - heat_colours(np.array([share]))).max() < 0.12  # some of the light is left
    assert (figure.heat(face(), np.full(478, 0.010)) == figure.heat(face(), np.full(478, 0.5))).all()


def test_a_film_shows_real_generated_and_error_with_the_sound(figure):
    opening = 0.015 * np.sin(np.arange(12) / 2) ** 2
    frames = list(side_by_side(figure, talk(opening), talk(opening / 2)))
    assert {frame.shape for frame in frames} == {(SIZE + caption(SIZE, "real").shape[0], 3 * SIZE, 3)}
    widest = frames[int(opening.argmax())]
    reddish = (widest[:SIZE].astype(int) @ (1, -1, 0) > 60).reshape(SIZE, 3, SIZE).sum(axis=(0, 2))
    assert reddish[:2].sum() == 0 < reddish[2]
    sound = (0.1 * np.sin(np.arange(12 * 640) / 5)).astype(np.float32), 16000
    encoded = encode_frames(iter(frames), 25, 23, sound)
    assert decode_frames(encoded).shape == (12, *frames[0].shape)
    with av.open(io.BytesIO(encoded)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 12 * 640
    assert encode_frames(side_by_side(figure, talk(opening), talk(opening / 2)), 25, 23, sound) == encoded


def test_motions_of_other_lengths_are_refused(figure):
    with pytest.raises(ValueError, match="shorter"):
        list(side_by_side(figure, talk(np.zeros(3)), talk(np.zeros(2))))


def test_a_contact_sheet_has_the_same_moments_of_each(figure):
    opening = np.linspace(0, 0.02, 30)
    sheet = np.asarray(contact_sheet(figure, [("real", talk(opening)), ("template", talk(0 * opening))], columns=4))
    line = caption(4 * SIZE, "real", SIZE).shape[0]
    assert sheet.shape == (2 * (SIZE + line), 4 * SIZE, 3)
    still = sheet[SIZE + line : 2 * SIZE + line].reshape(SIZE, 4, SIZE, 3)
    assert (still == still[:, :1]).all()
    assert not (sheet[:SIZE, :SIZE] == sheet[:SIZE, -SIZE:]).all()


@pytest.mark.skipif(not TABLES.exists(), reason="FLAME's tables are not here")
def test_a_whole_head_is_framed_by_its_face():
    ply = (TABLES / "FLAME_sample.ply").read_bytes()
    template = np.frombuffer(ply.partition(b"end_header\n")[2], "<f4", 5023 * 3).reshape(-1, 3)
    head = Figure(topology_of({"topology": "flame"}, TABLES), template, METRES, 256)
    shape = drawn(head.picture(template))
    assert not shape[:6].any()  # room above the crown
    assert shape[128:132].sum(axis=1).min() > 100
    assert 0.25 < shape.mean() < 0.6
