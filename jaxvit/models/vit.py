"""Vision Transformer (Dosovitskiy et al., 2021) and DeiT (Touvron et al., 2021; 2022)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxvit.errors import UserError, suggest
from jaxvit.models.conv_layers import hidden_layer
from jaxvit.models.layers import (
    Array,
    Dense,
    Dtype,
    Mlp,
    Size,
    drop_path_rates,
    rematerialised,
    to_pair,
    trunc_normal,
)
from jaxvit.models.vit_blocks import BLOCKS, Block, scan_blocks
from jaxvit.models.vit_layers import (
    ATTENTIONS,
    MLPS,
    NORMS,
    Attention,
    AttentionPoolLatent,
    Layer,
    LayerScale,
    Norm,
    PatchEmbed,
    check_images,
    draw_patches,
    make_norm,
    pad_to_patches,
    refine,
    resample_pos_embed,
    sine_cosine_table,
    take_patches,
    tiny_normal,
)
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.layout import row_major
from jaxvit.ops.pooling import max_over_tokens
from jaxvit.precision import at_least_float32

__all__ = ["Attention", "Block", "LayerScale", "PatchEmbed", "VisionTransformer"]

POOLS: dict[str, Callable[[Array], Array]] = {
    "avg": lambda x: jnp.mean(x, axis=1),
    "max": max_over_tokens,
    "avgmax": lambda x: 0.5 * (max_over_tokens(x) + jnp.mean(x, axis=1)),
}
CHOICES: dict[str, tuple[str | None, ...]] = {
    "global_pool": ("token", *POOLS, "map", "prr", ""),
    "pos_embed": ("learn", "sincos2d", "none"),
    "norm_layer": tuple(NORMS),
    "embed_norm_layer": (None, *NORMS),
    "act_layer": tuple(ACTIVATIONS),
    "block_fn": tuple(BLOCKS),
    "mlp_layer": tuple(MLPS),
    "attn_layer": tuple(ATTENTIONS),
    "attn_implementation": (None, "xla", "cudnn"),
}


class VisionTransformer(nn.Module):
    """Images [b, h, w, c], normalised, to logits [b, num_classes] float32; fields have timm's names.

    With `num_classes=0` the result is the pooled features [b, d]; with `global_pool=""` one row per token.
    With `distilled_training` and `train` it is the pair (logits, dist_logits) of the two heads.
    Of each image's patches, counted row by row, only those at `keep` int [b, k] enter the blocks; None: all.
    Raises UserError, when traced, on fields or image sizes that do not fit each other.
    """

    num_classes: int = 1000
    image_size: Size = 224
    in_channels: int = 3
    patch_size: Size = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    global_pool: str = "token"  # token, avg, max, avgmax, map (attention), prr, "" (none)
    qkv_bias: bool = True
    qk_norm: bool = False
    scale_attn_norm: bool = False
    scale_mlp_norm: bool = False
    proj_bias: bool = True
    init_values: float | None = None  # start of the layer scale; None: no layer scale
    class_token: bool = True
    distilled: bool = False  # a second token with its own head (DeiT)
    distilled_training: bool = False
    pos_embed: str = "learn"  # "sincos2d" begins with sines and cosines; optim.freeze="^pos_embed$" keeps them
    no_embed_class: bool = False  # positions for patches only
    reg_tokens: int = 0
    pre_norm: bool = False  # a norm before the blocks; the patch projection then has no bias
    final_norm: bool = True
    fc_norm: bool | None = None  # the final norm after pooling; None: when pooling over tokens
    pool_include_prefix: bool = False
    dynamic_img_size: bool = False  # resample the position table for images of another size
    dynamic_img_pad: bool = False  # and put zeros below and right of images that fill no whole patches
    crop_to_patches: bool = False  # cut off pixels that fill no patch, instead of refusing
    head_hidden_size: int | None = None  # of a hidden layer before the classifier; not in timm
    drop_rate: float = 0.0
    pos_drop_rate: float = 0.0
    patch_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    norm_layer: str = "layernorm"
    norm_eps: float = 1e-6
    embed_norm_layer: str | None = None
    act_layer: str = "gelu"
    block_fn: str = "block"
    mlp_layer: str = "mlp"
    attn_layer: str = "attn"
    attn_implementation: str | None = None  # "cudnn", "xla" (the formula); None: cuDNN on a GPU in 16 bits, else "xla"
    dtype: Dtype = None
    remat: bool | str = False  # "dots" keeps the results of linear layers, "block" (or True) only the input
    scan: bool = False  # one compiled block for all: compiles faster; other random draws in training

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: class, distillation, registers."""
        return int(self.class_token) + int(self.distilled) + self.reg_tokens

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches (down, across) in an image of `image_size`."""
        (h, w), (ph, pw) = to_pair(self.image_size), to_pair(self.patch_size)
        return h // ph, w // pw

    @property
    def hidden_dim(self) -> int:
        """Hidden units of a perceptron."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def differential(self) -> bool:
        """Whether attention is the difference of two softmax maps."""
        return "diff" in (self.attn_layer, self.block_fn[:4])

    @nn.compact
    def __call__(self, images: Array, *, keep: Array | None = None, train: bool = False) -> Any:
        check_fields(self)
        check_images(self, images)
        norm = make_norm(self.norm_layer, self.norm_eps, self.dtype)
        norm_last = self.global_pool in POOLS if self.fc_norm is None else self.fc_norm
        x = self.embed(images, train=train)
        if keep is not None:
            x = take_patches(x, keep, self.num_prefix_tokens)
        if self.pre_norm:
            x = norm(name="norm_pre")(x)
        x = row_major(self.run_blocks(row_major(x), norm, train=train))
        if self.final_norm and not norm_last:
            x = norm(name="norm")(x)
        if self.distilled and self.global_pool:
            return self.two_heads(x, train=train)
        x = self.pool(x, norm, train=train)
        if self.final_norm and norm_last:
            x = norm(name="fc_norm")(x)
        return self.classify(x, "head", train=train)

    def embed(self, images: Array, *, train: bool) -> Array:
        """Patch tokens with their positions, after the prefix tokens: [b, h, w, c] -> [b, prefix + n, d]."""
        kind, d = self.embed_norm_layer, self.embed_dim
        norm = make_norm(kind, self.norm_eps, self.dtype) if kind else None
        x = PatchEmbed(
            embed_dim=d,
            patch_size=to_pair(self.patch_size),
            use_bias=not self.pre_norm,
            norm=norm,
            dtype=self.dtype,
            name="patch_embed",
        )(pad_to_patches(images, to_pair(self.patch_size)) if self.dynamic_img_pad else images)
        b, *grid, _ = x.shape
        x = x.reshape(b, -1, d)

        counts = {"cls_token": int(self.class_token), "dist_token": int(self.distilled)}
        counts["reg_token"] = self.reg_tokens
        inits = {"dist_token": trunc_normal}
        tokens = [self.param(t, inits.get(t, tiny_normal), (1, n, d), jnp.float32) for t, n in counts.items() if n]
        tokens = [jnp.broadcast_to(t.astype(x.dtype), (b, *t.shape[1:])) for t in tokens]

        if self.pos_embed == "none":
            x = jnp.concatenate([*tokens, x], axis=1)
        else:
            x = x if self.no_embed_class else jnp.concatenate([*tokens, x], axis=1)
            x = x + self.position_table((grid[0], grid[1])).astype(x.dtype)
            x = jnp.concatenate([*tokens, x], axis=1) if self.no_embed_class else x
            x = nn.Dropout(self.pos_drop_rate)(x, deterministic=not train)
        if train and self.patch_drop_rate > 0:
            num_patches = x.shape[1] - self.num_prefix_tokens
            kept = draw_patches(self.make_rng("dropout"), (b, num_patches), self.patch_drop_rate)
            x = take_patches(x, kept, self.num_prefix_tokens)
        return x

    def position_table(self, grid: tuple[int, int]) -> Array:
        """The learnt positions for a grid of patches: [1, prefix + gh*gw, d], or without the prefix."""
        num_prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        num_patches = self.grid_size[0] * self.grid_size[1]
        init = trunc_normal if self.pos_embed == "learn" else partial(sine_cosine_table, self.grid_size)
        table = self.param("pos_embed", init, (1, num_prefix + num_patches, self.embed_dim))
        return resample_pos_embed(table, self.grid_size, grid, num_prefix)

    def make_block(self, norm: Norm, index: int = 0) -> Layer:
        """The block of that number, still without its stochastic depth and name."""
        in_one = self.block_fn.endswith("parallel_scaling")  # attention and perceptron
        kind = self.attn_layer if not in_one else "diff" if self.block_fn.startswith("diff") else "attn"
        heads = partial(
            ATTENTIONS[kind],
            num_heads=self.num_heads,
            qk_norm=norm if self.qk_norm else None,
            drop_rate=self.attn_drop_rate,
            implementation=self.attn_implementation,
            **({"index": index} if kind == "diff" else {}),
        )
        biases = {"qkv_bias": self.qkv_bias, "proj_bias": self.proj_bias}
        common = {**biases, "proj_drop": self.proj_drop_rate, "dtype": self.dtype, "heads": heads}
        block = partial(BLOCKS[self.block_fn], norm=norm, init_values=self.init_values)
        if in_one:
            return partial(block, hidden_dim=self.hidden_dim, act=self.act_layer, **common)
        attn = partial(Attention, norm=norm if self.scale_attn_norm else None, **common)
        mlp = partial(
            MLPS[self.mlp_layer],
            hidden_dim=self.hidden_dim,
            act=self.act_layer,
            drop_rate=self.proj_drop_rate,
            use_bias=self.proj_bias,
            norm=norm if self.scale_mlp_norm else None,
            dtype=self.dtype,
        )
        return partial(block, attn=attn, mlp=mlp)

    def run_blocks(self, x: Array, norm: Norm, *, train: bool) -> Array:
        def run(module: nn.Module, x: Array) -> Array:
            return module(x, train=train)

        run = rematerialised(run, self.remat)
        if self.scan and not self.is_initializing() and not self.is_mutable_collection("intermediates"):
            return scan_blocks(self, self.make_block(norm), x, train=train)
        for i, rate in enumerate(drop_path_rates(self.drop_path_rate, self.depth)):
            x = run(self.make_block(norm, i)(drop_path=rate, name=f"blocks_{i}"), x)
        return x

    def pool(self, x: Array, norm: Norm, *, train: bool) -> Array:
        """One vector per image: [b, prefix + n, d] -> [b, d] (all tokens for `global_pool=""`)."""
        if self.global_pool == "prr":
            x = refine(x, self.num_heads)
            return x[:, 0] if self.class_token else jnp.mean(x, axis=1)
        if self.global_pool == "token":
            return x[:, 0]
        if self.global_pool == "":
            return x
        if not self.pool_include_prefix:
            x = x[:, self.num_prefix_tokens :]
        if self.global_pool != "map":
            return POOLS[self.global_pool](x)
        pool = AttentionPoolLatent(
            num_heads=self.num_heads,
            mlp=partial(Mlp, hidden_dim=self.hidden_dim, act=self.act_layer, dtype=self.dtype),
            norm=norm,
            implementation=self.attn_implementation,
            dtype=self.dtype,
            name="attn_pool",
        )
        return pool(x, train=train)

    def classify(self, x: Array, name: str, *, train: bool) -> Array:
        """Dropout, the hidden layer if there is one, and the linear head, in float32; without classes the features."""
        x = at_least_float32(nn.Dropout(self.drop_rate)(x, deterministic=not train))
        if self.num_classes == 0:
            return x
        x = hidden_layer(
            x,
            features=self.head_hidden_size,
            name=f"{name}_hidden",
            act_layer=self.act_layer,
            drop_rate=self.drop_rate,
            dtype=x.dtype,
            train=train,
        )
        return Dense(self.num_classes, dtype=x.dtype, kernel_init=trunc_normal, name=name)(x)

    def two_heads(self, x: Array, *, train: bool) -> Array | tuple[Array, Array]:
        """The heads of class and distillation token, both (to train them apart) or their mean."""
        logits = self.classify(x[:, 0], "head", train=train)
        dist_logits = self.classify(x[:, 1], "head_dist", train=train)
        if train and self.distilled_training and self.num_classes:
            return logits, dist_logits
        return (logits + dist_logits) / 2


def check_fields(model: VisionTransformer) -> None:
    """Raises UserError for choices that do not exist, and on fields that do not fit each other."""
    for field, choices in CHOICES.items():
        if (value := getattr(model, field)) not in choices:
            known = ", ".join(map(repr, choices))
            raise UserError(f"{field}={value!r} is unknown; expected one of {known}.{_near(value, choices)}")
    for field in ("embed_dim", "num_heads", "patch_size", "image_size", "in_channels"):
        if min(to_pair(getattr(model, field))) < 1:
            raise UserError(f"{field}={getattr(model, field)} is not positive.")
    for field in ("depth", "num_classes", "reg_tokens"):
        if getattr(model, field) < 0:
            raise UserError(f"{field}={getattr(model, field)} is negative.")
    for field in (f for f in VisionTransformer.__dataclass_fields__ if f.endswith("_rate")):
        if not 0 <= getattr(model, field) < 1:
            raise UserError(f"{field}={getattr(model, field)} is not a rate in [0, 1).")
    differs = model.differential
    if model.scan and differs:
        raise UserError("scan=True needs equal blocks, but blocks with differential attention depend on their index.")
    parts = 2 * model.num_heads if differs else model.num_heads
    if model.embed_dim % parts:
        what = "twice num_heads" if parts > model.num_heads else "num_heads"
        raise UserError(f"embed_dim={model.embed_dim} is not divisible by {what}={parts}.")
    if "parallel_scaling" in model.block_fn and (model.scale_attn_norm or model.scale_mlp_norm):
        raise UserError(
            f"block_fn={model.block_fn!r} has no scale norms; expected scale_attn_norm and scale_mlp_norm False."
        )
    if model.attn_implementation == "cudnn" and (model.attn_drop_rate or differs):
        raise UserError(
            "attn_implementation='cudnn' does not expose the attention weights that attn_drop_rate and differential "
            "attention change; expected None or 'xla'."
        )
    if model.dynamic_img_pad and model.crop_to_patches:
        raise UserError("dynamic_img_pad=True needs crop_to_patches=False.")
    if model.global_pool == "token" and not model.class_token:
        raise UserError("global_pool='token' needs class_token=True; expected e.g. global_pool='avg'.")
    if model.distilled and not (model.global_pool in ("token", "") and model.reg_tokens == 0):
        raise UserError("distilled=True needs global_pool='token' (or '', all tokens) and reg_tokens=0.")


def _near(value: object, choices: tuple[str | None, ...]) -> str:
    return suggest(str(value), [c for c in choices if c])
