"""Saved models that several tests load."""

import pytest

from jaxvit.pretrained import convert, save
from tests.helpers import pretrained as helpers


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory per family with drawn weights, as `save` writes it."""
    paths = {}
    for word in ("vit", "swin", "resnet", "deit"):
        model = helpers.make(helpers.ALL[word])
        path = tmp_path_factory.mktemp(word)
        save(model, convert(model, helpers.weights(model)), path, name=helpers.ALL[word][0])
        paths[word] = path
    return paths
