"""Pictures of features: the first three principal components of a layer's map as red, green and blue."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxvit.errors import UserError
from jaxvit.explain import taps
from jaxvit.models.layers import Array

COLOURS = 3
PERCENTILES = (1.0, 99.0)  # of a component's values, which become 0 and 1: a few extreme cells take no contrast


def layer_maps(model: nn.Module, variables: Any, images: Any, layer: str | None = None) -> Array:
    """Returns a layer's output as a float32 map [b, mh, mw, c]; of tokens those of patches, in rows and columns.

    `layer` is one of `layers(model)`, None for the default of the family. Raises UserError for one that is not.
    """
    model, images = taps.plain(model), taps.check_inputs(model, variables, images)
    layer = taps.check_layer(model, layer, taps.size_of(images))
    return _layer_maps(variables, images, model=model, layer=layer)


@partial(jax.jit, static_argnames=("model", "layer"))
def _layer_maps(variables: Any, images: Array, *, model: Any, layer: str) -> Array:
    return taps.to_map(model, taps.run(model, variables, images, layer)[1], taps.size_of(images))


class Components(NamedTuple):
    """Maps along their principal components, the one of most variance first."""

    values: np.ndarray  # float32 [b, mh, mw, 3]; zeros for components beyond the rank
    shares: np.ndarray  # [b, 3]: of the variance


def principal_components(maps: Any, *, together: bool = False) -> Components:
    """Returns the first three principal components of the cells of maps [b, mh, mw, c].

    The components are those of each map, or with `together` those of all: a colour then means the same in every
    picture. Signs are those of scikit-learn: the largest loading of each component is positive.
    """
    maps = np.asarray(maps, np.float64)
    if maps.ndim != 4 or not maps.size:
        raise UserError(f"maps have shape {maps.shape}; expected [b, h, w, c] with at least one map.")
    b, h, w, c = maps.shape
    groups = [_project(x) for x in (maps.reshape(1, -1, c) if together else maps.reshape(b, -1, c))]
    values = np.concatenate([values for values, _ in groups]).reshape(b, h, w, COLOURS)
    return Components(values.astype(np.float32), np.resize(np.stack([shares for _, shares in groups]), (b, COLOURS)))


def _project(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells [n, c] -> (their values [n, 3], shares of the variance [3])."""
    x = x - x.mean(0)
    wide = x.shape[1] > x.shape[0]
    spread, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)  # ascending, of the smaller of the two
    total, found = spread.clip(0).sum(), min(COLOURS, len(spread))
    values, shares = np.zeros((len(x), COLOURS)), np.zeros(COLOURS)
    for k in range(found):
        size, vector = spread[-1 - k], vectors[:, -1 - k]
        if size <= 1e-10 * total:  # rounding, not a component
            break
        axis = x.T @ vector / np.sqrt(size) if wide else vector
        values[:, k] = x @ axis * np.sign(axis[np.abs(axis).argmax()])
        shares[k] = size / total
    return values, shares


def component_pictures(
    model: nn.Module, components: Components, size: tuple[int, int], *, together: bool = False
) -> Any:
    """Returns components as pictures of `size` (height, width), [b, h, w, 3] in [0, 1]: red, green, blue.

    Each component spans its range, of each map or with `together` of all; one without variance is 0.5.
    """
    values = components.values
    axes = (0, 1, 2) if together else (1, 2)
    low, high = np.percentile(values, PERCENTILES, axis=axes, keepdims=True)
    span = high - low
    unit = np.where(span > 0, np.clip((values - low) / np.where(span > 0, span, 1), 0, 1), 0.5).astype(np.float32)
    b, h, w, _ = unit.shape
    planes = taps.to_pixels(model, unit.transpose(0, 3, 1, 2).reshape(b * COLOURS, h, w), size)  # type: ignore[arg-type]
    return np.asarray(planes).reshape(b, COLOURS, *size).transpose(0, 2, 3, 1).clip(0, 1)


def pca(
    model: nn.Module, variables: Any, images: Any, layer: str | None = None, *, together: bool = False
) -> np.ndarray:
    """Returns pictures of what a layer tells apart: float32 [b, h, w, 3] in [0, 1] (as Oquab et al., 2023, DINOv2).

    The first three principal components of the layer's cells are red, green and blue; places of one colour are alike
    to the model. `layer` is one of `layers(model)`, None for the default of the family; `together` fits over all
    images, so that colours can be compared between them. Raises UserError for a layer that does not exist.
    """
    components = principal_components(layer_maps(model, variables, images, layer), together=together)
    return component_pictures(model, components, taps.size_of(np.asarray(images)), together=together)
