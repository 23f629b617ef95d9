"""Faces in motion as pictures and films: clay in soft light, real beside generated, and the distance between them in colour.

`data.media.video.encode_frames` makes the films; nothing here needs a window or a graphics driver.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.media.mesh import CODETALKER, FACEXHUBERT, METRES, MILLIMETRES
from data.topology import Topology, upright
from stages.drawing.rasteriser import draw, framed, linear_light, turned

CLAY, MOUTH, EYES = (0.84, 0.78, 0.73), (0.27, 0.15, 0.14), (0.91, 0.89, 0.86)  # sRGB
PAPER, INK = (0.965, 0.965, 0.957), (0.25, 0.24, 0.23)
FILL = 0.84  # share of the picture that the face takes up, from its crown to a chin below an open mouth
CHIN = 1 / 3  # of the height of lips and upper face together, that such a chin is below the lips
HEAT = "YlOrRd"  # matplotlib's name; from the clay's own brightness to dark red
RELIEF = 0.45  # of the light is left on a face in colours, so that shadows are not taken for errors
CAPTION = 44  # pixels below a picture of 512


@dataclass(frozen=True)
class Scale:
    """What an error's colour means."""

    unit: str
    per_unit: float  # of those in a unit of the data
    full: float  # as many of them are drawn in the darkest colour, and more too


SCALES = {
    METRES: Scale("mm", 1000, 10),
    MILLIMETRES: Scale("mm", 1, 10),
    CODETALKER: Scale("% of root surface", 100, 5),
    FACEXHUBERT: Scale("% of its extent", 100, 5),
}


class Figure:
    """One speaker's face, framed once by the neutral face, so that it stays still while it talks.

    `size`: pixels of the square picture, even. `yaw`: degrees that the face is turned to the right of the picture.
    """

    def __init__(self, topology: Topology, template_V3: np.ndarray, scaling: str, size: int, yaw: float = 0.0):
        self.topology, self.scaling, self.size = topology, scaling, size
        upright_V3 = upright(template_V3, scaling)
        face_N3 = upright_V3[np.concatenate((topology.lips, topology.upper_face))]
        chin_3 = face_N3.mean(axis=0) * (1, 0, 1) + (0, face_N3[:, 1].min() - CHIN * np.ptp(face_N3[:, 1]), 0)
        crown_3 = upright_V3[np.unique(topology.skin)].max(axis=0) * (0, 1, 0) + face_N3.mean(axis=0) * (1, 0, 1)
        self.view = framed(np.stack((*face_N3, chin_3, crown_3)), size, size, turned(yaw), FILL)
        # A hole's edge is skin and mouth at once: its vertices are drawn twice.
        parts = [(np.arange(topology.vertices), topology.skin, CLAY)]
        parts += [(*np.unique(part, return_inverse=True), rgb) for part, rgb in ((topology.mouth, MOUTH), (topology.eyes, EYES))]
        starts = np.cumsum([0, *(len(vertices) for vertices, _, _ in parts)])
        self.vertices = np.concatenate([vertices for vertices, _, _ in parts])
        triangles = [numbers.reshape(-1, 3) + start for (_, numbers, _), start in zip(parts, starts, strict=False)]
        self.triangles = np.concatenate(triangles).astype(np.int32)
        self.colours = np.concatenate([np.tile(linear_light(rgb), (len(vertices), 1)) for vertices, _, rgb in parts])

    def picture(self, vertices_V3: np.ndarray) -> np.ndarray:
        """`(size, size, 3)` uint8: the face in clay."""
        return self._drawn(vertices_V3, self.colours, 1.0)

    def heat(self, vertices_V3: np.ndarray, error_V: np.ndarray) -> np.ndarray:
        """`(size, size, 3)` uint8: the face in the colours of an error per vertex, in units of the data."""
        scale = SCALES[self.scaling]
        colours = self.colours.copy()
        colours[: len(error_V)] = linear_light(heat_colours(error_V * scale.per_unit / scale.full))
        return self._drawn(vertices_V3, colours, RELIEF)

    def _drawn(self, vertices_V3: np.ndarray, colours: np.ndarray, relief: float) -> np.ndarray:
        drawn_V3 = upright(vertices_V3, self.scaling)[self.vertices]
        return draw(drawn_V3, self.triangles, colours, self.view, linear_light(PAPER), relief)


def heat_colours(shares: np.ndarray) -> np.ndarray:
    """`(…, 3)` sRGB of shares of the full scale; what is beyond it is as at its end."""
    return matplotlib.colormaps[HEAT](np.clip(shares, 0, 1))[..., :3]


def side_by_side(figure: Figure, real_TV3: np.ndarray, fake_TV3: np.ndarray) -> Iterator[np.ndarray]:
    """`(H, 3 size, 3)` uint8 frames: real, generated, and the generated face coloured by its distance from the real one."""
    scale = SCALES[figure.scaling]
    captions = caption(figure.size, "real"), caption(figure.size, "generated"), legend(figure.size, scale)
    strip = np.concatenate(captions, axis=1)
    for real_V3, fake_V3 in zip(real_TV3, fake_TV3, strict=True):
        error_V = np.linalg.norm(fake_V3.astype(np.float64) - real_V3, axis=-1)
        pictures = figure.picture(real_V3), figure.picture(fake_V3), figure.heat(fake_V3, error_V)
        yield np.concatenate((np.concatenate(pictures, axis=1), strip))


def contact_sheet(figure: Figure, rows: Sequence[tuple[str, np.ndarray]], columns: int) -> Image.Image:
    """Motions `(T, V, 3)` one below another, each with its name, at `columns` moments that are the same for all."""
    moments = np.linspace(0, min(len(motion) for _, motion in rows) - 1, columns + 2).round().astype(int)[1:-1]
    drawn = []
    for name, motion_TV3 in rows:
        strip = np.concatenate([figure.picture(motion_TV3[moment]) for moment in moments], axis=1)
        drawn += [strip, caption(figure.size * columns, name, figure.size)]
    return Image.fromarray(np.concatenate(drawn))


def caption(width: int, text: str, size: int | None = None) -> np.ndarray:
    """A line of text in the middle of a strip; `size`: of the pictures that it belongs to, where they are not as wide."""
    strip, pen, font = _strip(width, size or width)
    pen.text((width / 2, strip.height * 0.4), text, _eight_bit(INK), font, anchor="mm")
    return np.asarray(strip)


def legend(width: int, scale: Scale) -> np.ndarray:
    """The colours of an error from none to the full scale, with their meaning."""
    strip, pen, font = _strip(width, width)
    left, right, top, bottom = round(0.22 * width), round(0.62 * width), round(0.28 * strip.height), round(0.52 * strip.height)
    ramp = np.rint(255 * heat_colours(np.linspace(0, 1, right - left))).astype(np.uint8)
    strip.paste(Image.fromarray(np.repeat(ramp[None], bottom - top, axis=0)), (left, top))
    for x, text, anchor in ((left - 8, "error 0", "rm"), (right + 8, f"{scale.full:g} {scale.unit} or more", "lm")):
        pen.text((x, (top + bottom) / 2), text, _eight_bit(INK), font, anchor=anchor)
    return np.asarray(strip)


def _strip(width: int, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw, ImageFont.ImageFont | ImageFont.FreeTypeFont]:
    """Blank paper below pictures of `size`, of an even height."""
    strip = Image.new("RGB", (width, 2 * round(CAPTION * size / 1024)), _eight_bit(PAPER))
    return strip, ImageDraw.Draw(strip), ImageFont.load_default(max(9, round(20 * size / 512)))


def _eight_bit(rgb: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue
