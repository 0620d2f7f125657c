"""Timm's ViTs and ours with the same random weights."""

import re

import jax
import numpy as np
import pytest

from jaxvit.models.vit import VisionTransformer
from jaxvit.models.vit_variants import VARIANTS


def randomise(module, seed: int = 0) -> None:
    """Weights on the scale of trained ones: norms and layer scales near one, biases not zero."""
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(seed)
    for name, p in module.named_parameters():
        if re.search(r"(norm\w*\.weight|gamma)$", name):
            values = 1 + 0.2 * rng.standard_normal(p.shape)
        elif re.search(r"pos_embed|token|latent", name):
            values = 0.5 * rng.standard_normal(p.shape)
        else:
            fan_in = np.prod(p.shape[1:]) if p.ndim > 1 else 25
            values = rng.standard_normal(p.shape) / np.sqrt(fan_in)
        p.data = torch.tensor(values, dtype=torch.float32)


def renamed(tensors) -> dict:
    """Arrays by timm's names -> a tree of parameters."""
    tree: dict = {}
    for name, tensor in tensors.items():
        array, path = tensor.detach().numpy(), re.sub(r"\.(\d+)(?=\.)", r"_\1", name).split(".")
        if path[-1] == "weight":
            path[-1] = "kernel" if array.ndim > 1 else "scale"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = array
    return tree


def timm_pair(name: str, **fields):
    """Timm's model of that name and ours, with the same random weights (fields in our words)."""
    timm = pytest.importorskip("timm")
    theirs = {"image_size": "img_size", "in_channels": "in_chans"}
    module = timm.create_model(name, **{theirs.get(k, k): v for k, v in fields.items()}).eval()
    randomise(module)
    return module, VisionTransformer(**(VARIANTS[name] | fields)), {"params": renamed(dict(module.named_parameters()))}


def assert_same_logits(module, model, variables, size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).standard_normal((2, *size, model.in_channels)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.tensor(x).permute(0, 3, 1, 2)).numpy()
    logits = np.asarray(jax.jit(model.apply)(variables, x))
    assert np.abs(logits - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
