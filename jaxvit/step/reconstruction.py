"""The objective of a masked autoencoder (He et al., 2022): the pixels of the patches that it has not seen."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
EPS = 1e-6  # added to the variance of a patch, as in the authors' code


def patchify(images: Array, patch_size: tuple[int, int]) -> Array:
    """Images [b, h, w, c] to patches row by row, [b, n, ph * pw * c]; pixels that fill no patch are left out."""
    (ph, pw), (b, h, w, c) = patch_size, images.shape
    gh, gw = h // ph, w // pw
    x = images[:, : gh * ph, : gw * pw].reshape(b, gh, ph, gw, pw, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, gh * gw, ph * pw * c)


def unpatchify(patches: Array, patch_size: tuple[int, int], grid: tuple[int, int]) -> Array:
    """The inverse of `patchify`: [b, gh * gw, ph * pw * c] -> [b, gh * ph, gw * pw, c]."""
    (ph, pw), (gh, gw), b = patch_size, grid, patches.shape[0]
    x = patches.reshape(b, gh, gw, ph, pw, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, gh * ph, gw * pw, -1)


def patch_moments(patches: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the values of each patch, [b, n, 1] each; the variance is the unbiased one."""
    mean = jnp.mean(patches, axis=-1, keepdims=True)
    return mean, jnp.sqrt(jnp.var(patches, axis=-1, keepdims=True, ddof=1) + EPS)


def reconstruction_loss(predicted: Array, patches: Array, masked: Array, *, norm_pix: bool) -> Array:
    """Mean squared error over the masked patches of each image: [b, n, values] twice, bool [b, n] -> [b].

    With `norm_pix` the target is each patch less its mean, over its standard deviation.
    """
    if norm_pix:
        mean, std = patch_moments(patches)
        patches = (patches - mean) / std
    of_patch = jnp.mean(jnp.square(predicted - patches), axis=-1)
    return jnp.sum(of_patch * masked, axis=-1) / jnp.sum(masked, axis=-1)


def make_objective(
    patch_size: tuple[int, int], *, norm_pix: bool
) -> Callable[[Any, Mapping[str, Array]], tuple[Array, Any]]:
    """Returns ((predicted, masked), {"images": normalised}) -> (loss [b], None): there are no logits."""

    def objective(outputs: Any, batch: Mapping[str, Array]) -> tuple[Array, Any]:
        predicted, masked = outputs
        return reconstruction_loss(predicted, patchify(batch["images"], patch_size), masked, norm_pix=norm_pix), None

    return objective


def painted(predicted: Array, images: Array, masked: Array, patch_size: tuple[int, int], *, norm_pix: bool) -> Array:
    """Images [b, h, w, c] in which the masked patches [b, n] are those `predicted`.

    With `norm_pix`, which leaves the mean and the contrast of a patch open, they are those of the true patch.
    """
    patches = patchify(images, patch_size)
    if norm_pix:
        mean, std = patch_moments(patches)
        predicted = predicted * std + mean
    (ph, pw), (_, h, w, _) = patch_size, images.shape
    whole = unpatchify(jnp.where(masked[:, :, None], predicted, patches), patch_size, (h // ph, w // pw))
    return jnp.asarray(images).at[:, : whole.shape[1], : whole.shape[2]].set(whole)
