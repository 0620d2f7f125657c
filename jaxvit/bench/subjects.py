"""What is measured: a model with the training step of a run, or its forward pass, on synthetic images."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import models, optim, tree
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.family import Family, is_head
from jaxvit.models.layers import to_pair
from jaxvit.models.macs import by_formula, count_macs
from jaxvit.step import steps
from jaxvit.step.state import create_state, init_variables

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
LEARNING_RATE = 1e-4
MEAN, STD = 0.5, 0.25  # of the synthetic images' normalisation


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is asked of each model."""

    name: str
    dtype: str = "float32"
    image_size: int | tuple[int, int] | None = None  # None: the model's own
    fields: tuple[tuple[str, Any], ...] = ()  # other fields of the model


@dataclasses.dataclass
class Subject:
    """A model with weights, and its two programs for any batch size."""

    settings: Settings
    model: Any
    image_shape: tuple[int, int, int]
    variables: Any
    macs: int

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    def training(
        self, batch_size: int, mu_dtype: str | None = None, augment: Callable = lambda key, *given: given
    ) -> tuple[Callable, Any, Any]:
        """(step to jit, donating its first argument; state; batch): AdamW on cross-entropy, uint8 images.

        State and batch are shapes only where the variables are.
        """
        params = self.variables["params"]
        trainable = optim.freeze_mask(params, "none")
        tx = optim.make_optimizer(params, name="adamw", schedule=LEARNING_RATE, trainable=trainable, mu_dtype=mu_dtype)
        step = steps.make_train_step(
            model=self.model,
            pixels=steps.Pixels(
                to_float=lambda images: images.astype(jnp.float32) / 255.0,
                normalise=lambda images: (images - MEAN) / STD,
                augment=augment,
            ),
            task=steps.Task(num_classes=self.model.num_classes),
            update=steps.Update(tx=tx, schedule=lambda step: jnp.float32(LEARNING_RATE), trainable=trainable),
        )
        make = functools.partial(create_state, tx=tx, trainable=trainable)
        if isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct):
            state = jax.eval_shape(make, self.variables, key=jax.random.key(0))
            return step, state, jax.eval_shape(lambda: self.batch(batch_size))
        return step, jax.jit(make)(self.variables, key=jax.random.key(0)), self.batch(batch_size)

    def batch(self, batch_size: int) -> dict[str, Any]:
        """Synthetic images as a data set on the device has them."""
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch_size, *self.image_shape), dtype=np.uint8)
        labels = rng.integers(0, self.model.num_classes, batch_size, dtype=np.int32)
        return jax.device_put({"image": images, "label": labels, "mask": np.ones(batch_size, bool)})

    def inference(self, batch_size: int) -> tuple[Callable, Any, Any]:
        """(function to jit, variables, images): normalised images to logits, weights in the computing dtype."""
        dtype = DTYPES[self.settings.dtype]
        variables = self.variables if dtype is None else _lowered(self.variables, dtype, registry.family_of(self.model))
        rng = np.random.default_rng(0)
        images = rng.standard_normal((batch_size, *self.image_shape), dtype=np.float32)
        return self.model.apply, variables, jax.device_put(jnp.asarray(images, dtype))

    def xla_macs(self) -> float | None:
        """Half the FLOPs that XLA counts for one image, before its own optimisations.

        None if there is no CPU to count on: a GPU's or a TPU's plugin counts compiled programs only.
        """
        images = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        model = by_formula(self.model).clone(dtype=None)
        shapes = jax.eval_shape(lambda: self.variables)
        with jax.default_device(_cpu()):
            traced = jax.jit(lambda variables, images: model.apply(variables, images)).trace(shapes, images)
            lowered = traced.lower(lowering_platforms=("tpu",))  # the CPU's own convolutions make fewer products
        cost: Any = lowered.cost_analysis()
        return cost["flops"] / 2 if cost else None


def make_subject(settings: Settings, *, abstract: bool = False) -> Subject:
    """Builds the model and draws its weights, or with `abstract` only their shapes, to compile with.

    Raises UserError for names and fields that do not exist.
    """
    fields = dict(settings.fields)
    if settings.image_size is not None:
        fields["image_size"] = settings.image_size
    model: Any = models.create_model(settings.name, dtype=DTYPES[settings.dtype], **fields)
    if not model.num_classes:
        raise UserError("a model without classes cannot be measured; leave num_classes out or set it above 0")
    shape = (*to_pair(model.image_size), model.in_channels)
    init = functools.partial(init_variables, model.clone(dtype=None), image_shape=shape)
    key = jax.random.key(0)
    variables = jax.eval_shape(init, key=key) if abstract else init(key=key)
    return Subject(settings, model, shape, variables, count_macs(model.clone(dtype=None), shape))


def _cpu() -> Any:
    """A device of the CPU; None where JAX_PLATFORMS leaves it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _lowered(variables: Any, dtype: Any, family: Family) -> Any:
    """The kernels in the computing dtype, as the modules would cast them at each call; what else there is stays.

    So do classifiers, of which some compute in float32 whatever the rest does.
    """

    def cast(path: str, leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if path.endswith("/kernel") and not is_head(family, path) else leaf

    params = tree.map_with_path(cast, variables["params"])
    return {**variables, "params": params}
