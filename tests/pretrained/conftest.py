"""Saved models that several tests load."""

import pytest

from jaxvit.pretrained import convert, save
from tests.helpers import pretrained as helpers
from tests.helpers.hub_server import serving


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


@pytest.fixture
def hub_server(tmp_path):
    """A hub on this machine, which the hub's client talks to."""
    with serving(tmp_path) as server:
        yield server
