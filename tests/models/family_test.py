"""A family that no module of the package knows: its model and its record stand here, and everything works with it."""

import ast
import json
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit import explain, models, optim, pretrained, train, tree
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.family import Family, Tap
from jaxvit.models.hf_model import HfModel
from jaxvit.models.layouts import Layout
from jaxvit.models.macs import count_macs
from jaxvit.pretrained import draw, identify, rules
from jaxvit.runtime import sharding
from jaxvit.studies import smoke
from tests.helpers import tiny_config, write_npz

NAME = "toy_mixer"


class Toy(nn.Module):
    """A stem, blocks that mix channels and widen, a norm, a classifier: images [b, h, w, c] -> logits."""

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 32
    in_channels: int = 3
    width: int = 64
    num_cells: int = 4
    head_hidden_size: int | None = None
    shape: str = "round"
    spare_tokens: int = 0  # nothing reads it
    dtype: object = None
    remat: bool = False

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(self.width, (4, 4), 4, name="entry")(images)
        for i in range(self.num_cells):
            y = nn.BatchNorm(momentum=0.9, name=f"cells_{i}_rest")(x, use_running_average=not train)
            y = nn.Dense(4 * self.width, name=f"cells_{i}_widen")(y) * self.param(f"cells_{i}_tilt", one, (1, 1, 1, 1))
            y = nn.Dense(self.width, name=f"cells_{i}_narrow")(nn.relu(y))
            x = Named(name=f"cells_{i}_out")(x + y)
        x = nn.LayerNorm(name="close")(x)
        Named(name="strange")(x[:, :2])  # of rank 4, but no map of the image
        x = jnp.mean(x, (1, 2))
        return nn.Dense(self.num_classes, name="answer")(x) if self.num_classes else x


class Named(nn.Module):
    """The identity under a name."""

    @nn.compact
    def __call__(self, x):
        return x


def one(key, shape):
    """The start of a scale."""
    return jnp.ones(shape)


def check(model):
    """What does not fit."""
    if model.width % 4:
        raise UserError(f"width={model.width}; expected a multiple of 4.")


FAMILY = Family(
    name="toy",
    model=Toy,
    variants={NAME: {}, "toy_mixer_deep": {"num_cells": 6}, "toy_mixer_square": {"shape": "square"}},
    unsupported={"toy_mixer_3d": "a third dimension"},
    choices={"shape": ("round", "square")},
    check=check,
    depth_field="num_cells",
    small=lambda fields: {"width": 8, "num_cells": min(2, fields["num_cells"])},
    stem=r"entry/",
    blocks=((r"cells_(\d+)_", ()),),
    last_norm=r"close",
    decays=r".*(widen|narrow|answer)/kernel$",
    sharding=((r"_widen/kernel$", ("fsdp", "tensor")), (r"_narrow/kernel$", ("tensor", "fsdp"))),
    mark=r"^cells_0_tilt$",
    first_conv=("entry",),
    classifiers={"answer": None},
    buffers=(r"^weather$", r"\.num_batches_tracked$"),
    layouts=(Layout(r"^rooms\.0\.", ((r"^rooms\.(\d+)\.", r"cells_\1_"), (r"^bye\.", "answer.")), transformers=True),),
    transformers={"mixer_of_toys": HfModel(NAME, lambda config: {"num_cells": config["num_rooms"]})},
    transformers_only={"hidden_act": "relu"},
    fits=lambda tensors, fields: fields["shape"] == ("square" if "square" in tensors else "round"),
    branch_ends=r"_tilt$",
    taps=lambda model: tuple(Tap(f"cells.{i}", model.width, 4, f"cells_{i}_out") for i in range(model.num_cells)),
    default_layer=lambda model: f"cells_{model.num_cells - 2}_out",
    not_maps=frozenset({"strange"}),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "toy", FAMILY)
    return monkeypatch


def make(**fields):
    return models.create_model(NAME, **{"num_classes": 5, **fields})


def shapes_of(model):
    images = jax.ShapeDtypeStruct((1, 32, 32, model.in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def state_dict(model):
    """What timm would save of it."""
    drawn = draw.state_dict({rule.name: rule.shape for rule in rules.rules_of(model)})
    counters = [n.replace("running_var", "num_batches_tracked") for n in drawn if n.endswith("running_var")]
    return drawn | dict.fromkeys(counters, np.zeros((), np.int64))


def test_outside_of_the_models_nothing_names_a_family():
    package, names = Path(models.__file__).parent.parent, [name for name in registry.FAMILIES if name != "toy"]
    classes = [family.model.__name__ for family in registry.FAMILIES.values()]
    wrong = []
    for path in sorted(package.rglob("*.py")):
        if path.parent == package / "models":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            named = module.startswith(tuple(f"jaxvit.models.{name}" for name in names))
            named |= isinstance(node, ast.Constant) and node.value in (*names, *classes)
            if named:
                wrong.append(f"{path.relative_to(package)}:{getattr(node, 'lineno', '?')}")
    assert not wrong, "\n".join(wrong)


def test_it_is_listed_built_and_its_mistakes_are_named():
    assert models.list_models("toy_*") == [NAME, "toy_mixer_deep", "toy_mixer_square"]
    assert models.create_model("toy_mixer_deep").num_cells == 6
    assert models.model_fields(NAME)["width"] == 64
    assert models.list_models("toy_*", pretrained=True) == []
    assert models.create_model(NAME, spare_tokens=0).spare_tokens == 0  # as the default is
    for name, fields, message in (
        ("toy_mixr", {}, f"Did you mean '{NAME}'"),
        ("toy_mixer_3d", {}, "it needs a third dimension"),
        (NAME, {"widht": 3}, "Did you mean 'width'"),
        (NAME, {"shape": "sqare"}, "Did you mean 'square'"),
        (NAME, {"width": 6}, "expected a multiple of 4"),
        (NAME, {"num_cells": 0}, "at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            models.create_model(name, **fields)


def test_it_is_frozen_and_its_layers_have_their_rates():
    params = shapes_of(make())["params"]
    words = ("early", "early_with_stem", "head_only", "last_1_block")
    frozen = {word: tree.named_leaves(optim.freeze_mask(params, word)) for word in words}
    tops = {word: {path.split("/")[0] for path, on in mask.items() if not on} for word, mask in frozen.items()}
    cells = lambda *numbers: {t for t in params for i in numbers if t.startswith(f"cells_{i}_")}  # noqa: E731
    assert tops == {
        "early": cells(0, 1),
        "early_with_stem": cells(0, 1) | {"entry"},
        "head_only": set(params) - {"answer"},
        "last_1_block": cells(0, 1, 2) | {"entry"},
    }
    layers = optim.layer_ids(params)
    assert {layers[p] for p in layers if p.startswith("entry")} == {0}
    assert layers["cells_0_widen/kernel"] == 1 and layers["cells_3_tilt"] == layers["close/scale"] == 4
    assert layers["answer/kernel"] == 5
    decays = {path for path, on in tree.named_leaves(optim.decay_mask(params)).items() if on}
    assert decays == {"answer/kernel", *(f"cells_{i}_{kind}/kernel" for i in range(4) for kind in ("widen", "narrow"))}


def test_it_trains_with_frozen_blocks_over_eight_devices(tmp_path):
    config = tiny_config(write_npz(tmp_path / "data", size=32), num_epochs=1, parallel__num_devices=8)
    config.model = {"name": NAME, "width": 32, "num_cells": 2}
    config.parallel.fsdp, config.parallel.tensor = 2, 2
    config.optim.freeze, config.optim.layer_decay = "last_1_block", 0.5
    metrics = train.train_and_evaluate(config, tmp_path / "run")
    assert np.isfinite(metrics["test/loss"]), metrics


def test_its_kernels_are_cut_over_eight_devices():
    params = shapes_of(make())["params"]
    mesh = sharding.make_mesh(8, fsdp=2, tensor=2)
    places = sharding.state_shardings(params, mesh, registry.sharding_rules(tree.named_leaves(params)))
    specs = {path: tuple(place.spec) for path, place in tree.named_leaves(places).items()}
    assert specs["cells_0_widen/kernel"] == ("fsdp", "tensor") and specs["cells_0_narrow/kernel"] == ("tensor", "fsdp")


def test_its_weights_are_read_and_written(tmp_path):
    model = make()
    theirs = state_dict(model)
    assert {"entry.weight", "cells_0_rest.running_mean", "answer.bias"} <= theirs.keys()
    variables = pretrained.convert(model, theirs | {"weather": np.ones(3, np.float32)})
    kernel = variables["params"]["entry"]["kernel"]
    np.testing.assert_array_equal(kernel, theirs["entry.weight"].transpose(2, 3, 1, 0))
    ours = pretrained.export(model, variables)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[n], theirs[n]) for n in theirs)
    ends = [theirs[f"cells_{i}_tilt"].item() for i in range(4)]
    assert np.std(ends) < 0.1 and abs(np.mean(ends) - 0.3) < 0.1, ends  # of branches: small, and not around zero

    other = {re.sub(r"^cells_(\d+)_", r"rooms.\1.", n).replace("answer.", "bye."): a for n, a in theirs.items()}
    assert "rooms.3.widen.weight" in other and "bye.bias" in other
    again = pretrained.export(model, pretrained.convert(model, other))
    assert all(np.array_equal(again[n], theirs[n]) for n in theirs)

    save_file({f"module.{n}": a for n, a in other.items()}, tmp_path / "model.safetensors")
    loaded, _ = pretrained.load_pretrained(NAME, tmp_path / "model.safetensors")
    assert loaded.num_classes == 5
    grey = pretrained.load(NAME, tmp_path / "model.safetensors", in_channels=1, num_classes=3)
    params = grey.variables["params"]
    np.testing.assert_allclose(params["entry"]["kernel"], kernel.sum(2, keepdims=True), rtol=1e-6)
    assert params["answer"]["kernel"].shape == (64, 3) and not params["answer"]["kernel"].any()
    assert identify.identify(other) == [NAME]
    assert identify.identify(other | {"square": np.ones(1)}) == ["toy_mixer_square"]
    with pytest.raises(UserError, match=f"looks like '{NAME}'"):
        pretrained.load("toy_mixer_deep", tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="timm has no field for 'toy_mixer'"):
        pretrained.save(model, variables, tmp_path / "saved")
    again = pretrained.load(None, tmp_path / "saved")
    assert again.name == NAME and jax.tree.all(jax.tree.map(np.array_equal, again.variables, variables))


def test_what_transformers_say_of_it_is_read_or_refused(tmp_path):
    model = make(num_cells=6)
    theirs = {re.sub(r"^cells_(\d+)_", r"rooms.\1.", n).replace("answer.", "bye."): a for n, a in
              state_dict(model).items()}  # fmt: skip
    save_file(theirs, tmp_path / "model.safetensors")
    said = {"model_type": "mixer_of_toys", "num_rooms": 6, "image_size": 32, "id2label": dict.fromkeys("01234", "x")}
    for activation, wanted in (("relu", None), ("tanh", "hidden_act")):
        (tmp_path / "config.json").write_text(json.dumps(said | {"hidden_act": activation}))
        if wanted is None:
            loaded = pretrained.load(None, tmp_path)
            assert (loaded.name, loaded.model.num_cells) == ("toy_mixer_deep", 6)
        else:
            with pytest.raises(UserError, match=wanted):
                pretrained.load(None, tmp_path)


def test_it_is_explained_and_counted():
    model = make()
    names = explain.layers(model)
    assert "strange" not in names and "cells_3_out" in names
    assert explain.default_layer(model) == "cells_2_out"
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = pretrained.convert(model, state_dict(model))
    maps = np.asarray(explain.grad_cam(model, variables, images, 1))
    assert maps.shape == (2, 32, 32) and maps.max() == 1 and maps.min() == 0
    maps = explain.forward_intermediates(model, variables, images, 2, norm=True)
    assert [x.shape for x in maps] == [(2, 8, 8, 64)] * 2
    features = explain.features(model, variables, images)  # the mean after the norm, which the record names
    np.testing.assert_allclose(features, maps[-1].mean((1, 2)), atol=1e-5)
    assert explain.feature_info(model)[3] == {"module": "cells.3", "num_chs": 64, "reduction": 4}
    with pytest.raises(UserError, match="Toy has no such attention; expected .*; for any model see grad_cam"):
        explain.attention_rollout(model, variables, images)
    cells = 8 * 8 * (4 * 4 * 3 * 64 + 4 * 2 * 64 * 256)
    assert count_macs(model, (32, 32, 3)) == cells + 64 * 5
    config = tiny_config("npz:nowhere")
    config.model = {"name": NAME}
    assert smoke.reduce(config).model.width == 8
