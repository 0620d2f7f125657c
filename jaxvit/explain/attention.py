"""What transformers attend to: rollout, class-token maps, Swin's windows on the image, distances."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import tree
from jaxvit.errors import UserError, check_number, shown, suggest
from jaxvit.explain import taps, windows
from jaxvit.models.family import AFTER, num_blocks, place
from jaxvit.models.layers import Array, to_pair
from jaxvit.models.registry import FAMILIES, family_of

# How the heads of a block become one: [b, heads, ...] -> [b, ...].
FUSIONS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda x: jnp.mean(x, axis=1),
    "max": lambda x: jnp.max(x, axis=1),
    "min": lambda x: jnp.min(x, axis=1),
}


def attention_weights(model: nn.Module, variables: Any, images: Any) -> list[Array]:
    """The attention weights of each block, first to last, float32.

    ViT: [b, heads, queries, keys], prefix tokens first. Swin: [b, windows, heads, queries, keys], the windows of
    the map as the block shifted and padded it. Raises UserError for models without attention.
    """
    _check_attention(model)
    return _weights(variables, taps.check_inputs(model, variables, images), model=taps.plain(model))[0]


@partial(jax.jit, static_argnames=("model",))
def _weights(variables: Any, images: Array, *, model: Any) -> tuple[list[Array], Array | None]:
    return _sown(model, variables, images)


def _sown(model: Any, variables: Any, images: Array) -> tuple[list[Array], Array | None]:
    """Weights per block; and those of the pooling by attention, [b, heads, 1, n], if the model has it."""
    _, seen = model.apply(variables, images, mutable=["intermediates"])
    family, blocks = family_of(model), {}
    for path, weights in tree.named_leaves(seen["intermediates"]).items():
        if "attn_weights" in path.split("/"):
            blocks.setdefault(place(family, path), []).append(weights.astype(jnp.float32))
    pool = blocks.pop(AFTER, [None])[0]
    # Attentions side by side count as more heads of one block.
    parts = [blocks[numbers] for numbers in sorted(blocks)]
    return [part[0] if len(part) == 1 else jnp.concatenate(part, axis=1) for part in parts], pool


def attention_rollout(
    model: nn.Module,
    variables: Any,
    images: Any,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
) -> Array:
    """Attention followed through all blocks of a ViT (Abnar and Zuidema, 2020): float32 [b, h, w] in [0, 1].

    Each block's heads are fused ("mean", "max", "min"), half of the residual identity is added, and the rows of
    the product that the classifier reads give the map. `discard_ratio` in [0, 1) drops that share of the smallest
    weights between patches of each block; those to prefix tokens stay. UserError for other models and options.
    """
    _check_attention(model, "tokens")
    _check_fusion(head_fusion)
    check_number("discard_ratio", discard_ratio)
    if discard_ratio >= 1:
        raise UserError(f"discard_ratio={discard_ratio} is not in [0, 1).")
    images = taps.check_inputs(model, variables, images)
    return _rollout(
        variables, images, model=taps.plain(model), head_fusion=head_fusion, discard_ratio=float(discard_ratio)
    )


@partial(jax.jit, static_argnames=("model", "head_fusion", "discard_ratio"))
def _rollout(variables: Any, images: Array, *, model: Any, head_fusion: str, discard_ratio: float) -> Array:
    size, prefix = taps.size_of(images), model.num_prefix_tokens
    blocks, pool = _sown(model, variables, images)
    joint = None
    for weights in blocks:
        # Differential attention subtracts maps; only what is attended to is followed.
        fused = _discard(jax.nn.relu(FUSIONS[head_fusion](weights)), discard_ratio, prefix)
        mixed = fused / jnp.maximum(jnp.sum(fused, axis=-1, keepdims=True), 1e-12) + jnp.eye(fused.shape[-1])[None]
        joint = mixed / 2 if joint is None else mixed / 2 @ joint
    if joint is None:
        raise UserError("the model has no blocks, so there is no attention to roll out.")
    rows = jnp.einsum("bn,bnm->bm", _readers(model, pool, joint), joint)
    maps = rows[:, prefix:].reshape(rows.shape[0], *taps.grid(model, size))
    return taps.to_unit(taps.to_pixels(model, maps, size))


def _discard(weights: Array, ratio: float, prefix: int) -> Array:
    """Zeroes the smallest `ratio` of the weights from patch to patch of each image: [b, n, n] -> [b, n, n]."""
    b, n, _ = weights.shape
    drop = int(ratio * (n - prefix) * n)
    if not drop:
        return weights
    limit = jnp.sort(weights[:, :, prefix:].reshape(b, -1), axis=-1)[:, drop].reshape(b, 1, 1)
    patches = jnp.arange(n)[None, None, :] >= prefix
    return jnp.where(patches & (weights < limit), 0.0, weights)


def _readers(model: Any, pool: Array | None, joint: Array) -> Array:
    """How much the classifier reads of each token: [b, n], summing to 1."""
    b, n, _ = joint.shape
    if pool is not None:
        return jnp.pad(jnp.mean(pool[:, :, 0], axis=1), ((0, 0), (n - pool.shape[-1], 0)))
    read, share = family_of(model).tokens_read, np.zeros(n, np.float32)
    chosen = slice(model.num_prefix_tokens, None) if read is None else read(model)
    share[chosen] = 1 / len(share[chosen])
    return jnp.broadcast_to(share, (b, n))


def attention_maps(
    model: nn.Module, variables: Any, images: Any, block: int = -1, head_fusion: str | None = None
) -> Array:
    """One block's attention per head on the image, float32 [b, heads, h, w] in [0, 1]; [b, h, w] with `head_fusion`.

    ViT: what the class token attends to (without one: what the patches attend to on average). Swin: the attention
    each place receives within its window, the windows stitched and the shift undone. `block` counts over all
    stages, -1 is the last. Raises UserError for models without attention and for blocks that do not exist.
    """
    _check_attention(model)
    if head_fusion is not None:
        _check_fusion(head_fusion)
    depth = num_blocks(family_of(model), model)
    if not isinstance(block, int | np.integer) or not -depth <= block < depth:
        raise UserError(
            f"block {shown(block)} is out of range; the model's blocks are 0 to {depth - 1}, or -1 for the last."
        )
    images = taps.check_inputs(model, variables, images)
    return _maps(variables, images, model=taps.plain(model), block=block % depth, head_fusion=head_fusion)


@partial(jax.jit, static_argnames=("model", "block", "head_fusion"))
def _maps(variables: Any, images: Array, *, model: Any, block: int, head_fusion: str | None) -> Array:
    size = taps.size_of(images)
    weights = _sown(model, variables, images)[0][block]
    if taps.attention_of(model) == "windows":
        maps = windows.received(weights, windows.block_windows(model, size)[block])
    else:
        maps = _token_maps(model, weights, size)
    maps = maps if head_fusion is None else FUSIONS[head_fusion](maps)[:, None]
    b, heads, *cells = maps.shape
    maps = taps.to_unit(taps.to_pixels(model, maps.reshape(b * heads, *cells), size)).reshape(b, heads, *size)
    return maps if head_fusion is None else maps[:, 0]


def _token_maps(model: Any, weights: Array, size: tuple[int, int]) -> Array:
    """[b, heads, n, n] -> [b, heads, gh, gw]: the rows of the tokens that the classifier reads."""
    b, heads, n, _ = weights.shape
    readers = _readers(model, None, weights[:, 0])
    rows = jnp.einsum("bn,bhnm->bhm", readers, weights)[:, :, model.num_prefix_tokens :]
    return rows.reshape(b, heads, *taps.grid(model, size))


def attention_distance(model: nn.Module, variables: Any, images: Any) -> list[np.ndarray]:
    """Mean distance in pixels that each head looks, [heads] per block (Dosovitskiy et al., 2021, figure 7).

    The distance between query and key, weighted by the attention, over all patches and images; prefix tokens and
    padding are left out.
    """
    _check_attention(model)
    images = taps.check_inputs(model, variables, images)
    return [np.asarray(d) for d in _distances(variables, images, model=taps.plain(model))]


@partial(jax.jit, static_argnames=("model",))
def _distances(variables: Any, images: Array, *, model: Any) -> list[Array]:
    size = taps.size_of(images)
    blocks = _sown(model, variables, images)[0]
    if taps.attention_of(model) == "windows":
        return [windows.distance(w, place) for w, place in zip(blocks, windows.block_windows(model, size), strict=True)]
    prefix, patch = model.num_prefix_tokens, to_pair(model.patch_size)
    gap = windows.gaps(taps.grid(model, size), patch)
    results = []
    for weights in blocks:
        weights = weights[:, :, prefix:, prefix:]
        far = jnp.sum(weights * gap[None, None], axis=-1) / jnp.maximum(jnp.sum(weights, axis=-1), 1e-12)
        results.append(jnp.mean(far, axis=(0, 2)))
    return results


def _check_attention(model: nn.Module, kind: str | None = None) -> None:
    """Raises UserError for a model without attention, or without that of one kind: "tokens" or "windows"."""
    own = taps.attention_of(model)
    if own is None or kind not in (None, own):
        names = [f.model.__name__ for f in FAMILIES.values() if f.attention and kind in (None, f.attention)]
        more = "for windows see attention_maps" if own else "for any model see grad_cam"
        raise UserError(f"{type(model).__name__} has no such attention; expected {' or '.join(names)}; {more}.")


def _check_fusion(head_fusion: str) -> None:
    if not isinstance(head_fusion, str) or head_fusion not in FUSIONS:
        raise UserError(
            f"no head_fusion {shown(head_fusion)}; expected {', '.join(FUSIONS)}.{suggest(str(head_fusion), FUSIONS)}"
        )
