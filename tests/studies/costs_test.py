"""What a row costs: counted at the classes and the size that its data have."""

import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit.studies.costs import cost_of


def cost(name):
    config = config_lib.default()
    config.data.name, config.num_epochs = name, 2
    with config.unlocked():
        config.model.update({"name": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 24, "depth": 1})
    return cost_of(config)


@pytest.mark.parametrize(("classes", "pixels"), [(3, 8), (7, 12)])
def test_data_on_the_disk_are_counted_as_they_are(tmp_path, classes, pixels):
    labels = np.arange(classes * 20) % classes
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", image=np.zeros((len(labels), pixels, pixels, 3), np.uint8), label=labels)
    mine, gone = cost(f"npz:{tmp_path}"), cost(f"npz:{tmp_path}/gone")
    assert mine.image_size == (pixels, pixels) and gone.image_size == (224, 224)
    tokens = [1 + (side // 4) ** 2 for side in (pixels, 224)]  # positions of patches and of the class token
    assert gone.parameters - mine.parameters == 24 * (tokens[1] - tokens[0]) + (24 + 1) * (10 - classes)
    assert mine.macs < gone.macs
