"""Train steps of tiny models on a batch of noise, and how many products a program has."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import create_model, optim
from jaxvit.build.parts import make_normalise, make_to_float
from jaxvit.data.augment.compose import make_augment
from jaxvit.ops import macs
from jaxvit.step import gradients, steps
from jaxvit.step.state import create_state, init_variables

MODELS = {
    "vit": ("vit_tiny_patch16_224", {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}),
    "one block": ("vit_tiny_patch16_224", {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}),
    "swin": ("swin_tiny_patch4_window7_224", {"patch_size": 2, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2),
                                              "window_size": 2}),
}  # fmt: skip


def build(
    family="vit",
    *,
    learning_rate=0.1,
    freeze="none",
    augment=True,
    average=None,
    axis_name=None,
    drop_rate=0.0,
    proj_drop_rate=0.0,
    optimizer="sgd",
    **gradient,
):
    """`gradient` are words of gradients.make_gradient; `augment` and `learning_rate` may be functions."""
    name, fields = MODELS[family]
    rates = {"drop_rate": drop_rate, "proj_drop_rate": proj_drop_rate, "drop_path_rate": 0.0}
    model = create_model(name, num_classes=3, image_size=8, **rates, **fields)
    variables = init_variables(model, jax.random.key(0), (8, 8, 3))
    trainable = optim.freeze_mask(variables["params"], freeze)
    momentum = {"momentum": 0.0} if optimizer == "sgd" else {}
    tx = optim.make_optimizer(
        variables["params"], name=optimizer, **momentum, schedule=learning_rate, trainable=trainable
    )
    pixels = steps.Pixels(
        to_float=make_to_float(3),
        normalise=make_normalise((8, 8), "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        augment=augment if callable(augment) else make_augment({"flip": True, "crop_padding": 1} if augment else {}),
    )
    update = steps.Update(
        tx=tx,
        schedule=learning_rate if callable(learning_rate) else lambda step: jnp.float32(learning_rate),
        trainable=trainable,
        gradient=gradients.make_gradient(**gradient),
        **({"average": average} if average else {}),
    )
    task = steps.Task(num_classes=3, label_smoothing=0.1)
    step = steps.make_train_step(model=model, pixels=pixels, task=task, update=update, axis_name=axis_name)
    state = create_state(variables, tx, trainable, jax.random.key(1), ema=average is not None)
    return state, step, steps.make_eval_step(model=model, pixels=pixels), variables


def batch(n=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, 3, n), jnp.int32),
        "mask": jnp.ones(n, bool),
    }


def products(jaxpr):
    """Number of matmuls and convolutions in a jaxpr; of branches for several platforms, one runs."""
    total = 0
    for equation in jaxpr.eqns:
        total += macs.is_product(equation.primitive)
        if equation.primitive.name == "cond":
            total += max(products(branch.jaxpr) for branch in equation.params["branches"])
            continue
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            total += products(inner) if hasattr(inner, "eqns") else 0
    return total


RESNET = {"layers": (1, 1), "channels": (4, 4), "block": "basic", "stem": "cifar", "drop_rate": 0.5}


def resnet(freeze="none", remat=False, **gradient):
    """State, compiled step and model of a ResNet with BatchNorm and dropout."""
    model = create_model("resnet18", num_classes=3, image_size=8, remat=remat, **RESNET)
    variables = init_variables(model, jax.random.key(0), (8, 8, 3))
    trainable = optim.freeze_mask(variables["params"], freeze)
    tx = optim.make_optimizer(variables["params"], name="sgd", schedule=0.1, trainable=trainable)
    step = steps.make_train_step(
        model=model,
        pixels=steps.Pixels(to_float=make_to_float(3), normalise=lambda x: x, augment=make_augment({"flip": True})),
        task=steps.Task(num_classes=3),
        update=steps.Update(
            tx=tx,
            schedule=lambda step: jnp.float32(0.1),
            trainable=trainable,
            gradient=gradients.make_gradient(**gradient),
        ),
    )
    return create_state(variables, tx, trainable, jax.random.key(1)), jax.jit(step), model
