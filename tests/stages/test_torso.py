"""Torso and neck go on beneath the head as if it were not there, and nowhere else."""

import cv2
import numpy as np
import pytest

from stages.torso import torso_picture

GREEN, BLUE = (0, 255, 0), (0, 0, 255)  # background and head, of which nothing may be seen


class Scene:
    """A head before a neck and a torso, `size` pixels high and wide. The neck's colour changes across it, not down it."""

    def __init__(self, size: int):
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        self.head = ((x - 0.5) / 0.2) ** 2 + ((y - 0.4) / 0.28) ** 2 < 1
        self.neck = (abs(x - 0.5) < 0.1) & (y > 0.4) & (y < 0.8) & ~self.head
        self.torso = (abs(x - 0.5) < 0.4) & (y > 0.6) & ~self.head & ~self.neck
        self.frame = np.full((size, size, 3), GREEN, np.uint8)
        self.frame[self.head] = BLUE
        self.frame[self.neck] = np.stack([np.rint(120 + 160 * x), 0 * x + 110, 0 * x + 90], axis=-1)[self.neck]
        self.frame[self.torso] = (60, 20, 20)

    def picture(self) -> np.ndarray:
        return torso_picture(self.frame, self.head, self.torso, self.neck)

    def painted(self) -> tuple[np.ndarray, np.ndarray]:
        """Colours, and where they are painted beneath the head."""
        picture = self.picture()
        return picture[..., :3], (picture[..., 3] > 0) & ~self.neck & ~self.torso


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(512)


def edge(mask_H: np.ndarray) -> int:
    """The upmost row of one column of a mask."""
    return int(np.flatnonzero(mask_H)[0])


def test_torso_and_neck_are_opaque_and_nothing_is_but_they_and_what_is_under_the_head(scene):
    picture = scene.picture()
    assert picture.shape == (512, 512, 4)
    assert picture.dtype == np.uint8
    assert set(np.unique(picture[..., 3])) == {0, 255}
    assert (picture[scene.torso | scene.neck, 3] == 255).all()
    assert not picture[~(scene.torso | scene.neck | scene.head)].any()
    assert not picture[picture[..., 3] == 0].any()
    assert np.array_equal(picture[scene.torso, :3], scene.frame[scene.torso])
    assert not (picture[..., 2] > 90).any()  # no blue of the head
    assert not (picture[..., 1] > 110).any()  # no green of the background


def test_the_neck_goes_on_upward_and_darkens_with_each_pixel(scene):
    colours, painted = scene.painted()
    for column in (215, 256, 290):
        start = edge(scene.neck[:, column]) + 4
        assert painted[start - 53 : start - 4, column].all()
        assert painted[:, column].sum() == 49
        distance_K = np.arange(1, 54)
        expected_K3 = scene.frame[start, column] * 0.98 ** distance_K[:, None]
        assert np.abs(colours[start - distance_K, column] - expected_K3).max() < 2.5
        brightness_K = colours[start - distance_K, column].sum(axis=1)
        assert (np.diff(brightness_K.astype(int)) <= 0).all()


def test_the_torso_goes_on_for_nine_pixels(scene):
    colours, painted = scene.painted()
    for column in (196, 316):
        assert scene.torso[edge(scene.torso[:, column]), column] and scene.head[edge(scene.torso[:, column]) - 1, column]
        assert painted[:, column].sum() == 9
        top = edge(scene.torso[:, column])
        assert np.array_equal(colours[top - 1, column], np.rint(0.98 * scene.frame[top, column]))
        assert np.array_equal(colours[top - 9, column], np.rint(0.98**9 * scene.frame[top, column]))
    assert not painted[:, 120].any()  # a shoulder, above which is background


def test_no_seam_where_the_head_begins(scene):
    colours, painted = scene.painted()
    seam = painted[:-1] & (scene.torso | scene.neck)[1:]
    assert seam.any()
    assert np.abs(np.diff(colours.astype(int), axis=0))[seam].max() <= 6


def test_stripes_of_a_neck_are_averaged_but_not_with_what_is_beside_it(scene):
    noise = np.random.default_rng(0).integers(-40, 41, 512)
    frame = scene.frame.copy()
    frame[scene.neck] = np.rint(np.broadcast_to(150 + noise[:, None], (512, 512, 3)))[scene.neck]
    picture = torso_picture(frame, scene.head, scene.torso, scene.neck)
    row = edge(scene.neck[:, 256]) - 10
    painted, unsmoothed = picture[row, 206:306, 0].astype(int), frame[edge(scene.neck[:, 256]) + 4, 206:306, 0].astype(int)
    assert painted.std() < 0.7 * unsmoothed.std()
    assert picture[row, 205:207].any()
    assert picture[row, 206:306, :3].min() > 70  # neither the head's nor the background's black channels


def test_a_slit_between_neck_and_head_is_closed_if_it_is_the_person_s_and_no_background_is_painted(scene):
    slit = np.zeros_like(scene.neck)
    slit[edge(scene.neck[:, 256]) : edge(scene.neck[:, 256]) + 2, 250:260] = True
    as_torso = torso_picture(scene.frame, scene.head, scene.torso | slit, scene.neck & ~slit)
    assert as_torso[320, 255, 3] == 255
    as_background = torso_picture(scene.frame, scene.head, scene.torso, scene.neck & ~slit)
    assert as_background[320, 255, 3] == 255
    assert not as_background[slit].any()


def test_a_thin_neck_does_not_take_the_colour_of_the_shirt_below_it(scene):
    top = edge(scene.neck[:, 256])
    thin = scene.neck & (np.arange(512)[:, None] < top + 2)
    frame = scene.frame.copy()
    frame[scene.neck & ~thin] = 0
    picture = torso_picture(frame, scene.head, scene.torso | (scene.neck & ~thin), thin)
    assert picture[top - 5, 256, 0] > 150


@pytest.mark.parametrize("size", [256, 128])
def test_small_pictures_are_as_large_ones_made_small(scene, size):
    shrunk = cv2.resize(scene.picture().astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    small = Scene(size).picture().astype(np.float32)
    assert np.abs(small - shrunk).mean() < 2
    _, painted = scene.painted()
    _, painted_small = Scene(size).painted()
    assert painted_small.mean() == pytest.approx(painted.mean(), rel=0.1)
    row, column = round(0.62 * size), size // 2
    assert np.abs(small - shrunk)[row, column].max() < 4


def test_without_torso_there_is_nothing(scene):
    nobody = np.zeros((512, 512), bool)
    assert not torso_picture(scene.frame, nobody, nobody, nobody).any()
    assert not torso_picture(scene.frame, scene.head, nobody, nobody).any()
    everything = ~nobody
    assert np.array_equal(torso_picture(scene.frame, nobody, everything, nobody)[..., :3], scene.frame)
    last_row = nobody.copy()
    last_row[-1] = True
    picture = torso_picture(scene.frame, ~last_row, nobody, last_row)
    assert (picture[-54:, :, 3] == 255).all()
    assert not picture[:-54].any()
