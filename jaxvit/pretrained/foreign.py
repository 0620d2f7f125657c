"""Other layouts of the same weights, recognised by marker keys and renamed to timm's: tables, then two small steps."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxvit.errors import UserError

Tensors = dict[str, np.ndarray]

# A wrapper's key -> where training scripts put the weights; averaged weights first, as timm prefers them.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")

# Each table: (pattern, replacement), every row tried in order on every name. A replacement None drops the tensor.
Table = tuple[tuple[str, str | None], ...]

HF_TRANSFORMER: Table = (
    (r"^(vit|deit|swin)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.mask_token$", None),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^pooler\.", None),
    (r"\.relative_position_index$", None),
    (r"^(encoder\.layer|layers)\.(\d+)\.(?!blocks|downsample)", r"blocks.\2."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attention\.(?:attention\.|self\.)?(?:query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(?:attention\.|self\.)?(?:key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(?:attention\.|self\.)?(?:value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.\w+\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"^(cls_)?classifier\.", "head."),
)
HF_RESNET: Table = (
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    *((rf"^encoder\.stages\.{i}\.layers\.", f"layer{i + 1}.") for i in range(4)),
    (r"^classifier\.1\.", "fc."),
)
# torchvision's hidden layers are dense; timm's are convolutions (reshaped below).
TORCHVISION_VGG: Table = (
    (r"^classifier\.0\.", "pre_logits.fc1."),
    (r"^classifier\.3\.", "pre_logits.fc2."),
    (r"^classifier\.6\.", "head.fc."),
)
DEIT3: Table = ((r"\.gamma_([12])$", r".ls\1.gamma"),)


def unwrap(state_dict: Mapping[str, Any]) -> Tensors:
    """Finds the tensors inside a training script's checkpoint and strips the prefixes of its wrappers.

    Raises UserError for a value that is no array.
    """
    for key in NESTED:
        if isinstance(state_dict.get(key), Mapping):
            return unwrap(state_dict[key])
    tensors = {str(name): _array(name, value) for name, value in state_dict.items()}
    while tensors and (prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), "")):
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    return tensors


def _array(name: Any, value: Any) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) else None
    try:
        array = np.asarray(value) if array is None else array
    except Exception as error:
        raise UserError(f"{name} in the checkpoint is no array: {error}") from None
    if array.dtype.kind in "OSUM":
        raise UserError(f"{name} in the checkpoint is {type(value).__name__}; expected an array of numbers.")
    return array


def rename(tensors: Tensors, table: Table) -> Tensors:
    """Applies every row of a table to every name; rows with None drop the tensor."""
    renamed: Tensors = {}
    for name, array in tensors.items():
        for pattern, replacement in table:
            if replacement is None and re.search(pattern, name):
                break
            if replacement is not None:
                name = re.sub(pattern, replacement, name)
        else:
            if name in renamed:
                raise UserError(f"two tensors of the checkpoint both mean {name!r}; expected one.")
            renamed[name] = array
    return renamed


def fuse_qkv(tensors: Tensors) -> Tensors:
    """Joins attn.q, attn.k and attn.v, each [d, d] or [d], into attn.qkv along the first axis."""
    fused: Tensors = {}
    for name, array in tensors.items():
        match = re.fullmatch(r"(.*\.attn)\.([qkv])\.(weight|bias)", name)
        parts = [tensors.get(f"{match[1]}.{part}.{match[3]}") for part in "qkv"] if match else []
        whole = [part for part in parts if part is not None]
        if not match or len(whole) < 3 or len({part.shape[1:] for part in whole}) > 1 or array.ndim == 0:
            fused[name] = array
        elif match[2] == "q":
            fused[f"{match[1]}.qkv.{match[3]}"] = np.concatenate(whole)
    return fused


def shift_downsample(tensors: Tensors) -> Tensors:
    """Swin's first layout: the patch merging ends a stage there and begins the next one in timm."""
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name): array
        for name, array in tensors.items()
    }


def _swin(tensors: Tensors) -> Tensors:
    if "embeddings.patch_embeddings.projection.weight" in {name.removeprefix("swin.") for name in tensors}:
        tensors = fuse_qkv(rename(tensors, HF_TRANSFORMER))
    if any(name.startswith("layers.0.downsample.") for name in tensors):
        tensors = shift_downsample(tensors)
    return rename(tensors, ((r"^head\.(weight|bias)$", r"head.fc.\1"),))


def _vit(tensors: Tensors) -> Tensors:
    if any(name.endswith("embedding/kernel") for name in tensors):
        return google_vit(tensors)
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in tensors):
        tensors = fuse_qkv(rename(tensors, HF_TRANSFORMER))
    return rename(tensors, DEIT3)


def _resnet(tensors: Tensors) -> Tensors:
    if any(name.endswith("embedder.embedder.convolution.weight") for name in tensors):
        return rename(tensors, HF_RESNET)
    return tensors


def _vgg(tensors: Tensors) -> Tensors:
    first, second = tensors.get("classifier.0.weight"), tensors.get("classifier.3.weight")
    renamed = rename(tensors, TORCHVISION_VGG)
    if first is not None and first.ndim == 2 and first.shape[1] % 49 == 0:
        renamed["pre_logits.fc1.weight"] = first.reshape(first.shape[0], -1, 7, 7)
    if second is not None and second.ndim == 2:
        renamed["pre_logits.fc2.weight"] = second[:, :, None, None]
    return renamed


# Google's .npz files name a module's class and its place among the block's modules; big_vision counts anew.
_GOOGLE_BLOCK = {
    "LayerNorm_0/scale": "norm1.weight",
    "LayerNorm_0/bias": "norm1.bias",
    "{norm2}/scale": "norm2.weight",
    "{norm2}/bias": "norm2.bias",
    "{attention}/query/kernel": "attn.q.weight",
    "{attention}/key/kernel": "attn.k.weight",
    "{attention}/value/kernel": "attn.v.weight",
    "{attention}/query/bias": "attn.q.bias",
    "{attention}/key/bias": "attn.k.bias",
    "{attention}/value/bias": "attn.v.bias",
    "{attention}/out/kernel": "attn.proj.weight",
    "{attention}/out/bias": "attn.proj.bias",
    "{mlp}/Dense_0/kernel": "mlp.fc1.weight",
    "{mlp}/Dense_0/bias": "mlp.fc1.bias",
    "{mlp}/Dense_1/kernel": "mlp.fc2.weight",
    "{mlp}/Dense_1/bias": "mlp.fc2.bias",
}
_GOOGLE_TOP = {
    "embedding/kernel": "patch_embed.proj.weight",
    "embedding/bias": "patch_embed.proj.bias",
    "cls": "cls_token",
    "pos_embedding": "pos_embed",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/kernel": "head.weight",
    "head/bias": "head.bias",
}
_GOOGLE_MAP_HEAD = {
    "probe": "latent",
    "MultiHeadDotProductAttention_0/query/kernel": "q.weight",
    "MultiHeadDotProductAttention_0/query/bias": "q.bias",
    "MultiHeadDotProductAttention_0/out/kernel": "proj.weight",
    "MultiHeadDotProductAttention_0/out/bias": "proj.bias",
    "LayerNorm_0/scale": "norm.weight",
    "LayerNorm_0/bias": "norm.bias",
    "MlpBlock_0/Dense_0/kernel": "mlp.fc1.weight",
    "MlpBlock_0/Dense_0/bias": "mlp.fc1.bias",
    "MlpBlock_0/Dense_1/kernel": "mlp.fc2.weight",
    "MlpBlock_0/Dense_1/bias": "mlp.fc2.bias",
}


def google_vit(tensors: Tensors) -> Tensors:
    """The .npz files of google-research/vision_transformer and big_vision, also with blocks stacked by a scan.

    There attention kernels are [d, heads, head_dim] (out: [heads, head_dim, d]) and dense kernels [in, out].
    """
    start = next(name for name in tensors if name.endswith("embedding/kernel")).removesuffix("embedding/kernel")
    tensors = {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
    tensors = _unstack(tensors)
    new = any("MlpBlock_0/" in name and "encoderblock" in name for name in tensors)
    words = {
        "norm2": "LayerNorm_1" if new else "LayerNorm_2",
        "attention": f"MultiHeadDotProductAttention_{0 if new else 1}",
        "mlp": "MlpBlock_0" if new else "MlpBlock_3",
    }
    block = {key.format(**words): value for key, value in _GOOGLE_BLOCK.items()}
    out: Tensors = {}
    for name, array in tensors.items():
        match = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", name)
        head = name.removeprefix("MAPHead_0/")
        if match and match[2] in block:
            out[f"blocks.{match[1]}.{block[match[2]]}"] = _google_array(name, array)
        elif head != name and head in _GOOGLE_MAP_HEAD:
            out[f"attn_pool.{_GOOGLE_MAP_HEAD[head]}"] = _google_array(name, array)
        elif name in _GOOGLE_TOP:
            out[_GOOGLE_TOP[name]] = _google_array(name, array)
        elif not name.startswith("pre_logits/"):
            out[name] = array
    return fuse_qkv(_fuse_map_head(out))


def _google_array(name: str, array: np.ndarray) -> np.ndarray:
    if name.endswith("/bias") and array.ndim == 2:  # [heads, head_dim]
        return array.reshape(-1)
    if not name.endswith("/kernel"):
        return array
    if array.ndim == 4:  # [h, w, in, out]
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 3 and "/out/" in name:
        return array.reshape(-1, array.shape[-1]).T
    return array.reshape(array.shape[0], -1).T if array.ndim > 1 else array


def _unstack(tensors: Tensors) -> Tensors:
    out: Tensors = {}
    for name, array in tensors.items():
        if name.startswith("Transformer/encoderblock/") and array.ndim:
            rest = name.removeprefix("Transformer/encoderblock/")
            out.update({f"Transformer/encoderblock_{i}/{rest}": part for i, part in enumerate(array)})
        else:
            out[name] = array
    return out


def _fuse_map_head(tensors: Tensors) -> Tensors:
    start = "MAPHead_0/MultiHeadDotProductAttention_0"
    for kind, leaf in (("kernel", "weight"), ("bias", "bias")):
        names = [f"{start}/{part}/{kind}" for part in ("key", "value")]
        if all(name in tensors for name in names):
            tensors[f"attn_pool.kv.{leaf}"] = np.concatenate([_google_array(name, tensors.pop(name)) for name in names])
    return tensors


LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {
    "resnet": _resnet,
    "swin": _swin,
    "vgg": _vgg,
    "vit": _vit,
}


def to_timm(word: str, state_dict: Mapping[str, Any]) -> Tensors:
    """Renames any known layout of the family `word` to timm's; names that no table knows are left as they are."""
    tensors = unwrap(state_dict)
    return LAYOUTS.get(word, lambda same: same)(tensors)
