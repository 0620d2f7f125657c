"""Crops of photos: their distribution, their pixels, and that nothing but (seed, epoch, position) decides them."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import Crop, Draws, Resident, Split, Streamed, crops, make_transform
from jaxvit.data.images import decode_reduced
from jaxvit.errors import UserError
from tests.helpers.photos import detailed, jpeg

OPTIONS = {
    "train_crop_mode": None, "random_resized_crop": None, "crop_ratio": (3 / 4, 4 / 3), "train_interpolation": None,
}  # fmt: skip


def rng(position=0):
    return crops.generator(0, 0, position)


def make(size=(32, 32), in_channels=3, interpolation="bicubic", **options):
    draw = crops.make_draw(OPTIONS | options, size, interpolation)
    assert draw is not None
    return Crop(draw, size, in_channels)


def test_a_resized_crop_is_uniform_in_area_and_in_the_logarithm_of_the_aspect():
    """Where every draw fits (a share of at most 0.4 of a square photo), both are uniform, and the place too."""
    from scipy import stats

    side, found = 4000, []
    for i in range(4000):
        (top, left, h, w), size, *_ = crops.resized_crop(rng(i), (side, side), (8, 8), (0.08, 0.4), (3 / 4, 4 / 3))
        assert 0 <= top <= side - h and 0 <= left <= side - w and size == (8, 8)
        found.append((h * w / side**2, np.log(w / h), top / (side - h), left / (side - w)))
    ranges = ((0.08, 0.32), (np.log(3 / 4), 2 * np.log(4 / 3)), (0, 1), (0, 1))
    for values, (low, length) in zip(np.transpose(found), ranges, strict=True):
        assert stats.kstest(values, "uniform", (low, length)).pvalue > 1e-3


@pytest.mark.parametrize("photo_size", [(375, 500), (40, 300), (300, 40), (1, 1), (1, 5000)])
def test_what_does_not_fit_is_the_largest_allowed_box_in_the_centre(photo_size):
    (top, left, h, w), *_ = crops.resized_crop(rng(), photo_size, (8, 8), (1.0, 1.0), (0.99, 1.01))
    assert (top, left) == ((photo_size[0] - h) // 2, (photo_size[1] - w) // 2)
    assert min(h, w) == min(photo_size) and (max(h, w) - min(h, w) <= 0.011 * min(h, w) + 1)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
def test_pixels_are_those_of_pillow(method):
    image, size = detailed(), (32, 24)
    crop = make(size, random_resized_crop=(0.2, 0.8), train_interpolation=method)
    (top, left, h, w), *_ = crops.resized_crop(rng(7), (90, 120), size, (0.2, 0.8), (3 / 4, 4 / 3))
    expected = image.crop((left, top, left + w, top + h)).resize((24, 32), getattr(Image.Resampling, method.upper()))
    np.testing.assert_array_equal(crop(rng(7), image), np.asarray(expected))
    file = io.BytesIO()
    image.save(file, "PNG")
    np.testing.assert_array_equal(crop.of_file(rng(7), file), np.asarray(expected))


def test_a_jpeg_is_decoded_at_less_than_twice_the_crop_and_shows_the_same():
    image = detailed(512, 640, detail=32)
    file = jpeg(image)
    for divisor, box in ((1, 60), (2, 64), (4, 150), (8, 400)):
        found, by = decode_reduced(io.BytesIO(file), lambda size, box=box: box / 32)
        assert (by, found.size) == (divisor, (640 // divisor, 512 // divisor))
    crop = make(random_resized_crop=(0.5, 0.9))
    for i in range(5):
        reduced, full = crop.of_file(rng(i), io.BytesIO(file)), crop(rng(i), Image.open(io.BytesIO(file)))
        assert np.abs(reduced.astype(int) - full).mean() < 3  # grey values; another scaling of the same place
        shifted = np.roll(full, 2, axis=1)
        assert np.abs(reduced.astype(int) - full).mean() < np.abs(reduced.astype(int) - shifted).mean() / 3


def test_a_photo_on_its_side_is_cropped_upright():
    image = detailed(512, 640, detail=32)
    exif = Image.Exif()
    exif[0x0112] = 6
    crop = make((24, 32), random_resized_crop=(0.3, 0.6))
    turned = crop.of_file(rng(3), io.BytesIO(jpeg(image, exif=exif)))
    upright = crop(rng(3), image.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(turned.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("photo_size", [(90, 120), (120, 90), (20, 200), (10, 12), (1, 70)])
@pytest.mark.parametrize("mode", crops.MODES)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_mode_gives_the_size_whatever_the_detailed(mode, photo_size, size, in_channels):
    crop = make(size, in_channels, train_crop_mode=mode)
    for i in range(4):
        assert crop(rng(i), detailed(*photo_size)).shape == (*size, in_channels)


def test_the_simple_crop_is_a_place_of_the_padded_resized_detailed():
    image = detailed(100, 150)
    resized = np.asarray(image.resize((48, 32), Image.Resampling.BICUBIC))
    padded = np.pad(resized, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    crop = make(train_crop_mode="src")
    places = set()
    for i in range(200):
        got = crop(rng(i), image)
        ((y, x),) = [(y, x) for y in range(9) for x in range(25) if np.array_equal(padded[y : y + 32, x : x + 32], got)]
        places.add((y, x))
    assert {y for y, _ in places} == set(range(9)) and {x for _, x in places} >= set(range(25)) - {0, 24}


def test_random_interpolation_is_one_of_two():
    draw = crops.make_draw(OPTIONS | {"train_crop_mode": "rrc", "train_interpolation": "random"}, (8, 8), "lanczos")
    assert draw is not None
    drawn = [draw(rng(i), (90, 120)).method for i in range(100)]
    assert set(drawn) == {"bilinear", "bicubic"} and 30 < drawn.count("bicubic") < 70


def test_no_mode_is_no_crop():
    assert crops.make_draw(OPTIONS, (8, 8), "bicubic") is None
    with pytest.raises(UserError, match="cubical"):
        crops.make_draw(OPTIONS | {"train_crop_mode": "src"}, (8, 8), "cubical")


def photos(n=12, broken=()):
    files = [jpeg(detailed(seed=i)) for i in range(n)]
    files = [b"no image" if i in broken else file for i, file in enumerate(files)]
    read = lambda i: Image.open(io.BytesIO(files[i]))  # noqa: E731
    return Split("train", np.arange(n, dtype=np.int32), np.arange(n), read, file=lambda i: io.BytesIO(files[i]))


def batches(feed, order, size=4, **options):
    return [{k: np.asarray(v) for k, v in batch.items()} for batch in feed.batches(order, size, **options)]


def test_crops_depend_on_seed_epoch_and_position_alone():
    crop, order = make((16, 16), random_resized_crop=(0.1, 0.5)), np.array([3, 1, 3, 5, 0, 2, 4, 3])

    def images(threads=1, seed=0, epoch=0, **options):
        feed = Streamed(photos(), make_transform(16), num_workers=threads, crop=crop)
        return np.stack([b["image"] for b in batches(feed, order, draws=Draws(seed, epoch, np.arange(8)), **options)])

    first = images()
    np.testing.assert_array_equal(first, images(threads=5))
    np.testing.assert_array_equal(first[1:], images(start=1))  # a run that is resumed
    assert all((first != other).any() for other in (images(seed=1), images(epoch=1)))
    assert (first[0, 0] != first[0, 2]).any()  # the same photo twice in an epoch
    feed = Streamed(photos(), make_transform(16), crop=crop)
    dealt = np.array([0, 2, 1, 3, 4, 6, 5, 7])  # to devices, in another order
    moved = batches(feed, order[dealt], draws=Draws(0, 0, dealt))
    np.testing.assert_array_equal(np.concatenate([b["image"] for b in moved]), first.reshape(8, 16, 16, 3)[dealt])


def test_without_draws_a_feed_shows_what_evaluation_sees():
    feed = Streamed(photos(), make_transform(16), crop=make((16, 16), random_resized_crop=(0.1, 0.5)))
    for found, expected in zip(
        batches(feed, np.arange(12)), batches(Resident(photos(), make_transform(16)), np.arange(12)), strict=True
    ):
        np.testing.assert_array_equal(found["image"], expected["image"])


def test_a_photo_that_cannot_be_read_is_masked():
    feed = Streamed(photos(broken=(2,)), make_transform(16), crop=make((16, 16), train_crop_mode="rrc"))
    (batch,) = batches(feed, np.arange(4), draws=Draws(0, 0, np.arange(4)))
    assert batch["mask"].tolist() == [True, True, False, True] and not batch["image"][2].any()
    assert feed.unreadable == {2}
