"""Facts of the data without reading images."""

from jaxvit.plan import facts
from tests.helpers import tiny_config, write_npz


def test_facts_come_from_headers_names_and_arguments(tmp_path):
    name = write_npz(tmp_path, num_train=48, num_test=20, size=8)
    config = tiny_config(name)
    here = facts.find(config)
    assert (here.num_classes, here.num_train, here.num_val, here.num_test, here.shape) == (3, 43, 5, 20, (8, 8, 3))
    assert here.note is None
    config.data.name = "tfds:imagenet2012"
    assert facts.find(config).num_classes == 1000 and facts.find(config, num_train=5).num_train == 5
    config.data.name = "folder:/nowhere"
    assert facts.find(config, num_classes=7).num_classes == 7
    unknown = facts.find(config)
    assert unknown.num_classes == 1000 and unknown.shape is None
    assert unknown.note is not None and "folder:/nowhere is not here; assumed are photos, 1,000 classes" in unknown.note
