"""Google's layouts of a ViT, made from timm's names."""

import numpy as np

OLD_QKV, NEW_QKV = ("query", "key", "value"), ("q_proj", "k_proj", "v_proj")


def google(state, heads, new, stacked=False):
    """The .npz of google-research/vision_transformer, or of big_vision: `new`."""
    norm2, attention, mlp = ("LayerNorm_1", 0, 0) if new else ("LayerNorm_2", 1, 3)
    blocks = []
    for i in range(sum(name.endswith("norm1.weight") for name in state)):
        block, attn = {}, f"MultiHeadDotProductAttention_{attention}"
        weights = np.split(state.pop(f"blocks.{i}.attn.qkv.weight"), 3)
        biases = np.split(state.pop(f"blocks.{i}.attn.qkv.bias"), 3)
        d = len(weights[0])
        for part, weight, bias in zip(OLD_QKV, weights, biases, strict=True):
            block[f"{attn}/{part}/kernel"] = weight.T.reshape(d, heads, d // heads)
            block[f"{attn}/{part}/bias"] = bias.reshape(heads, d // heads)
        block[f"{attn}/out/kernel"] = state.pop(f"blocks.{i}.attn.proj.weight").T.reshape(heads, d // heads, d)
        block[f"{attn}/out/bias"] = state.pop(f"blocks.{i}.attn.proj.bias")
        for j in (0, 1):
            block[f"MlpBlock_{mlp}/Dense_{j}/kernel"] = state.pop(f"blocks.{i}.mlp.fc{j + 1}.weight").T
            block[f"MlpBlock_{mlp}/Dense_{j}/bias"] = state.pop(f"blocks.{i}.mlp.fc{j + 1}.bias")
            name = norm2 if j else "LayerNorm_0"
            block[f"{name}/scale"] = state.pop(f"blocks.{i}.norm{j + 1}.weight")
            block[f"{name}/bias"] = state.pop(f"blocks.{i}.norm{j + 1}.bias")
        blocks.append(block)
    if stacked:
        made = {f"Transformer/encoderblock/{n}": np.stack([b[n] for b in blocks]) for n in blocks[0]}
    else:
        made = {f"Transformer/encoderblock_{i}/{n}": a for i, block in enumerate(blocks) for n, a in block.items()}
    made["pos_embedding" if new else "Transformer/posembed_input/pos_embedding"] = state.pop("pos_embed")
    made["embedding/kernel"] = state.pop("patch_embed.proj.weight").transpose(2, 3, 1, 0)
    made["embedding/bias"] = state.pop("patch_embed.proj.bias")
    made["Transformer/encoder_norm/scale"] = state.pop("norm.weight")
    made["Transformer/encoder_norm/bias"] = state.pop("norm.bias")
    if "cls_token" in state:
        made["cls"] = state.pop("cls_token")
    if "head.weight" in state:
        made |= {"head/kernel": state.pop("head.weight").T, "head/bias": state.pop("head.bias")}
    return made
