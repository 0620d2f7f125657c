"""Other layouts of the same weights, recognised by marker keys and renamed to timm's: tables, then two small steps."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.pretrained.google import fuse_qkv, google_vit

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
