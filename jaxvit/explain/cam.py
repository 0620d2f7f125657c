"""Class activation maps: where a model looks for a class, from one layer's output and its gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.errors import UserError, shown, suggest
from jaxvit.explain import taps
from jaxvit.explain.pixels import PIXEL_METHODS
from jaxvit.models.layers import Array


def gradcam(a: Array, g: Array) -> Array:
    """Channels weighted by their mean gradient (Selvaraju et al., 2017)."""
    return jnp.einsum("bhwc,bc->bhw", a, jnp.mean(g, axis=(1, 2)))


def gradcam_plus_plus(a: Array, g: Array) -> Array:
    """Channels weighted by their positive gradients, each shared among its cells (Chattopadhay et al., 2018, eq. 19).

    The paper's activations come from a ReLU; of others, as in transformers, the positive part is summed.
    """
    total = jnp.sum(jax.nn.relu(a), axis=(1, 2), keepdims=True)
    positive = jax.nn.relu(g)
    alpha = jnp.where(positive > 0, 1 / (2 + total * positive), 0.0)  # g^2 / (2 g^2 + sum(a) g^3)
    return jnp.einsum("bhwc,bc->bhw", a, jnp.sum(alpha * positive, axis=(1, 2)))


def hirescam(a: Array, g: Array) -> Array:
    """Gradient times activation, cell by cell (Draelos and Carin, 2020)."""
    return jnp.sum(a * g, axis=-1)


def layercam(a: Array, g: Array) -> Array:
    """Positive gradient times activation, cell by cell (Jiang et al., 2021)."""
    return jnp.sum(a * jax.nn.relu(g), axis=-1)


def eigencam(a: Array, g: Array) -> Array:
    """The first principal component of the activations (Muhammad and Yeasin, 2020); no class, no gradient.

    Its sign is open: the side that reaches further from the mean counts as the object.
    """
    b, h, w, c = a.shape
    x = a.reshape(b, h * w, c)
    x = x - jnp.mean(x, axis=1, keepdims=True)
    if c < h * w:
        _, vectors = jnp.linalg.eigh(jnp.einsum("bnc,bnd->bcd", x, x))
        y = jnp.einsum("bnc,bc->bn", x, vectors[:, :, -1])
    else:
        values, vectors = jnp.linalg.eigh(jnp.einsum("bnc,bmc->bnm", x, x))
        y = vectors[:, :, -1] * jnp.sqrt(jnp.maximum(values[:, -1:], 0.0))
    flip = jnp.max(-y, axis=1, keepdims=True) > jnp.max(y, axis=1, keepdims=True)
    return jnp.where(flip, -y, y).reshape(b, h, w)


# (activations, gradients), [b, h, w, c] each -> [b, h, w]; only what is positive speaks for the class
CAM_METHODS: dict[str, Callable[[Array, Array], Array]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "layercam": layercam,
    "eigencam": eigencam,
}
METHODS: tuple[str, ...] = (*CAM_METHODS, *PIXEL_METHODS)


@partial(jax.jit, static_argnames=("model", "method", "layer"))
def _cam(variables: Any, images: Array, class_index: Array, *, model: Any, method: str, layer: str) -> Array:
    size = taps.size_of(images)

    def score(perturbation: Array) -> tuple[Array, Array]:
        logits, x = taps.run(model, variables, images, layer, perturbation)
        return jnp.sum(taps.pick_logits(logits, class_index)), x

    output = jax.eval_shape(lambda: taps.run(model, variables, images, layer)[1])
    x, g = jnp.zeros(output.shape, output.dtype), None
    if method == "eigencam":
        x = taps.run(model, variables, images, layer)[1]
        g = jnp.zeros_like(x)
    else:
        (_, x), g = jax.value_and_grad(score, has_aux=True)(x)
    maps = CAM_METHODS[method](taps.to_map(model, x, size), taps.to_map(model, g, size))
    return taps.to_unit(taps.to_pixels(model, jax.nn.relu(maps), size))


def grad_cam(
    model: nn.Module,
    variables: Any,
    images: Any,
    class_index: Any = None,
    method: str = "gradcam",
    layer: str | None = None,
) -> Array:
    """Returns where the model sees a class: float32 [b, h, w] in [0, 1], each map scaled to its own maximum.

    `images` [b, h, w, c] are normalised as the model takes them; `class_index` is an int or [b], None for the
    predicted class of each; `method` one of METHODS; `layer` one of `layers(model)`, None for the default of the
    family. A map without any evidence for the class is all zeros. Compiled once per model, method and layer.
    Raises UserError on a class, method or layer that does not exist.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(f"no method {shown(method)}; expected {', '.join(METHODS)}.{suggest(str(method), METHODS)}")
    model, images = taps.plain(model), taps.check_inputs(model, variables, images)
    index = taps.check_classes(model, class_index, images.shape[0])
    if method in PIXEL_METHODS:
        if layer is not None:
            raise UserError(f"method {method!r} explains pixels, not layer {layer!r}; expected layer=None.")
        return PIXEL_METHODS[method](model, variables, images, class_index)
    layer = taps.check_layer(model, layer, taps.size_of(images))
    return _cam(variables, images, index, model=model, method=method, layer=layer)
