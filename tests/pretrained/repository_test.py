"""Repositories by name, through the hub's own client against a small hub on this machine (`helpers/hub_server.py`)."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxvit
from jaxvit import cli
from jaxvit.errors import UserError
from jaxvit.inference import from_name
from jaxvit.pretrained import export, load, repository, stored_data_config
from tests.helpers import pretrained as helpers
from tests.helpers.hub_server import COMMIT, TOKEN


def repo_of(directory, **config):
    """The two files of a saved model, with changes of its config.json."""
    found = {name: (Path(directory) / name).read_bytes() for name in ("model.safetensors", "config.json")}
    return found | {"config.json": json.dumps(json.loads(found["config.json"]) | config).encode()}


@pytest.fixture
def vit(hub_server, saved):
    """The repository me/vit with five named classes."""
    hub_server.repos["me/vit"] = repo_of(saved["vit"], label_names=["ant", "bee", "cat", "dog", "eel"])
    return hub_server


@pytest.mark.parametrize("revision", ["", "@v1", f"@{COMMIT}"])
def test_a_repository_in_timms_layout(vit, saved, revision):
    loaded = load(f"hf_hub:me/vit{revision}")
    assert loaded.checkpoint.source == f"me/vit@{COMMIT}" and loaded.name == "vit_tiny_patch16_224"
    helpers.assert_same(export(loaded.model, loaded.variables), load_file(saved["vit"] / "model.safetensors"))
    asked = [path for method, path in vit.requests if method == "GET" and "/resolve/" in path]
    assert [path.rpartition("/")[2] for path in asked] == ["config.json", "model.safetensors"]
    assert asked[1].split("/")[-2] == COMMIT  # both files are of one commit, even where a branch moves
    assert from_name(f"hf_hub:me/vit{revision}").class_names == ["ant", "bee", "cat", "dog", "eel"]
    assert [path for method, path in vit.requests if method == "GET" and "/resolve/" in path] == asked  # from the cache


def test_the_public_door_takes_changes_and_a_timm_name_with_a_repository(vit):
    model, _ = jaxvit.load_pretrained("hf_hub:me/vit", num_classes=3)
    assert (model.num_classes, model.depth) == (3, 2)
    del vit.repos["me/vit"]["config.json"]
    with pytest.raises(UserError, match="has no config.json that names its architecture.\nGive the model's timm name"):
        load("hf_hub:me/vit@v1")
    assert load("vit_tiny_patch16_224", "hf_hub:me/vit@v1", depth=2).model == model.clone(num_classes=5)


def test_offline_the_cache_answers(vit, monkeypatch):
    load("hf_hub:me/vit")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    vit.requests.clear()
    assert load("hf_hub:me/vit").checkpoint.source == f"me/vit@{COMMIT}"
    with pytest.raises(UserError, match="hf_hub:me/other: config.json is not in the cache.*\nPass a local file"):
        load("hf_hub:me/other")
    assert not vit.requests


def transformers(tensors, **config):
    """A repository as Transformers writes one: a ViT whose names it has from the table below."""
    config = {
        "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 4, "intermediate_size": 97, "image_size": 32, "patch_size": 16, "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-3, "id2label": {"0": "cat", "1": "dog", "2": "owl"},
    } | config  # fmt: skip
    processor = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4] * 3,
        "size": {"height": 32, "width": 32},
        "resample": 2,
    }
    return {
        "config.json": json.dumps(config).encode(),
        "preprocessor_config.json": json.dumps(processor).encode(),
        "model.safetensors": tensors,
    }


def as_transformers(weights, path):
    """Timm's names of a ViT to Transformers', written by hand, and the bytes of the file."""
    import re

    table = (
        (r"^(cls_token|pos_embed)$", lambda m: {"cls_token": "vit.embeddings.cls_token",
                                                "pos_embed": "vit.embeddings.position_embeddings"}[m[1]]),
        (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
        (r"^blocks\.(\d+)\.", r"vit.encoder.layer.\1."),
        (r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after."), (r"^norm\.", "vit.layernorm."),
        (r"\.attn\.proj\.", ".attention.output.dense."), (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."), (r"^head\.", "classifier."),
    )  # fmt: skip
    named = {}
    for name, array in weights.items():
        for pattern, to in table:
            name = re.sub(pattern, to, name)
        if ".attn.qkv." in name:
            for word, part in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                named[name.replace(".attn.qkv.", f".attention.attention.{word}.")] = part.copy()
        else:
            named[name] = array
    save_file(named, path / "hf.safetensors")
    return (path / "hf.safetensors").read_bytes()


@pytest.fixture
def hf_vit(hub_server, tmp_path):
    """A small ViT, and the repository me/hf with its weights in Transformers' layout."""
    fields = {"embed_dim": 24, "depth": 1, "num_heads": 4, "mlp_ratio": 97 / 24, "image_size": 32, "num_classes": 3}
    model = jaxvit.create_model("vit_tiny_patch16_224", **fields, act_layer="gelu_tanh", norm_eps=1e-3)
    weights = helpers.weights(model)
    hub_server.repos["me/hf"] = transformers(as_transformers(weights, tmp_path))
    return model, weights


def test_a_repository_in_transformers_layout(hf_vit):
    model, weights = hf_vit
    loaded = load("hf_hub:me/hf")
    assert loaded.model == model and loaded.licence == ""
    helpers.assert_same(export(loaded.model, loaded.variables), weights)
    words = {word: loaded.data_config[word] for word in ("mean", "std", "crop_pct", "crop_mode", "interpolation")}
    assert words == {
        "mean": (0.1, 0.2, 0.3), "std": (0.4,) * 3, "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"
    }  # fmt: skip
    assert from_name("hf_hub:me/hf").class_names == ["cat", "dog", "owl"]
    assert stored_data_config("vit_tiny_patch16_224", "hf_hub:me/hf")["mean"] == (0.1, 0.2, 0.3)
    repository.check_name("hf_hub:me/hf", "vit_small_patch16_224")
    with pytest.raises(UserError, match="hf_hub:me/hf is 'vit_tiny_patch16_224', model.name is 'resnet18'; give"):
        repository.check_name("hf_hub:me/hf", "resnet18")


def test_weights_in_parts(vit, saved, tmp_path):
    tensors = load_file(saved["vit"] / "model.safetensors")
    files, names = vit.repos["me/vit"], sorted(tensors)
    del files["model.safetensors"]
    mapped = {}
    for i, part in enumerate((names[:9], names[9:])):
        shard = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, tmp_path / shard)
        files[shard] = (tmp_path / shard).read_bytes()
        mapped |= dict.fromkeys(part, shard)
    files["model.safetensors.index.json"] = json.dumps({"weight_map": mapped}).encode()
    loaded = load("hf_hub:me/vit")
    helpers.assert_same(export(loaded.model, loaded.variables), tensors)
    for bad in ("../x.safetensors", "x.bin", "/etc/passwd", ".x.safetensors"):
        files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": bad}}).encode()
        vit.revisions.add(revision := "f" * 39 + str(len(vit.revisions)))
        with pytest.raises(UserError, match="names no safetensors next to it"):
            repository._weights("me/vit", revision, 10**9, tmp_path / revision)


WORDS = {
    "hf_hub:foo": "'hf_hub:foo' does not name a repository; expected hf_hub:user/name or hf_hub:user/name@revision",
    "hf_hub:": "does not name a repository",
    "hf_hub:a/b/c": "does not name a repository",
    "hf_hub:a/../b": "does not name a repository",
    "hf_hub:../b": "does not name a repository",
    "hf_hub:a/b\x1b[2J": "does not name a repository",
    "hf_hub:me/vit@": "'' is not a revision",
    "hf_hub:me/vit@../x": "'../x' is not a revision",
    "hf_hub:me/vit@nope": "hf_hub:me/vit has no revision 'nope'; expected a branch, a tag or a commit",
    "hf_hub:me/absent": "no repository hf_hub:me/absent on http://127.0.0.1:[0-9]+, or it is private.\nCheck the name",
    "hf_hub:me/private": "no repository hf_hub:me/private .*\n.*log in first: `hf auth login`",
    "hf_hub:me/gated": "hf_hub:me/gated is gated: its owner gives access on request.\nAsk at http",
    "hf_hub:me/strange": "hf_hub:me/strange: the architecture 'bert' of Transformers .BertModel. is not supported",
    "hf_hub:me/unknown": "unknown model 'no_such_net'",
    "hf_hub:me/pickled": "its weights only as pickles .pytorch_model.bin., which can run code .* expected model.safe",
    "hf_hub:me/without": "hf_hub:me/without has no weights; expected model.safetensors or",
    "hf_hub:me/broken": "cannot read .*config.json",
    "hf_hub:me/large": "hf_hub:me/large: model.safetensors has 1,000,000,000,000 bytes; expected at most [0-9,]+ for",
    "hf_hub:me/damaged": "is damaged: its SHA-256 is",
    "hf_hub:me/deep": "describes a vit_tiny_patch16_224 of 900 blocks; expected at most 200",
    "hf_hub:me/classes": "hf_hub:me/classes: config.json: hidden_size=x; expected a whole number",
}


@pytest.mark.parametrize("word", WORDS)
def test_what_cannot_be_loaded_is_told_in_two_lines(vit, saved, word):
    whole = repo_of(saved["vit"])
    name = word[len("hf_hub:") :]
    vit.private, vit.gated = {"me/private"}, {"me/gated"}
    vit.announced = {"model.safetensors": 10**12} if name == "me/large" else {}
    vit.damaged = {"model.safetensors"} if name == "me/damaged" else set()
    args = json.loads(whole["config.json"])["model_args"]
    own = {
        "me/strange": {"config.json": b'{"model_type": "bert", "architectures": ["BertModel"]}'},
        "me/classes": {"config.json": b'{"model_type": "vit", "hidden_size": "x"}'},
        "me/unknown": repo_of(saved["vit"], architecture="no_such_net"),
        "me/pickled": {"config.json": whole["config.json"], "pytorch_model.bin": b"\x80"},
        "me/without": {"config.json": whole["config.json"]},
        "me/broken": {"config.json": b"[" * 100_000},
        "me/deep": repo_of(saved["vit"], model_args=args | {"depth": 900}),
    }
    if name != "me/absent":
        vit.repos[name] = own.get(name, whole)
    with pytest.raises(UserError, match=WORDS[word]) as error:
        load(word)
    assert len(str(error.value).splitlines()) <= 2
    read = [path for method, path in vit.requests if method == "GET" and path.endswith(("safetensors", ".bin"))]
    assert bool(read) == (name == "me/damaged")  # of all others no weights were fetched


def test_a_private_repository_with_a_token(vit, monkeypatch):
    vit.private = {"me/vit"}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load("hf_hub:me/vit").checkpoint.source == f"me/vit@{COMMIT}"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="no repository hf_hub:me/vit"):
        load("hf_hub:me/vit")


def test_the_command_line_takes_repositories(vit, tmp_path, capsys):
    assert cli.main(["convert", "--model", "hf_hub:me/vit", "--to", str(tmp_path / "out")]) == 0
    assert f"me/vit@{COMMIT}" in capsys.readouterr().out
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["label_names"] == ["ant", "bee", "cat", "dog", "eel"]
    (tmp_path / "c.json").write_text('{"model": {"name": "resnet18"}, "data": {"name": "digits"}}')
    train = [
        "--config",
        str(tmp_path / "c.json"),
        "--workdir",
        str(tmp_path / "run"),
        "--config.pretrained=hf_hub:me/vit",
    ]
    assert cli.main(train) == 2
    said = capsys.readouterr().err
    assert (
        "hf_hub:me/vit is 'vit_tiny_patch16_224', model.name is 'resnet18'; give --config.model.name=vit_tiny" in said
    )
    for command in (["eval", "--data", "digits"], ["convert", "--to", str(tmp_path / "x")]):
        assert cli.main([*command, "--model", "hf_hub:me/absent"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: no repository hf_hub:me/absent") and len(said.splitlines()) == 2
