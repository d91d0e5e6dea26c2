import numpy as np
import pytest
from embreex.rtcore_scene import EmbreeScene

from jobs.data.importers.chair_colours import draw_materials
from jobs.data.importers.chair_shapes import ARMS, BACKS, LEGS, SEATS, Builder, Proportions, draw_shape
from jobs.data.importers.chairs import Chairs, ChairsOptions
from jobs.data.inspect import check
from jobs.data.meshes.cameras import EXTENT
from jobs.data.meshes.ray_tracing import face_normals
from jobs.data.prepare import prepare
from jobs.data.store import Store


@pytest.fixture
def chairs(tmp_path) -> Chairs:
    return Chairs(ChairsOptions(train=3, val=1, test=2, views=4, image_size=16), tmp_path)


def items(chairs):
    return chairs.items(lambda *_: None)


def test_items_are_counted_and_shapes_are_unique(chairs):
    listed = items(chairs)
    assert [item.split for item in listed] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert len({item.geometry for item in listed}) == 6


def test_a_chair_is_a_function_of_options_and_number(chairs, tmp_path):
    item = items(chairs)[1]
    first, again = chairs.load(item), chairs.load(item)
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, getattr(again, name))
    other = Chairs(ChairsOptions(train=3, val=1, test=2, views=4, image_size=16, seed=1), tmp_path)
    assert not np.array_equal(first.images, other.load(item).images)
    assert not np.array_equal(first.images, chairs.load(items(chairs)[2]).images)


def test_pictures_of_another_processor_have_the_same_fingerprint(tmp_path, monkeypatch):
    options = {"train": 2, "val": 1, "test": 1, "views": 4, "image_size": 16}
    here = Store.open(prepare("chairs", options, tmp_path / "here", workers=1))

    class Elsewhere(EmbreeScene):
        """Rounds the last bits of distances differently, as Embree does on another processor."""

        def run(self, *arguments, **settings):
            found = super().run(*arguments, **settings)
            return found | {"tfar": np.nextafter(found["tfar"], np.float32(0))}

    monkeypatch.setattr("jobs.data.meshes.ray_tracing.EmbreeScene", Elsewhere)
    there = Store.open(prepare("chairs", options, tmp_path / "there", workers=1))
    assert there.checksum != here.checksum
    assert there.fingerprint == here.fingerprint
    assert check(there) == []
    other = Store.open(prepare("chairs", options | {"seed": 1}, tmp_path / "here", workers=1))
    assert other.fingerprint != here.fingerprint


def test_pictures_change_only_with_the_revision(tmp_path):
    """The look of chairs is tied to `Chairs.revision`: raise it with these numbers, so that results get other keys."""
    chairs = Chairs(ChairsOptions(train=2, val=1, test=1, views=2, image_size=16), tmp_path)
    frames = [chairs.load(item) for item in items(chairs)]
    assert chairs.revision(chairs.options) == 1
    assert [frame.images.mean() for frame in frames] == pytest.approx([232.765, 223.063, 221.834, 214.857], abs=0.01)
    assert [frame.depth.mean() for frame in frames] == pytest.approx([0.38772, 0.44746, 0.57134, 0.60416], abs=1e-4)


def test_evaluated_chairs_share_their_cameras_and_training_ones_do_not(chairs):
    frames = [chairs.load(item) for item in items(chairs)]
    np.testing.assert_array_equal(frames[3].world_to_camera, frames[5].world_to_camera)
    assert not np.allclose(frames[0].world_to_camera, frames[1].world_to_camera)


def test_pictures_show_a_whole_chair_within_bounds_on_white(tmp_path):
    chairs = Chairs(ChairsOptions(train=4, val=1, test=1, views=4, image_size=64, supersampling=1), tmp_path)
    for item in items(chairs):
        frames = chairs.load(item)
        covered = (frames.mask > 0).mean(axis=(1, 2))
        assert covered.min() > 0.04
        assert covered.max() < 0.6
        assert (frames.images.transpose(0, 2, 3, 1)[frames.mask == 0] == 255).all()
        depth = frames.depth[frames.depth > 0]
        assert depth.min() > Chairs.near
        assert depth.max() < Chairs.far
        edge = np.concatenate([frames.mask[:, [0, -1]], frames.mask[:, :, [0, -1]].transpose(0, 2, 1)])
        assert (edge == 0).all(), "the chair is cut off"


def test_every_combination_of_parts_is_a_sound_mesh():
    generator = np.random.default_rng(0)
    for kinds in (SEATS, LEGS, BACKS, ARMS):
        assert sum(kinds.values()) == pytest.approx(1)
        for part in kinds:
            builder, proportions = Builder(), Proportions.draw(generator)
            next(iter(SEATS))(builder, proportions, generator)
            part(builder, proportions, generator)
            mesh, materials = builder.mesh()
            assert len(materials) == len(mesh.faces)
            assert mesh.faces.max() == len(mesh.vertices) - 1
            assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(EXTENT)
            np.testing.assert_allclose(np.linalg.norm(face_normals(mesh), axis=1), 1)


def test_solids_are_closed_and_face_outwards():
    builder = Builder()
    builder.box([1, 2, 3], [0.5, 1.0, 2.0], 0)
    builder.cylinder([-1, 0, 0], [-1, 0.5, 1], 0.3, 0, segments=64)
    vertices, faces = np.concatenate(builder.vertices), np.concatenate(builder.faces)
    corners = vertices[faces]
    # The divergence theorem: faces that look outwards enclose a positive volume.
    volumes = np.linalg.det(corners) / 6
    assert volumes[:12].sum() == pytest.approx(1.0)
    assert volumes[12:].sum() == pytest.approx(np.pi * 0.3**2 * np.sqrt(1.25), rel=0.01)
    np.testing.assert_allclose(vertices[:8].min(axis=0), [0.75, 1.5, 2.0])
    np.testing.assert_allclose(vertices[:8].max(axis=0), [1.25, 2.5, 4.0])


def test_the_back_is_behind_and_above_the_seat():
    for seed in range(20):
        mesh, _ = draw_shape(np.random.default_rng(seed))
        high = mesh.vertices[mesh.vertices[:, 2] > 0.8 * mesh.vertices[:, 2].max()]
        assert high[:, 0].mean() < 0, "the front is +x"


def test_colours_stay_in_range_and_differ_between_chairs():
    points = np.random.default_rng(0).uniform(-EXTENT, EXTENT, (500, 3))
    seen = []
    for seed in range(30):
        for material in draw_materials(np.random.default_rng(seed)):
            colours = material(points)
            assert colours.shape == (500, 3)
            assert colours.min() >= 0
            assert colours.max() <= 1
            seen.append(colours.mean(axis=0))
    assert np.std(seen, axis=0).min() > 0.1
