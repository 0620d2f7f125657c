"""A model as an ONNX graph, by jax2onnx: uint8 images in, logits out, any batch size."""

import importlib.metadata
import logging
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.conv_layers import BatchNorm
from jaxvit.models.layers import LayerNorm, to_pair
from jaxvit.models.macs import by_formula
from jaxvit.ops.lowering import replaced

Array = jax.Array
INPUT, OUTPUT = "images", "logits"
OPSETS = range(18, 24)  # jax2onnx 0.17 writes a ReduceMean below 18 that no checker takes, and is made for 23
OPSET = 20  # has Gelu; read by onnxruntime 1.17 (2024) and later
LIMIT = 2_000_000_000  # bytes of weights in one file: protobuf counts with 32 bits


def to_onnx(
    model: Any,
    variables: Any,
    mean: Any,
    std: Any,
    *,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Returns an ONNX file: images uint8 [batch, h, w, c] -> logits float32 [batch, num_classes], weights inside.

    The graph divides by 255 and normalises by `mean` and `std`, one number or [c], and computes in float32.

    Raises:
      UserError: the weights are too large for one file, or jax2onnx cannot write the model.
    """
    import jax2onnx
    import onnx

    need = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables))
    if need > LIMIT:
        raise UserError(f"the weights take {need:,} bytes, an ONNX file at most {LIMIT:,}; use --format safetensors")
    model, variables = plain(model), jax.tree.map(np.asarray, variables)
    shape = (*to_pair(model.image_size), model.in_channels)

    def run(images: Array) -> Array:
        with replaced(OPERATIONS), nn.intercept_methods(_as_onnx_has_it):
            return model.apply(variables, normalised(images, mean, std))

    # jax2onnx's own code promotes ranks; its notes on values without a type are no news to a user
    with jax.numpy_rank_promotion("allow"), _quiet("onnx_ir", "jax2onnx"):
        (batch,) = jax.export.symbolic_shape("batch")
        jax.eval_shape(run, jax.ShapeDtypeStruct((batch, *shape), jnp.uint8))  # what fails here is not jax2onnx's
        try:
            made = jax2onnx.to_onnx(
                run,
                [jax.ShapeDtypeStruct(("batch", *shape), jnp.uint8)],
                model_name=type(model).__name__,
                opset=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                normalization_mode="prefer_native",
            )
            onnx.checker.check_model(made, full_check=True)
        except Exception as error:  # it has no class of its own
            raise UserError(_cannot(error, opset)) from error
    made.producer_name = "jaxvit"
    for name, text in (metadata or {}).items():
        made.metadata_props.add(key=name, value=text)
    return made.SerializeToString()


def plain(model: Any) -> Any:
    """The model computing in float32 by its formula, without kernels, rematerialisation or a loop over blocks."""
    model = by_formula(model)
    fields = {"dtype": None, "remat": False, "scan": False}
    return model.clone(**{name: value for name, value in fields.items() if hasattr(model, name)})


def normalised(images: Any, mean: Any, std: Any) -> Any:
    """Pixels uint8 [b, h, w, c] -> what the model reads, float32."""
    shift, scale = (np.asarray(v, np.float32).reshape(1, 1, 1, -1) for v in (mean, std))
    return (images.astype(np.float32) / np.float32(255) - shift) / scale


def _max_pool(x: Array, size: int, stride: int, padding: int = 0) -> Array:
    if padding:
        sides = (padding, padding)
        x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=-jnp.inf)
    return nn.max_pool(x, window_shape=(size, size), strides=(stride, stride), padding="VALID")


# what jax2onnx knows by name where it would write the steps of our forms; looked up late, as it replaces these itself
OPERATIONS: dict[str, Callable[..., Array]] = {
    "exact_gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": lambda x: jax.nn.relu(x),
    "silu": lambda x: jax.nn.silu(x),
    "max_pool": _max_pool,
}


def _as_onnx_has_it(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
    """A linen interceptor: norms as the one or two operators that runtimes have fast code for."""
    module = context.module
    if context.method_name != "__call__" or type(module) not in _LAYERS:
        return call(*args, **kwargs)
    return _LAYERS[type(module)](module, args[0])


def _batch_norm(module: Any, x: Array) -> Array:
    """A factor and a sum per channel, which runtimes put into the convolution before."""
    params, stats = module.variables["params"], module.variables["batch_stats"]
    factor = np.asarray(params["scale"]) / np.sqrt(np.asarray(stats["var"]) + np.float32(module.epsilon))
    term = np.asarray(params["bias"]) - np.asarray(stats["mean"]) * factor
    factor, term = (v.reshape((1,) * (x.ndim - 1) + (-1,)) for v in (factor, term))
    return x * factor + term


def _layer_norm(module: Any, x: Array) -> Array:
    norm = nn.LayerNorm(module.epsilon, use_fast_variance=True, parent=None)  # the form that jax2onnx knows
    return norm.apply({"params": module.variables["params"]}, x)  # type: ignore[return-value]


_LAYERS: dict[type, Callable[[Any, Array], Array]] = {BatchNorm: _batch_norm, LayerNorm: _layer_norm}


def _cannot(error: Exception, opset: int) -> str:
    """One line on what jax2onnx cannot write."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    operation = said.rpartition("No plugins registered for primitive ")[2] if "primitive" in said else ""
    version = importlib.metadata.version("jax2onnx")
    why = f"it has no ONNX operators for {operation}" if operation else f"{type(error).__name__}: {said[:200]}"
    return f"jax2onnx {version} cannot write this model with opset {opset}: {why}\n--format stablehlo can"


class _quiet:  # noqa: N801
    """Loggers that say nothing for a while."""

    def __init__(self, *names: str):
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: Any) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
