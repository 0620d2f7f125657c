"""Tiny models of every family with variables of realistic scale, for the tests of explanations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.models import create_model

FIELDS = {
    "alexnet": {"image_size": (96, 128), "head_hidden_size": 16},
    "vgg11": {"image_size": (64, 96), "cfg": (4, "M", 8, "M", 8, "M"), "head_hidden_size": 16},
    "resnet18": {"image_size": (32, 48), "layers": (1,), "channels": (8,), "stem": "cifar"},
    "vit_tiny_patch16_224": {"image_size": (32, 48), "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
    "deit_tiny_distilled_patch16_224": {
        "image_size": (32, 48), "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2,
    },
    "swin_tiny_patch4_window7_224": {
        "image_size": (32, 48), "window_size": 3, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 4),
    },
    "vit_small_patch16_dinov3": {
        "image_size": (32, 48), "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_reg_tokens": 2,
    },
    "swinv2_tiny_window8_256": {
        "image_size": (32, 48), "window_size": 3, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 4),
    },
    "convnext_atto": {"image_size": (32, 48), "patch_size": 1, "depths": (1, 1, 1, 1), "dims": (4, 8, 8, 16)},
}  # fmt: skip
FAMILIES = tuple(FIELDS)
RESNET, VIT, DEIT, SWIN, EVA, SWIN_V2, CONVNEXT = FAMILIES[2:]


@functools.cache
def make(name, **fields):
    """Returns (model, variables, images [3, h, w, 3]); weights of unit gain, so that maps are not flat."""
    model = create_model(name, num_classes=5, **{**FIELDS[name], **fields})
    size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    images = np.random.default_rng(0).normal(size=(3, *size, 3)).astype(np.float32)
    rng = np.random.default_rng(1)

    def leaf(path, x):
        name = path[-1].key
        noise = rng.normal(size=x.shape) / np.sqrt(max(np.prod(x.shape[:-1]), 1))
        return jnp.asarray({"scale": 1 + 0.1 * noise, "var": 1 + 0.1 * np.abs(noise)}.get(name, noise), jnp.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return model, jax.tree_util.tree_map_with_path(leaf, shapes), images


class Linear(nn.Module):
    """Logits that are sums over pixels, with answers known by hand; of no family."""

    num_classes: int = 3
    in_channels: int = 2
    image_size: tuple[int, int] = (12, 20)
    use_bias: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes, use_bias=self.use_bias, name="head")(x.reshape(x.shape[0], -1))
