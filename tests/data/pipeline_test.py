"""The feed: every example once, fixed shapes, the same batches resident or streamed, whole or resumed."""

import time

import chex
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from jaxvit.data import Resident, Streamed, epoch_order, load_dataset, make_feed, make_transform
from jaxvit.data.pipeline import gather
from jaxvit.data.sampling import num_batches
from jaxvit.data.splits import Split, from_arrays
from jaxvit.errors import RunError, UserError


def _split(n=23):
    images = np.random.default_rng(0).integers(0, 256, (n, 4, 5, 3), np.uint8)
    return from_arrays("train", images, np.arange(n) % 7)


def _photos(n=11, broken=()):
    sizes = [(20 + i, 30 - i) for i in range(n)]
    images = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*s, 3), np.uint8)) for i, s in enumerate(sizes)
    ]

    def read(i):
        if i in broken:
            raise OSError("image file is truncated")
        return images[i]

    return Split("train", np.arange(n, dtype=np.int32) % 3, np.arange(n), read)


def _host(batches):
    return [jax.tree.map(np.asarray, batch) for batch in batches]


@pytest.mark.parametrize("feed_cls", [Resident, Streamed])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 40])
def test_padding_shows_every_example_exactly_once(feed_cls, batch_size):
    split = _split()
    batches = _host(feed_cls(split).batches(np.arange(23), batch_size, pad=True))
    assert len(batches) == num_batches(23, batch_size, pad=True)
    for batch in batches:
        chex.assert_shape(batch["image"], (batch_size, 4, 5, 3))
        assert (batch["image"].dtype, batch["label"].dtype, batch["mask"].dtype) == (np.uint8, np.int32, np.bool_)
        assert not batch["image"][~batch["mask"]].any()
    images, labels = (np.concatenate([b[key][b["mask"]] for b in batches]) for key in ("image", "label"))
    np.testing.assert_array_equal(images, split.images)
    np.testing.assert_array_equal(labels, split.labels)


def test_without_padding_the_remainder_is_dropped():
    batches = _host(Resident(_split()).batches(np.arange(23), 5))
    assert len(batches) == 4 and all(b["mask"].all() for b in batches)
    assert not list(Resident(_split()).batches(np.arange(23), 24))
    with pytest.raises(UserError, match="batch_size"):
        next(Resident(_split()).batches(np.arange(23), 0))


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_streamed_equals_resident_and_resumes_anywhere(pad, start):
    split, order = _split(), epoch_order(7, 2, 23)
    whole = _host(Resident(split).batches(order, 5, pad=pad))
    for feed in (Resident(split), Streamed(split, num_workers=3)):
        resumed = _host(feed.batches(order, 5, start=start, pad=pad))
        chex.assert_trees_all_equal(resumed, whole[start:])


def test_epoch_order_depends_on_seed_and_epoch_only():
    orders = [tuple(epoch_order(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4 and all(sorted(o) == list(range(50)) for o in orders)
    assert tuple(epoch_order(1, 0, 50)) == orders[2]


@pytest.mark.parametrize("n, repeats", [(50, 1), (50, 3), (51, 3), (2, 3)])
def test_repeated_augmentation_repeats_the_head_of_the_same_order(n, repeats):
    order, repeated = epoch_order(3, 1, n), epoch_order(3, 1, n, repeats)
    np.testing.assert_array_equal(repeated, [order[i // repeats] for i in range(n)])


def test_photos_are_transformed_on_the_host_alike():
    split, transform = _photos(), make_transform((16, 12))
    order = epoch_order(0, 0, len(split))
    resident = _host(Resident(split, transform).batches(order, 4, pad=True))
    streamed = _host(Streamed(split, transform).batches(order, 4, pad=True))
    chex.assert_trees_all_equal(resident, streamed)
    np.testing.assert_array_equal(resident[0]["image"][0], transform(split.read(int(order[0]))))


@pytest.mark.parametrize("feed_cls", [Resident, Streamed])
def test_an_example_that_breaks_later_is_masked(feed_cls):
    feed = feed_cls(_photos(broken=(0, 4)), make_transform(8))
    batches = _host(feed.batches(np.arange(11), 4, pad=True))
    assert sum(int(b["mask"].sum()) for b in batches) == 9
    assert not batches[1]["mask"][0] and not batches[1]["image"][0].any()
    assert sorted(feed.unreadable) == [0, 4]


def test_images_of_many_sizes_need_a_transform():
    with pytest.raises(UserError, match="differ in size"):
        Resident(_photos())


def test_batches_are_split_over_a_mesh():
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    split, order = _split(), np.arange(23)[::-1]
    expected = _host(Resident(split).batches(order, 8, pad=True))
    for feed in (Resident(split, sharding=sharding), Streamed(split, sharding=sharding)):
        batches = list(feed.batches(order, 8, pad=True))
        for batch in batches:
            assert all(len(x.sharding.device_set) == 4 and x.is_fully_addressable for x in batch.values())
            assert batch["image"].addressable_shards[0].data.shape == (2, 4, 5, 3)
        chex.assert_trees_all_equal(_host(batches), expected)


def test_one_trace_for_a_whole_epoch():
    feed = Resident(from_arrays("train", np.zeros((37, 3, 3, 1), np.uint8), np.zeros(37)))
    before = gather._cache_size()
    for epoch in range(3):
        for _ in feed.batches(epoch_order(0, epoch, 37), 6, start=epoch, pad=True):
            pass
    assert gather._cache_size() == before + 1


def test_make_feed_chooses_by_size_and_says_which():
    split = _split()
    assert make_feed(split).kind == "resident"
    assert make_feed(split, resident_bytes=1000).kind == "streamed"
    small = make_feed(_photos(), transform=make_transform(8))
    assert small.kind == "resident" and small.image_shape == (8, 8, 3)
    assert make_feed(_photos(), transform=make_transform(8), resident_bytes=100).kind == "streamed"


def test_a_stream_left_early_stops_reading():
    read = []
    split = _split(2000)
    counted = Split("train", split.labels, split.index, lambda i: read.append(i) or split.read(i))
    batches = Streamed(counted, num_workers=2).batches(np.arange(2000), 4)
    next(batches)
    batches.close()
    time.sleep(0.3)
    seen = len(read)
    time.sleep(0.3)
    assert len(read) == seen < 200


def test_an_empty_split_gives_no_batches():
    empty = load_dataset("digits", val_fraction=0).val
    assert list(make_feed(empty).batches(np.arange(0), 4, pad=True)) == []


@pytest.mark.parametrize("kind", ["streamed", "resident"])
def test_data_that_went_away_end_the_run_and_a_few_do_not(kind):
    gone = set(range(0, 100, 10))

    def read(i):
        if i in gone:
            raise OSError("gone")
        return np.zeros((4, 4, 3), np.uint8)

    split = Split("train", np.zeros(100, np.int32), np.arange(100), read, names=[f"{i}.jpg" for i in range(100)])
    make = Streamed if kind == "streamed" else Resident
    feed = make(split)
    assert sum(int(b["mask"].sum()) for b in feed.batches(np.arange(100), 10)) == 90
    gone |= {91, 92}
    with pytest.raises(RunError, match=r"12 of 100 train images .* 0\.jpg"):
        list(make(split).batches(np.arange(100), 10))
    allowed = make(split, max_unreadable=0.12)  # data.max_bad_fraction
    assert sum(int(b["mask"].sum()) for b in allowed.batches(np.arange(100), 10)) == 88
