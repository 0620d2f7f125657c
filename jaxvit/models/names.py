"""The names of tensors: linen's paths, timm's names of the same tensors, and how the axes of each turn."""

import re

Path = tuple[str, ...]

# linen's word for a leaf -> PyTorch's; a leaf that is not listed (cls_token, gamma, ...) keeps its name and axes.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# A kernel's axes by rank: dense [in, out] -> [out, in], conv [*window, in, out] -> [out, in, *window].
KERNEL_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}


def timm_name(path: Path) -> str:
    """Spells a linen path as timm does: ("layer1_0", "conv1", "kernel") -> layer1.0.conv1.weight."""
    *modules, leaf = path
    dotted = [re.sub(r"_(?=\d+(_\d+)*$)", ".", module) for module in modules]
    return ".".join([*dotted, LEAVES.get(leaf, leaf)])


def module_path(name: str) -> str:
    """Spells the name of one of timm's modules as linen does: "layer1.0.conv1" -> "layer1_0/conv1"."""
    return re.sub(r"\.(?=\d+(\.|$))", "_", name).replace(".", "/")
