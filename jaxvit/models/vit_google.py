"""Google's .npz files of Vision Transformers, from google-research/vision_transformer and big_vision."""

import re

import numpy as np

from jaxvit.models.layouts import Tensors, fuse_qkv

# They name a module's class and its place among the block's modules; big_vision counts anew.
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
    "pre_logits/kernel": "pre_logits.fc.weight",
    "pre_logits/bias": "pre_logits.fc.bias",
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
        else:
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
