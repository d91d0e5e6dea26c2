import numpy as np
import pytest
from PIL import Image

from jobs.data.contact_sheet import LABEL_HEIGHT, SOURCE_COLOUR, contact_sheet, draw_frusta
from jobs.data.meshes.cameras import look_at_origin
from jobs.data.prepare import prepare
from jobs.data.store import Store

CELL = 128  # 32 px, enlarged
OPTIONS = {"train": 2, "val": 1, "test": 1, "views": 4, "image_size": 32, "supersampling": 1}
SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.5


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(prepare("chairs", OPTIONS, tmp_path, workers=1))


def draw(azimuth, elevation, colours) -> np.ndarray:
    cameras = look_at_origin(np.radians(azimuth), np.radians(elevation), radius=2.0)
    slopes = np.tile(SQUARE, (len(cameras), 1, 1))
    return np.asarray(draw_frusta(cameras, slopes, np.array(colours), np.zeros(3), 200)).astype(int)


def centre_of(picture: np.ndarray, colour) -> np.ndarray:
    """Mean place (x, y) of the pixels close to a colour."""
    rows, columns = np.nonzero(np.abs(picture - colour).sum(axis=2) < 60)
    assert len(rows) > 20
    return np.array([columns.mean(), rows.mean()])


def test_objects_stand_in_rows_with_their_cameras_first(store, tmp_path):
    contact_sheet(store, tmp_path / "sheet.png", objects_per_split=1, views=3)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    row = CELL + LABEL_HEIGHT
    assert sheet.shape == (3 * row, 4 * CELL, 3)
    for line, first in enumerate((0, 8, 12)):
        top = line * row + LABEL_HEIGHT
        last = store.images[first + 3].transpose(1, 2, 0).repeat(4, axis=0).repeat(4, axis=1)
        np.testing.assert_array_equal(sheet[top : top + CELL, 3 * CELL : 4 * CELL], last)
        frusta = sheet[top : top + CELL, :CELL]
        assert 0.02 < (frusta < 250).any(axis=2).mean() < 0.6, "there are lines, on white"
        framed = (sheet[top, CELL : 2 * CELL] == SOURCE_COLOUR).all()
        assert framed == (line > 0), "evaluated objects have a source view"


def test_an_object_without_the_source_view_of_the_protocol_is_drawn_without_it(store, tmp_path):
    store.manifest.evaluation["source_frame"] = 4  # of 4
    contact_sheet(store, tmp_path / "sheet.png", objects_per_split=1, views=3)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert not (sheet == SOURCE_COLOUR).all(axis=-1).any()


def test_labels_have_letters_beyond_ascii(store, tmp_path):
    labels = []
    for name in ("grün", "grßn"):
        store.objects["object"] = name
        contact_sheet(store, tmp_path / "sheet.png", objects_per_split=1, views=3)
        labels.append(np.asarray(Image.open(tmp_path / "sheet.png"))[:LABEL_HEIGHT, :50])
    assert (labels[0] != labels[1]).any(), "one box stands for all letters that a font lacks"


def test_high_cameras_are_drawn_above_low_ones():
    picture = draw([0.0, 0, 90, 180, 270], [5.0, 70, 5, 5, 5], [(0, 0, 0), (255, 0, 0), *[(0, 160, 0)] * 3])
    assert centre_of(picture, (255, 0, 0))[1] < centre_of(picture, (0, 160, 0))[1] - 20


def test_cameras_go_round_as_seen_from_above():
    """Cameras of increasing azimuth run counter-clockwise, as seen from above."""
    colours = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 0, 255)]
    picture = draw([0.0, 90, 180, 270], [10.0] * 4, colours)
    places = [centre_of(picture, colour) - 100 for colour in colours]
    # Pixels' y runs downwards: counter-clockwise, seen from above, is a negative cross product.
    for before, after in zip(places, [*places[1:], places[0]], strict=True):
        assert np.cross([*before, 0], [*after, 0])[2] < 0
