"""Photographs are cropped as training pictures are, and their field of view moves the object."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.photos.domain import Domain
from jobs.photos.framing import Lens, as_it_is, cropped, is_framed, seen
from jobs.photos.masks import Mask
from jobs.photos.picture import Picture, PictureError


@pytest.fixture
def domain(home, tiny) -> Domain:
    config = TrialConfig.model_validate(tiny())
    return Domain.of(open_dataset("chairs", config.data.options, home), config)


def picture(width: int = 120, height: int = 160, colour: tuple[int, ...] = (255, 255, 255)) -> Picture:
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[..., :3] = colour
    return Picture(Path("photo.jpg"), rgba, (2 * width, 2 * height))


def box_mask(photo: Picture, left: int, top: int, right: int, bottom: int) -> Mask:
    coverage = np.zeros(photo.rgba.shape[:2], np.float32)
    coverage[top:bottom, left:right] = 1
    return Mask(coverage, "a test")


def test_the_domain_knows_cameras_and_framing(domain: Domain) -> None:
    assert (domain.dataset, domain.resolution, domain.stored, domain.objects) == ("chairs", 16, 16, 6)
    assert domain.is_plain
    assert domain.origin == (0.0, 0.0, 2.0)
    assert domain.focal[0] == pytest.approx(8 / np.tan(np.radians(20)))
    assert np.degrees(domain.elevation) == pytest.approx(25, abs=6)  # above the mean of all cameras' uprights
    assert 0.5 < domain.fill < 1
    assert domain.middle == pytest.approx((0.5, 0.5), abs=0.1)
    assert Domain.from_json(domain.as_json()) == domain
    assert Domain.from_json(json.loads(json.dumps(domain.as_json()))) == domain


def test_pictures_with_surroundings_are_read_whole(home, tiny) -> None:
    config = TrialConfig.model_validate(tiny())
    store = open_dataset("chairs", config.data.options, home)
    noise = np.random.default_rng(0).integers(0, 256, store.images.shape, np.uint8)
    found = Domain.of(replace(store, images=noise), config)
    assert not found.is_plain
    assert (found.fill, found.middle) == (1.0, (0.5, 0.5))


def test_objects_without_the_source_frame_tell_nothing_of_the_domain(home, tiny) -> None:
    config = TrialConfig.model_validate(tiny())
    store = open_dataset("chairs", config.data.options, home)
    manifest = store.manifest.model_copy(update={"evaluation": {"source_frames": [3]}})
    first = store.objects.index[store.objects["split"] == "test"][0]
    shorter = store.objects.copy()
    shorter.loc[first, "num_frames"] = 3
    rest = store.objects.drop(first)
    found, expected = (Domain.of(replace(store, manifest=manifest, objects=rows), config) for rows in (shorter, rest))
    assert found == expected


def test_the_object_fills_the_picture_as_in_training(domain: Domain) -> None:
    photo = picture(colour=(90, 90, 90))
    photo.rgba[60:90, 20:40, :3] = (200, 10, 10)
    framed = cropped(photo, box_mask(photo, 20, 60, 40, 90), domain, Lens(None, ""))
    image = seen(framed)
    assert framed.silhouette is not None
    rows, columns = np.flatnonzero(framed.silhouette.any(1)), np.flatnonzero(framed.silhouette.any(0))
    assert (rows[-1] + 1 - rows[0]) / 16 == pytest.approx(domain.fill, abs=1.01 / 16)
    assert (rows[-1] + 1 + rows[0]) / 32 == pytest.approx(domain.middle[1], abs=1.01 / 16)
    assert (columns[-1] + 1 + columns[0]) / 32 == pytest.approx(domain.middle[0], abs=1.01 / 16)
    assert (image[:, 0, 0] == 255).all()  # white, not the photograph's grey
    assert image[:, 8, 8].tolist() == [200, 10, 10]
    left, top, right, bottom = framed.crop
    assert right - left == pytest.approx(2 * 30 / domain.fill)  # in pixels of the file
    assert (left + right) / 2 == pytest.approx(2 * (20 + 10), abs=8)
    assert (top + bottom) / 2 == pytest.approx(2 * (60 + 15), abs=8)


@pytest.mark.parametrize(("box", "row"), [((0, 0, 60, 60), 0), ((60, 100, 120, 160), -1)])
def test_an_object_at_the_border_is_framed_with_background_beyond_it(
    domain: Domain, box: tuple[int, int, int, int], row: int
) -> None:
    photo = picture(colour=(0, 0, 200))
    framed = cropped(photo, box_mask(photo, *box), domain, Lens(None, ""))
    assert (seen(framed)[:, row] == 255).all()
    assert framed.crop[0] < 0 or framed.crop[2] > 240


def test_an_object_stands_where_those_of_training_do(domain: Domain) -> None:
    photo = picture()
    aside = replace(domain, fill=0.5, middle=(0.25, 0.75))
    framed = cropped(photo, box_mask(photo, 20, 60, 40, 90), aside, Lens(None, ""))
    assert framed.crop == (30, 60, 150, 180)  # of 60 pixels, and twice as many in the file


def test_an_object_thinner_than_half_a_pixel_has_no_silhouette(domain: Domain) -> None:
    photo = picture()
    assert cropped(photo, box_mask(photo, 30, 50, 31, 110), domain, Lens(None, "")).silhouette is None


def test_pixels_are_means_over_what_they_cover(domain: Domain) -> None:
    photo = picture(32, 32)
    photo.rgba[..., :3] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    means = photo.rgba[..., :3].reshape(16, 2, 16, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(seen(cropped(photo, None, domain, Lens(None, ""))), means, atol=1)  # rounded twice


@pytest.mark.parametrize("alpha_of_mask", [128, 255], ids=["of the picture", "of another"])
def test_half_transparent_pixels_are_half_background(domain: Domain, alpha_of_mask: int) -> None:
    photo = picture(colour=(200, 0, 0))
    photo.rgba[60:90, 20:40, 3] = 128
    photo.rgba[:60, :, 3] = photo.rgba[90:, :, 3] = 0
    mask = box_mask(photo, 20, 60, 40, 90)
    framed = cropped(photo, replace(mask, coverage=mask.coverage * alpha_of_mask / 255), domain, Lens(None, ""))
    assert seen(framed)[:, 8, 8].tolist() == pytest.approx([227, 127, 127], abs=1)


def test_a_rough_mask_frames_what_is_visible_in_it(domain: Domain) -> None:
    photo = picture(colour=(200, 0, 0))
    photo.rgba[..., 3] = 0
    photo.rgba[60:90, 20:40, 3] = 255
    rough, exact = (
        cropped(photo, box_mask(photo, *box), domain, Lens(None, "")) for box in ((0, 40, 60, 100), (20, 60, 40, 90))
    )
    assert rough.crop == exact.crop
    with pytest.raises(PictureError, match="by a test, no visible pixel is the object's"):
        cropped(photo, box_mask(photo, 60, 60, 90, 90), domain, Lens(None, ""))


def test_without_a_mask_the_middle_square_is_read(domain: Domain) -> None:
    photo = picture(colour=(10, 20, 30))
    framed = cropped(photo, None, domain, Lens(None, ""))
    assert framed.crop == (0, 40, 240, 280)
    assert (seen(framed) == np.array([10, 20, 30])[:, None, None]).all()
    assert framed.silhouette is None


def test_a_small_object_is_remarked(domain: Domain) -> None:
    photo = picture()
    framed = cropped(photo, box_mask(photo, 50, 50, 55, 55), domain, Lens(None, ""))
    assert "fewer than the network's 16" in framed.remarks[0]
    assert cropped(picture(16, 20), None, domain, Lens(None, "")).remarks == ()


@pytest.mark.parametrize("beside", [0.0, 0.3], ids=["on the axis", "beside it"])
def test_a_longer_lens_sees_the_object_from_farther_away_at_the_same_size(domain: Domain, beside: float) -> None:
    photo, domain = picture(), replace(domain, origin=(beside, -beside, 2.0))
    mask = box_mask(photo, 30, 50, 90, 110)
    usual = cropped(photo, mask, domain, Lens(None, "")).source
    side = 60 / domain.fill
    twice = Lens(2 * domain.focal[0] / 16 * side / 120, "")
    far = cropped(photo, mask, domain, twice).source
    assert torch.allclose(far.cameras.focal, 2 * usual.cameras.focal)
    assert torch.allclose(far.origin[0, 2], 2 * usual.origin[0, 2])
    assert torch.allclose(far.near, usual.near + 2)
    assert torch.allclose(far.far - far.near, usual.far - usual.near)
    # The middle of the object and a point beside it appear in the same pixels.
    for offset in (0.0, 0.5):
        there, here = (v.cameras.focal * (v.origin[0, :2] + offset) / v.origin[0, 2] for v in (far, usual))
        assert torch.allclose(there, here)


def test_bounds_around_the_origin_move_with_it(domain: Domain) -> None:
    relative = replace(domain, near=-0.75, far=0.75, bounds_from_origin=True)
    photo = picture()
    source = cropped(photo, None, relative, Lens(2 * domain.focal[0] / 16, "")).source
    assert (source.near.item(), source.far.item()) == (-0.75, 0.75)
    assert source.origin_distance is not None
    assert source.origin_distance.item() == pytest.approx(4.0)


def test_a_field_of_view_that_puts_the_object_behind_the_camera(domain: Domain) -> None:
    with pytest.raises(PictureError, match="a longer focal length is needed"):
        cropped(picture(), None, domain, Lens(0.2, ""))


def test_lenses() -> None:
    photo = picture()
    assert Lens.of(photo, 90, None).focal == pytest.approx(0.5)
    assert Lens.of(photo, None, 480).focal == pytest.approx(2)  # the file's picture is 240 wide
    usual = Lens.of(photo, None, None)
    assert usual.focal is usual.degrees is None
    recorded = Lens.of(replace(photo, focal=240), None, None)
    assert recorded.degrees == pytest.approx(53.13, abs=0.01)
    assert "camera recorded" in recorded.origin
    for fov, focal, message in ((60, 100, "give one"), (0, None, "allowed: 1 to 170"), (None, 1, "allowed for photo")):
        with pytest.raises(ValueError, match=message) as error:
            Lens.of(photo, fov, focal)
        assert isinstance(error.value, PictureError) == (focal == 1)  # others may be wide enough for it


def test_pictures_of_the_datasets_own_kind_are_read_as_they_are(domain: Domain) -> None:
    own = picture(16, 16)
    own.rgba[4:12, 5:11, :3] = (1, 2, 3)
    assert is_framed(own, domain)
    assert np.array_equal(seen(as_it_is(own, domain, Lens(None, ""))), own.rgba[..., :3].transpose(2, 0, 1))
    twice = as_it_is(own, domain, Lens(2 * domain.focal[0] / 16, "")).source
    assert torch.allclose(twice.cameras.focal, 2 * torch.tensor(domain.focal))
    assert is_framed(picture(32, 32), replace(domain, stored=32))
    assert not is_framed(picture(17, 17), domain)
    assert not is_framed(picture(16, 17), domain)
    assert not is_framed(picture(16, 16, (250, 255, 255)), domain)
    assert is_framed(picture(16, 16, (250, 255, 255)), replace(domain, is_plain=False))
    own.rgba[0, 0, 3] = 0
    assert not is_framed(own, domain)


def test_the_distance_to_training_pictures(domain: Domain, home, tiny) -> None:
    store = open_dataset("chairs", tiny()["data"]["options"], home)
    for frame in range(5):
        image = np.asarray(store.images[frame])
        silhouette = (image < 250).any(axis=0)
        assert domain.distance_of(image, silhouette) <= 1.0001
    green = np.full((3, 16, 16), 255, np.uint8)
    silhouette = np.zeros((16, 16), bool)
    silhouette[7:9, 1:15] = True
    green[0][silhouette] = green[2][silhouette] = 0
    assert domain.distance_of(green, silhouette) > 1.2
