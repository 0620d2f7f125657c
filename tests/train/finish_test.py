"""What a run ends with."""

import numpy as np

from jaxvit.data.pipeline import make_feed
from jaxvit.data.splits import Split
from jaxvit.train import summary


def test_samples_are_the_evenly_spaced_images_and_then_mistakes():
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1).repeat(4, axis=1)
    labels = (np.arange(100) % 2).astype(np.int32)
    split = Split("test", labels, np.arange(100), images.__getitem__, images)
    logits = np.zeros((100, 2), np.float32)
    logits[np.arange(100), labels] = 1.0
    logits[33] = (5.0, -5.0)
    samples = summary.sample_images(make_feed(split), split, np.arange(100), logits)
    fixed = int(samples["fixed"])
    assert fixed == summary.NUM_SAMPLES
    assert samples["index"][0] == 0 and samples["index"][fixed - 1] == 99
    np.testing.assert_array_equal(samples["index"][fixed:], [33])
    np.testing.assert_array_equal(samples["image"][:, 0, 0, 0], samples["index"])
    np.testing.assert_array_equal(samples["label"], labels[samples["index"]])
