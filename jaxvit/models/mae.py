"""Masked autoencoder (He et al., 2022): a ViT sees a few patches of an image, and a small decoder fills in the others.

What is trained is the ViT; the decoder is thrown away with the pixels that it has predicted.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.models.layers import Array, Dense, Dtype, Layer, Mlp, to_pair, trunc_normal
from jaxvit.models.vit import VisionTransformer
from jaxvit.models.vit_blocks import Block
from jaxvit.models.vit_layers import Attention, make_norm, multi_head
from jaxvit.precision import at_least_float32

PERIOD = 10_000.0  # of the slowest wave of a position, in patches over 2 pi


def can_encode(model: nn.Module) -> bool:
    """Whether a model computes only the patches that it is given (`keep`), as the encoder must."""
    return isinstance(model, VisionTransformer)


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """How many patches of an image are seen, rounded down as in the authors' code."""
    return int(num_patches * (1 - mask_ratio))


def random_masking(key: Array, batch: int, num_patches: int, visible: int) -> tuple[Array, Array]:
    """Draws a permutation of the patches of each image, of which the first `visible` ones are seen.

    Returns (keep int32 [b, visible], the patches that are seen, in the order drawn; restore int32 [b, n], the place of
    each patch in that order). A patch is masked where `restore >= visible`.
    """
    order = jnp.argsort(jax.random.uniform(key, (batch, num_patches)), axis=1)
    return order[:, :visible], jnp.argsort(order, axis=1)


def sine_cosine_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """Fixed positions of the patches (down, across), row by row: float32 [gh * gw, width], width a multiple of 4.

    The first half is of the column, the second of the row; each is sines and then cosines of falling frequency, as in
    the authors' code.
    """
    rows, columns = (axis.reshape(-1) for axis in np.meshgrid(*map(np.arange, grid), indexing="ij"))
    frequencies = PERIOD ** -(np.arange(width // 4) / (width // 4))
    angles = [place[:, None] * frequencies for place in (columns, rows)]
    waves = [wave for angle in angles for wave in (np.sin(angle), np.cos(angle))]
    return np.concatenate(waves, axis=1).astype(np.float32)


class MaskedDecoder(nn.Module):
    """Tokens of the visible patches to the values of all: [b, prefix + k, d] -> float32 [b, n, values].

    A learnt token stands for each masked patch; positions are fixed sines and cosines.
    """

    grid: tuple[int, int]  # patches (down, across)
    num_prefix: int  # tokens before the patches
    values: int  # of a patch: height * width * channels
    depth: int
    embed_dim: int
    num_heads: int
    attn_implementation: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, restore: Array) -> Array:
        """`restore` int [b, n]: the place of each patch among the visible ones, which come first, and the masked."""
        d, norm = self.embed_dim, make_norm("layernorm", 1e-6, self.dtype)
        x = Dense(d, dtype=self.dtype, kernel_init=trunc_normal, name="embed")(x)
        mask_token = self.param("mask_token", trunc_normal, (1, 1, d)).astype(x.dtype)
        prefix, visible = x[:, : self.num_prefix], x[:, self.num_prefix :]
        masked = jnp.broadcast_to(mask_token, (x.shape[0], restore.shape[1] - visible.shape[1], d))
        x = jnp.concatenate([visible, masked], axis=1)
        x = jnp.take_along_axis(x, restore[:, :, None], axis=1)
        x = x + jnp.asarray(sine_cosine_positions(self.grid, d), x.dtype)[None]
        x = jnp.concatenate([prefix, x], axis=1)
        heads = partial(multi_head, num_heads=self.num_heads, implementation=self.attn_implementation)
        block = partial(
            Block,
            norm=norm,
            attn=partial(Attention, heads=heads, dtype=self.dtype),
            mlp=partial(Mlp, hidden_dim=4 * d, dtype=self.dtype),
        )
        for i in range(self.depth):
            x = block(name=f"blocks_{i}")(x)
        x = at_least_float32(norm(name="norm")(x)[:, self.num_prefix :])
        return Dense(self.values, dtype=x.dtype, kernel_init=trunc_normal, name="pred")(x)


class MaskedAutoencoder(nn.Module):
    """Images [b, h, w, c], normalised, to (values of each patch float32 [b, n, values], whether masked bool [b, n]).

    The mask is drawn from the stream "dropout"; without one it is always the same.
    """

    encoder: Layer  # a VisionTransformer with its fields set: `encoder_of`
    mask_ratio: float = 0.75
    decoder_depth: int = 2
    decoder_embed_dim: int = 256
    decoder_num_heads: int = 8
    attn_implementation: str | None = None  # as the ViT's

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, Array]:
        encoder = self.encoder(attn_implementation=self.attn_implementation, name="encoder")
        (gh, gw), (ph, pw) = encoder.grid_size, to_pair(encoder.patch_size)
        key = self.make_rng("dropout") if self.has_rng("dropout") else jax.random.key(0)
        visible = num_visible(gh * gw, self.mask_ratio)
        keep, restore = random_masking(key, images.shape[0], gh * gw, visible)
        decoder = MaskedDecoder(
            grid=(gh, gw),
            num_prefix=encoder.num_prefix_tokens,
            values=ph * pw * images.shape[-1],
            depth=self.decoder_depth,
            embed_dim=self.decoder_embed_dim,
            num_heads=self.decoder_num_heads,
            attn_implementation=self.attn_implementation,
            dtype=encoder.dtype,
            name="decoder",
        )
        return decoder(encoder(images, keep=keep, train=train), restore), restore >= visible


def encoder_of(model: VisionTransformer) -> Layer:
    """The ViT as an encoder: all tokens, normalised, without pooling and classifier, and without any dropout."""
    fields = {f: getattr(model, f) for f in type(model).__dataclass_fields__ if f not in ("parent", "name")}
    fields |= {f: 0.0 for f in fields if f.endswith("_rate")}
    fields |= {"num_classes": 0, "global_pool": "", "fc_norm": False, "final_norm": True, "distilled_training": False}
    del fields["attn_implementation"]
    return partial(type(model), **fields)
