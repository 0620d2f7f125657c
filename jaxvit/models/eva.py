"""EVA (Fang et al., 2022; 2023) and the vision transformers that share its parts.

They are EVA-CLIP (Sun et al., 2023), RoPE ViTs (Heo et al., 2024), Perception Encoders (Bolya et al., 2025), DINOv3
(Simeoni et al., 2025) and Sapiens2 (Khirodkar et al., 2026).
"""

import math
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxvit.errors import UserError, suggest
from jaxvit.models.conv_layers import hidden_layer
from jaxvit.models.eva_blocks import (
    EvaAttention,
    EvaBlock,
    EvaBlockPostNorm,
    FeedForward,
    Rope,
)
from jaxvit.models.layers import (
    Array,
    Dense,
    Dtype,
    Layer,
    Mlp,
    Size,
    drop_path_rates,
    rematerialised,
    scaled_normal,
    to_pair,
    trunc_normal,
)
from jaxvit.models.rope import INDEXINGS, ROPE_TYPES, RotaryEmbedding
from jaxvit.models.vit import POOLS
from jaxvit.models.vit_blocks import scan_blocks
from jaxvit.models.vit_layers import (
    NORMS,
    AttentionPoolLatent,
    Norm,
    PatchEmbed,
    check_images,
    draw_patches,
    make_norm,
    pad_to_patches,
    resample_pos_embed,
    take_patches,
)
from jaxvit.ops.layout import row_major
from jaxvit.precision import at_least_float32

CHOICES: dict[str, tuple[str | None, ...]] = {
    "global_pool": ("token", *POOLS, "map", ""),
    "attn_type": ("eva", "rope"),
    "rope_type": ROPE_TYPES,
    "rope_grid_indexing": INDEXINGS,
    "norm_layer": tuple(NORMS),
    "attn_implementation": (None, "xla", "cudnn"),
}


class Eva(nn.Module):
    """Images [b, h, w, c], normalised, to logits [b, num_classes] float32; fields have timm's names.

    With `num_classes=0` the result is the pooled features [b, d]; with `global_pool=""` one row per token.
    Raises UserError, when traced, on fields or image sizes that do not fit each other.
    """

    num_classes: int = 1000
    image_size: Size = 224
    in_channels: int = 3
    patch_size: Size = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    num_kv_heads: int | tuple[int, ...] | None = None  # of each block; fewer than num_heads: grouped queries
    mlp_ratio: float = 4.0
    global_pool: str = "avg"  # avg, token, max, avgmax, map (attention over all tokens), "" (none)
    qkv_bias: bool = True
    qkv_fused: bool = True
    qk_norm: bool = False
    swiglu_mlp: bool = False
    swiglu_align_to: int = 0  # hidden units of SwiGLU are rounded up to a multiple; 0: they are not
    scale_mlp: bool = False  # a norm of the hidden units
    scale_attn_inner: bool = False  # a norm of the heads' outputs
    attn_type: str = "eva"  # "eva": keys have no bias; "rope": they have
    init_values: float | None = None  # start of the layer scale; None: no layer scale
    attn_only_layer_scale: bool = False
    class_token: bool = True
    num_reg_tokens: int = 0
    no_embed_class: bool = False  # learnt positions for patches only
    use_abs_pos_emb: bool = True  # learnt positions
    use_rot_pos_emb: bool = False  # rotary positions of patches, in every block
    rope_type: str = "cat"
    rope_grid_offset: float = 0.0
    rope_grid_indexing: str = "ij"
    rope_temperature: float = 10000.0
    rope_rotate_half: bool = False
    rope_shift_coords: float | None = None  # in training: places moved by up to this much, 0 or more
    rope_jitter_coords: float | None = None  # stretched by up to this factor along each axis, 1 or more
    rope_rescale_coords: float | None = None  # and along both, 1 or more
    ref_feat_shape: Size | None = None  # the grid of pretraining, onto which places of another grid are stretched
    use_post_norm: bool = False  # the norms after the branches
    use_pre_transformer_norm: bool = False  # a norm before the blocks; the patch projection then has no bias
    use_post_transformer_norm: bool | None = None  # None: where there is no norm after pooling
    use_fc_norm: bool | None = None  # the norm after pooling; None: where the mean is taken
    attn_pool_num_heads: int | None = None
    attn_pool_mlp_ratio: float | None = None
    dynamic_img_size: bool = False  # positions of their own for images of another size
    dynamic_img_pad: bool = False  # and zeros below and right of images that fill no whole patches
    crop_to_patches: bool = False  # cut off pixels that fill no patch, instead of refusing
    head_init_scale: float = 0.001
    head_hidden_size: int | None = None  # of a hidden layer before the classifier; not in timm
    drop_rate: float = 0.0
    pos_drop_rate: float = 0.0
    patch_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    norm_layer: str = "layernorm"
    norm_eps: float = 1e-6
    attn_implementation: str | None = None  # "cudnn", "xla" (the formula); None: cuDNN on a GPU in 16 bits, else "xla"
    dtype: Dtype = None
    remat: bool | str = False  # "dots" keeps the results of linear layers, "block" (or True) only the input
    scan: bool = False  # one compiled block for all: compiles faster; other random draws in training

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: class, registers."""
        return int(self.class_token) + self.num_reg_tokens

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches (down, across) in an image of `image_size`."""
        (h, w), (ph, pw) = to_pair(self.image_size), to_pair(self.patch_size)
        return h // ph, w // pw

    @property
    def has_fc_norm(self) -> bool:
        """Whether the final norm comes after pooling."""
        return self.global_pool == "avg" if self.use_fc_norm is None else self.use_fc_norm

    @property
    def has_norm(self) -> bool:
        """Whether the final norm comes before pooling."""
        chosen = self.use_post_transformer_norm
        return not self.has_fc_norm if chosen is None else chosen

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        check_fields(self)
        check_images(self, images)
        norm = make_norm(self.norm_layer, self.norm_eps, self.dtype)
        x, ropes = self.embed(images, train=train)
        if self.use_pre_transformer_norm:
            x = norm(name="norm_pre")(x)
        x = row_major(self.run_blocks(row_major(x), ropes, norm, train=train))
        if self.has_norm:
            x = norm(name="norm")(x)
        x = self.pool(x, norm, train=train)
        if self.has_fc_norm:
            x = norm(name="fc_norm")(x)
        return self.classify(x, train=train)

    def embed(self, images: Array, *, train: bool) -> tuple[Array, Sequence[Rope]]:
        """Patch tokens after the prefix tokens, [b, prefix + n, d], and by what each block turns them."""
        patch, d, num_prefix = to_pair(self.patch_size), self.embed_dim, self.num_prefix_tokens
        x = PatchEmbed(
            embed_dim=d,
            patch_size=patch,
            use_bias=not self.use_pre_transformer_norm,
            dtype=self.dtype,
            name="patch_embed",
        )(pad_to_patches(images, patch) if self.dynamic_img_pad else images)
        b, *sides, _ = x.shape
        grid = sides[0], sides[1]
        x = x.reshape(b, -1, d)

        counts = {"cls_token": int(self.class_token), "reg_token": self.num_reg_tokens}
        tokens = [self.param(token, trunc_normal, (1, count, d)) for token, count in counts.items() if count]
        tokens = [jnp.broadcast_to(token.astype(x.dtype), (b, *token.shape[1:])) for token in tokens]
        if not self.no_embed_class:
            x = jnp.concatenate([*tokens, x], axis=1)
        if self.use_abs_pos_emb:
            x = x + self.position_table(grid).astype(x.dtype)
        if self.no_embed_class:
            x = jnp.concatenate([*tokens, x], axis=1)
        x = nn.Dropout(self.pos_drop_rate)(x, deterministic=not train)

        angles = self.angles(grid, train=train)
        if train and self.patch_drop_rate > 0:
            kept = draw_patches(self.make_rng("dropout"), (b, x.shape[1] - num_prefix), self.patch_drop_rate)
            x = take_patches(x, kept, num_prefix)
            angles = None if angles is None else angles[:, kept]  # [depth or 1, b, n, heads or 1, hd/2]
        elif angles is not None:
            angles = angles[:, None]
        if angles is None:
            return x, [None] * self.depth
        angles = jnp.pad(angles, ((0, 0), (0, 0), (num_prefix, 0), (0, 0), (0, 0)))  # the prefix is not turned
        ropes = list(zip(jnp.cos(angles), jnp.sin(angles), strict=True))
        return x, ropes * (self.depth if len(ropes) == 1 else 1)

    def position_table(self, grid: tuple[int, int]) -> Array:
        """The learnt positions for a grid of patches: [1, prefix + gh*gw, d], or without the prefix."""
        num_prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        table = self.param("pos_embed", trunc_normal, (1, num_prefix + math.prod(self.grid_size), self.embed_dim))
        return resample_pos_embed(table, self.grid_size, grid, num_prefix)

    def angles(self, grid: tuple[int, int], *, train: bool) -> Array | None:
        """The angles of rotary positions, [depth or 1, gh*gw, heads or 1, hd/2]; None without them."""
        if not self.use_rot_pos_emb:
            return None
        rope = RotaryEmbedding(
            head_dim=self.embed_dim // self.num_heads,
            kind=self.rope_type,
            temperature=self.rope_temperature,
            indexing=self.rope_grid_indexing,
            offset=self.rope_grid_offset,
            reference=None if self.ref_feat_shape is None else to_pair(self.ref_feat_shape),
            depth=self.depth,
            num_heads=self.num_heads,
            shift=self.rope_shift_coords,
            jitter=self.rope_jitter_coords,
            rescale=self.rope_rescale_coords,
            name="rope",
        )
        return rope(grid, train=train)

    def make_block(self, norm: Norm, index: int = 0) -> Layer:
        """The block of that number, still without its stochastic depth and name."""
        out_scale = 1 / math.sqrt(2 * (index + 1))
        attn = partial(
            EvaAttention,
            num_heads=self.num_heads,
            num_kv_heads=kv_heads(self)[index],
            qkv_bias=self.qkv_bias,
            key_bias=self.attn_type == "rope",
            qkv_fused=self.qkv_fused,
            qk_norm=norm if self.qk_norm else None,
            norm=norm if self.scale_attn_inner else None,
            rotate_half=self.rope_rotate_half,
            attn_drop=self.attn_drop_rate,
            proj_drop=self.proj_drop_rate,
            out_scale=out_scale,
            implementation=self.attn_implementation,
            dtype=self.dtype,
        )
        hidden, gate = int(self.embed_dim * self.mlp_ratio), None
        if self.swiglu_mlp:
            aligned = self.swiglu_align_to and not self.use_post_norm
            gate = "apart" if self.scale_mlp or aligned else "packed"
            hidden += -hidden % self.swiglu_align_to if gate == "apart" and self.swiglu_align_to else 0
        mlp = partial(
            FeedForward,
            hidden_dim=hidden,
            gate=gate,
            norm=norm if self.scale_mlp else None,
            drop_rate=self.proj_drop_rate,
            out_scale=out_scale,
            dtype=self.dtype,
        )
        if self.use_post_norm:
            return partial(EvaBlockPostNorm, attn=attn, mlp=mlp, norm=norm)
        scales = {"init_values": self.init_values, "attn_only_layer_scale": self.attn_only_layer_scale}
        return partial(EvaBlock, attn=attn, mlp=mlp, norm=norm, **scales)

    def run_blocks(self, x: Array, ropes: Sequence[Rope], norm: Norm, *, train: bool) -> Array:
        def run(module: nn.Module, x: Array, rope: Rope) -> Array:
            return module(x, rope, train=train)

        run = rematerialised(run, self.remat)
        if self.scan and not self.is_initializing() and not self.is_mutable_collection("intermediates"):
            return scan_blocks(self, self.make_block(norm), x, ropes[0], train=train)
        for i, rate in enumerate(drop_path_rates(self.drop_path_rate, self.depth)):
            x = run(self.make_block(norm, i)(drop_path=rate, name=f"blocks_{i}"), x, ropes[i])
        return x

    def pool(self, x: Array, norm: Norm, *, train: bool) -> Array:
        """One vector per image: [b, prefix + n, d] -> [b, d] (all tokens for `global_pool=""`)."""
        if self.global_pool == "token":
            return x[:, 0]
        if self.global_pool == "":
            return x
        if self.global_pool != "map":
            return POOLS[self.global_pool](x[:, self.num_prefix_tokens :])
        hidden = int(self.embed_dim * (self.attn_pool_mlp_ratio or self.mlp_ratio))
        pool = AttentionPoolLatent(
            num_heads=self.attn_pool_num_heads or self.num_heads,
            mlp=partial(Mlp, hidden_dim=hidden, dtype=self.dtype),
            norm=norm,
            implementation=self.attn_implementation,
            dtype=self.dtype,
            name="attn_pool",
        )
        return pool(x, train=train)

    def classify(self, x: Array, *, train: bool) -> Array:
        """Dropout, the hidden layer if there is one, and the linear head, in float32; without classes the features."""
        x = at_least_float32(nn.Dropout(self.drop_rate)(x, deterministic=not train))
        if self.num_classes == 0:
            return x
        x = hidden_layer(
            x,
            features=self.head_hidden_size,
            name="head_hidden",
            act_layer="gelu",
            drop_rate=self.drop_rate,
            dtype=x.dtype,
            train=train,
        )
        start = scaled_normal(self.head_init_scale or 1.0)
        return Dense(self.num_classes, dtype=x.dtype, kernel_init=start, name="head")(x)


def kv_heads(model: Eva) -> tuple[int, ...]:
    """The heads of keys and values in each block."""
    heads = model.num_kv_heads
    if heads is None or isinstance(heads, int):
        return (heads or model.num_heads,) * model.depth
    return heads


def check_fields(model: Eva) -> None:
    """Raises UserError for choices that do not exist, and on fields that do not fit each other."""
    for field, choices in CHOICES.items():
        if (value := getattr(model, field)) not in choices:
            near = suggest(str(value), [c for c in choices if c])
            raise UserError(f"{field}={value!r} is unknown; expected one of {', '.join(map(repr, choices))}.{near}")
    heads, dim = model.num_heads, model.embed_dim
    if dim % heads:
        raise UserError(f"embed_dim={dim} is not divisible by num_heads={heads}.")
    if model.use_rot_pos_emb and dim // heads % 4:
        raise UserError(
            f"use_rot_pos_emb=True needs heads of a multiple of 4 channels; embed_dim={dim} with num_heads={heads} "
            f"has {dim // heads}."
        )
    if model.use_rot_pos_emb and model.rope_type == "mixed" and model.rope_rotate_half:
        raise UserError("rope_type='mixed' needs rope_rotate_half=False.")
    if model.global_pool == "token" and not model.class_token:
        raise UserError("global_pool='token' needs class_token=True; expected e.g. global_pool='avg'.")
    if model.global_pool == "map" and dim % (model.attn_pool_num_heads or heads):
        raise UserError(f"embed_dim={dim} is not divisible by attn_pool_num_heads={model.attn_pool_num_heads}.")
    if model.dynamic_img_pad and model.crop_to_patches:
        raise UserError("dynamic_img_pad=True needs crop_to_patches=False.")
    if model.attn_implementation == "cudnn" and model.attn_drop_rate:
        raise UserError(
            "attn_implementation='cudnn' does not expose the attention weights that attn_drop_rate changes; "
            "expected None or 'xla'."
        )
    least = {"rope_shift_coords": 0.0, "rope_jitter_coords": 1.0, "rope_rescale_coords": 1.0}
    for field, low in least.items():
        value = getattr(model, field)
        if value is not None and not low <= value < math.inf:
            raise UserError(f"{field}={value} is too small; expected {low:g} or more, or None.")
    _check_kv_heads(model)


def _check_kv_heads(model: Eva) -> None:
    own, heads = kv_heads(model), model.num_heads
    if len(own) != model.depth:
        raise UserError(f"num_kv_heads has {len(own)} entries; expected one for each of depth={model.depth} blocks.")
    for count in own:
        if count < 1 or heads % count:
            raise UserError(f"num_heads={heads} is not divisible by num_kv_heads={count}.")
    if any(count < heads for count in own) and (model.attn_type != "rope" or model.qkv_fused):
        raise UserError("num_kv_heads below num_heads needs attn_type='rope' and qkv_fused=False.")
    norms_only = model.qk_norm or model.attn_only_layer_scale or model.num_kv_heads is not None
    if model.use_post_norm and norms_only:
        raise UserError("use_post_norm=True has no qk_norm, attn_only_layer_scale or num_kv_heads.")
    if model.scan and (len(set(own)) > 1 or (model.use_rot_pos_emb and model.rope_type == "mixed")):
        raise UserError(
            "scan=True needs equal blocks; expected one num_kv_heads for all of them, and rope_type 'cat' or 'dinov3'."
        )
