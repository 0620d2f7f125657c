"""The hub: absent weights, no network."""

import pytest

from jaxvit.errors import UserError
from jaxvit.pretrained import files, hub, load, load_pretrained


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
    with pytest.raises(UserError, match="no network, huggingface.co cannot be resolved\nPass a local file instead"):
        hub.fetch("resnet18.a1_in1k", cache_dir=tmp_path)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, saved, monkeypatch):
    """A cache of the hub with one repository in it, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).write_bytes((saved["vit"] / name).read_bytes())
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return tmp_path


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_the_hub_through_its_cache(cache, saved, revision):
    loaded = load("vit_tiny_patch16_224.augreg_in21k", revision=revision)
    assert loaded.checkpoint.source == f"timm/vit_tiny_patch16_224.augreg_in21k@{COMMIT}"
    assert loaded.checkpoint.sha256 == files.sha256(saved["vit"] / "model.safetensors")
    assert loaded.model.depth == 2  # from its config.json
    assert hub.fetch("vit_tiny_patch16_224.augreg_in21k", cache_dir=cache).config


@pytest.mark.parametrize("revision", [None, "abc"])
def test_without_network_two_lines_tell_the_way(cache, revision):
    with pytest.raises(UserError) as error:
        load("resnet18", revision=revision)
    first, second = str(error.value).splitlines()
    assert first.startswith("cannot get the weights of resnet18.a1_in1k from the Hugging Face hub")
    assert "--config.pretrained=FILE" in second and "--checkpoint FILE" in second and "checkpoint=FILE" in second
    assert f"huggingface.co/timm/resnet18.a1_in1k/resolve/{revision or 'main'}/model.safetensors" in second
