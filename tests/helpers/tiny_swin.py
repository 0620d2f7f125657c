"""A Swin of two stages with weights of realistic scale."""

import jax
import numpy as np

from jaxvit.models import swin

TINY = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 5}


def tiny(**fields):
    return swin.SwinTransformer(**{**TINY, "image_size": 32, "patch_size": 4, "window_size": 4, **fields})


def images_of(h, w, batch=2):
    return np.random.default_rng(0).normal(size=(batch, h, w, 3)).astype(np.float32)


def variables_of(model, images):
    """Weights of realistic scale (the initial biases and norms are trivial), without the cost of `init`."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return np.float32(centre + 0.1 * rng.normal(size=leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), images))
