"""What the logit loses where parts of an image are hidden: occlusion and LIME. Forward passes only: for any model."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError, check_number, check_whole, shown
from jaxvit.explain import taps
from jaxvit.models.layers import Array, to_pair

Pair = tuple[int, int]
Progress = Callable[[int], None]
BATCH = 32  # images in a pass; the last pass is filled up, so that one program is compiled


@partial(jax.jit, static_argnames=("model",))
def _logits(variables: Any, image: Array, fill: Array, keep: Array, index: Array, *, model: Any) -> Array:
    """Logits [n] of a class for one image [h, w, c] that shows only what `keep` [n, h, w] keeps."""
    logits = model.apply(variables, jnp.where(keep[..., None], image, fill))
    return logits[:, index].astype(jnp.float32)


def _hidden(
    model: nn.Module,
    variables: Any,
    images: Array,
    index: Array,
    masks: Callable[[np.ndarray], np.ndarray],
    count: int,
    fill: Any,
    batch: int,
    progress: Progress | None,
) -> np.ndarray:
    """Logits [b, count] under masks: numbers of masks [n] -> what is kept, bool [n, h, w]."""
    filling = taps.broadcast("fill", fill, images)
    check_whole("batch", batch)
    batch, logits = min(batch, count), np.zeros((len(images), count), np.float32)
    for start in range(0, count, batch):
        rows = np.arange(start, min(start + batch, count))
        keep = jnp.asarray(masks(np.resize(rows, batch)))
        for i in range(len(images)):
            found = _logits(variables, images[i], filling[i], keep, index[i], model=model)
            logits[i, rows] = np.asarray(found)[: len(rows)]
            if progress is not None:
                progress(len(rows))
    return logits


def occlusion_windows(size: Pair, patch: int | Pair | None = None, stride: int | Pair | None = None) -> np.ndarray:
    """Windows of occlusion as int [n, 4]: top, left, bottom, right in pixels, row by row.

    `patch` is (height, width), a seventh of `size` by default; `stride` is half of it by default. The last windows of
    rows and columns end with the image. Raises UserError for a patch that does not fit and a stride that leaves gaps.
    """
    for word, value in (("patch", patch), ("stride", stride)):
        good = isinstance(value, int) or (isinstance(value, tuple | list) and len(value) == 2)
        if value is not None and not (good and all(isinstance(side, int) for side in to_pair(value))):
            raise UserError(f"{word} is {shown(value)}; expected pixels, one number or (height, width).")
    patch = to_pair(patch) if patch is not None else (-(-size[0] // 7), -(-size[1] // 7))
    stride = to_pair(stride) if stride is not None else (max(patch[0] // 2, 1), max(patch[1] // 2, 1))
    for side, p, s in zip(size, patch, stride, strict=True):
        if not 1 <= p <= side:
            raise UserError(f"patch={patch} does not fit into images of {size[0]}x{size[1]}.")
        if not 1 <= s <= p:
            raise UserError(f"stride={stride} is not between 1 and the patch {patch}: it would leave gaps.")
    tops, lefts = ([*range(0, side - p, s), side - p] for side, p, s in zip(size, patch, stride, strict=True))
    return np.array([(t, x, t + patch[0], x + patch[1]) for t in tops for x in lefts])


def occlusion(
    model: nn.Module,
    variables: Any,
    images: Any,
    class_index: Any = None,
    *,
    patch: int | Pair | None = None,
    stride: int | Pair | None = None,
    fill: Any = 0.0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> np.ndarray:
    """Returns how far a class's logit falls where a patch hides the image, [b, h, w] (Zeiler and Fergus, 2014).

    A pixel has the mean fall over the windows that cover it; a negative one means that what is there speaks against
    the class. The logit is taken rather than the paper's probability, which hardly moves where the model is sure.

    Args:
      model: any with fields num_classes and in_channels.
      variables: its variables.
      images: [b, h, w, c], normalised as the model takes them.
      class_index: an int or [b]; None for the predicted class of each.
      patch: (height, width) in pixels; a seventh of the image by default: 32 of 224.
      stride: (down, across) in pixels; half of the patch by default.
      fill: what hides, broadcast to images; 0 is the mean colour of the training images.
      batch: images in a forward pass.
      progress: called with the number of passes done since the last call.

    Raises:
      UserError: images or a class that the model does not have, a patch or stride that does not fit.
    """
    model, images, index = taps.prepare(model, variables, images, class_index)
    windows = occlusion_windows(taps.size_of(images), patch, stride)
    (h, w), y, x = taps.size_of(images), np.arange(images.shape[1]), np.arange(images.shape[2])

    def masks(rows: np.ndarray) -> np.ndarray:
        top, left, bottom, right = windows[rows].T[:, :, None]
        return ~(((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :])

    whole = np.asarray(_whole(variables, images, index, model=model))
    logits = _hidden(model, variables, images, index, masks, len(windows), fill, batch, progress)
    total, times = np.zeros((len(images), h, w), np.float32), np.zeros((h, w), np.float32)
    for (top, left, bottom, right), fall in zip(windows, (whole[:, None] - logits).T, strict=True):
        total[:, top:bottom, left:right] += fall[:, None, None]
        times[top:bottom, left:right] += 1
    return total / times


@partial(jax.jit, static_argnames=("model",))
def _whole(variables: Any, images: Array, index: Array, *, model: Any) -> Array:
    return taps.pick_logits(model.apply(variables, images), index).astype(jnp.float32)


def grid_segments(size: Pair, across: int = 7) -> np.ndarray:
    """Segments of an image as int [h, w], row by row: about square, `across` along the shorter side."""
    down, right = (max(1, min(side, round(across * side / min(size)))) for side in size)
    return (np.arange(size[0]) * down // size[0])[:, None] * right + np.arange(size[1]) * right // size[1]


class Lime(NamedTuple):
    """A linear model of a network around each image."""

    maps: np.ndarray  # [b, h, w]: the weight of each pixel's segment
    weights: np.ndarray  # [b, segments]: what the logit has of each segment
    fit: (
        np.ndarray
    )  # [b]: R^2 of the linear model on the weighted samples; a low one says that the map is not to be trusted


def lime(
    model: nn.Module,
    variables: Any,
    images: Any,
    class_index: Any = None,
    *,
    segments: Any = None,
    samples: int = 512,
    kernel_width: float = 0.25,
    penalty: float = 1.0,
    fill: Any = 0.0,
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> Lime:
    """Returns the weight of each segment in a linear model of the logit around each image (Ribeiro et al., 2016, LIME).

    Random halves of the segments are hidden; a ridge regression of the logits on what was kept, where samples near to
    the whole image weigh more, exp(-d^2 / kernel_width^2) with the cosine distance d, gives the weights. The first
    sample is the whole image. All images see the same samples, and the same seed gives the same bits.

    Args:
      model: any with fields num_classes and in_channels.
      variables: its variables.
      images: [b, h, w, c], normalised as the model takes them.
      class_index: an int or [b]; None for the predicted class of each.
      segments: int [h, w], numbers from 0, for example superpixels of `skimage.segmentation.slic(image, start_label=0)`
        of one image; by default a grid of 7 x 7, longer sides having more.
      samples: how many forward passes for each image; ten for each segment or more.
      kernel_width: of the weights of samples.
      penalty: of the ridge regression (scikit-learn's `alpha`).
      fill: what hides, broadcast to images; 0 is the mean colour of the training images.
      seed: of the samples.
      batch: images in a forward pass.
      progress: called with the number of passes done since the last call.

    Raises:
      UserError: images or a class that the model does not have, segments of another shape, too few samples.
    """
    model, images, index = taps.prepare(model, variables, images, class_index)
    segments = grid_segments(taps.size_of(images)) if segments is None else _check_segments(segments, images)
    count = int(segments.max()) + 1
    check_whole("samples", samples, 2)
    check_whole("seed", seed, 0)
    check_number("penalty", penalty)
    check_number("kernel_width", kernel_width, 1e-6)
    from sklearn.linear_model import Ridge

    kept = np.random.default_rng(seed).integers(0, 2, (samples, count), dtype=np.int8)
    kept[0] = 1
    logits = _hidden(
        model, variables, images, index, lambda rows: kept[rows][:, segments] == 1, samples, fill, batch, progress
    )
    near = np.exp(-((1 - np.sqrt(kept.mean(1, dtype=np.float64))) ** 2) / kernel_width**2)
    inputs, outputs = kept.astype(np.float64), logits.T.astype(np.float64)
    ridge = Ridge(alpha=penalty).fit(inputs, outputs, sample_weight=near)
    weights = np.asarray(ridge.coef_).reshape(len(images), count)
    left, mean = outputs - ridge.predict(inputs).reshape(outputs.shape), np.average(outputs, axis=0, weights=near)
    spread = near @ (outputs - mean) ** 2
    fit = 1 - near @ left**2 / np.where(spread > 0, spread, 1)
    return Lime(weights[:, segments].astype(np.float32), weights.astype(np.float32), fit.astype(np.float32))


def _check_segments(segments: Any, images: Array) -> np.ndarray:
    segments, size = np.asarray(segments), taps.size_of(images)
    if segments.shape != size or not np.issubdtype(segments.dtype, np.integer) or segments.min() < 0:
        raise UserError(
            f"segments are {segments.dtype} {list(segments.shape)}; expected whole numbers from 0, {list(size)}."
        )
    return np.unique(segments, return_inverse=True)[1].reshape(size)  # without gaps in the numbers


def evidence(maps: Any) -> np.ndarray:
    """What speaks for the class, as [b, h, w] in [0, 1]: negative values are 0, the largest of each map is 1."""
    maps = np.maximum(np.asarray(maps, np.float32), 0)
    most = maps.max((1, 2), keepdims=True)
    return maps / np.where(most > 0, most, 1)
