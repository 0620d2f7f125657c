"""The form of an operation is chosen when a program is lowered."""

import re

import jax
import jax.numpy as jnp
import pytest

import jaxvit
from jaxvit.ops import (
    lowering,
)
from jaxvit.runtime import platform


def test_the_form_is_chosen_when_the_program_is_lowered():
    forms = {"one": lambda x, *, by: x + by, "two": lambda x, *, by: x * by}

    def door(x):
        return lowering.by_platform(forms, {"gpu": "two", "default": "one"}, x, by=3.0)

    traced = jax.jit(door).trace(jnp.ones(2))
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda", "rocm", "tpu")}
    assert [p for p, text in texts.items() if "multiply" in text] == ["cuda", "rocm"]
    assert [p for p, text in texts.items() if "stablehlo.add" in text] == ["cpu", "tpu"]


def test_operations_are_replaced_for_formats_without_platforms():
    forms = {"one": lambda x: x + 3, "two": lambda x: x * 3}

    @lowering.replaceable
    def double(x):
        return 2 * x

    def run(x):
        return lowering.by_platform(forms, {"cpu": "two", "default": "one"}, double(x))

    with lowering.replaced({"double": lambda x: 10 * x}):
        made = jax.make_jaxpr(lambda x: run(x))(1.0)
        assert run(1.0) == 13
    assert [e.primitive.name for e in made.eqns] == ["mul", "add"]  # no choice of platform
    assert run(1.0) == 6 and "platform_index" in str(jax.make_jaxpr(lambda x: run(x))(1.0))


MODELS = {
    "vit_tiny_patch16_224": {"image_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 4},
    "swin_tiny_patch4_window7_224": {"image_size": 32, "embed_dim": 16, "depths": (2,), "num_heads": (2,),
                                     "window_size": 4},
    "resnet50": {"image_size": 32, "layers": (1, 1), "channels": (16, 16)},
    "vgg11_bn": {"image_size": 28, "cfg": (16, "M", 16, "M"), "head_hidden_size": 16},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("open_batch", [True, False])
def test_a_model_exported_on_a_laptop_is_the_one_exported_on_a_gpu(name, open_batch):
    model = jaxvit.create_model(name, num_classes=3, **MODELS[name])
    batch = jax.export.symbolic_shape("batch")[0] if open_batch else 2
    images = jax.ShapeDtypeStruct((batch, model.image_size, model.image_size, 3), jnp.float32)
    here = jax.ShapeDtypeStruct((2, *images.shape[1:]), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), here)

    def exported(kind):
        with platform.made_for(kind):
            run = jax.jit(lambda v, x: model.apply(v, x))
            made = jax.export.export(run, platforms=("cpu", "cuda", "tpu"))(variables, images)
        return re.sub(r"loc\(.*\)|#loc.*", "", str(made.mlir_module()))

    texts = [exported(kind) for kind in ("cpu", "gpu")]
    assert texts[0] == texts[1]
    assert "attn" not in name or "case" in texts[0]
