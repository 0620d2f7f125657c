"""The hub: absent weights, no network."""

import pytest

from jaxvit.errors import UserError
from jaxvit.pretrained import hub, load_pretrained


@pytest.mark.parametrize("name", ["alexnet", "resnet200"])
def test_weights_that_the_hub_has_not(name):
    with pytest.raises(UserError, match="has no weights on the Hugging Face hub.*\nPass a file"):
        load_pretrained(name)
    with pytest.raises(UserError, match="unknown model 'resnet19'"):
        load_pretrained("resnet19")


def test_without_a_network_the_answer_comes_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", dict)

    def unknown(host, *_):
        raise OSError(f"{host} not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(UserError, match="no network, huggingface.co is unknown here\nPass a local file instead"):
        hub.fetch("resnet18.a1_in1k", cache_dir=tmp_path)
