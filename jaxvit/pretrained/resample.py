"""Weights that depend on a size, carried to another one, by the rules timm uses; plain numpy in float64."""

import numpy as np

Pair = tuple[int, int]


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys, 1981) with parameter `a`."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(old: int, new: int, method: str = "bicubic", antialias: bool = True) -> np.ndarray:
    """The matrix [new, old] that resizes one axis as torch.nn.functional.interpolate does.

    `method` is "bicubic", "bilinear", or "corners": bilinear with align_corners, where both end pixels stay.
    torch's cubic has a = -0.5 with antialiasing, where borders are cut off and weights renormalised, and a = -0.75
    without, where the border pixel is repeated.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    if method == "corners":
        centres = np.arange(new) * (old - 1) / max(new - 1, 1)
    if antialias:
        distance = (np.arange(old)[None, :] - centres[:, None]) / max(scale, 1.0)
        weights = _cubic(distance, -0.5) if method == "bicubic" else np.maximum(1 - np.abs(distance), 0)
        return weights / weights.sum(1, keepdims=True)
    if method != "bicubic":  # torch starts its linear interpolation at pixel 0, not before it
        centres = np.maximum(centres, 0.0)
    first = np.floor(centres).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        distance = first + tap - centres
        weight = _cubic(distance, -0.75) if method == "bicubic" else np.maximum(1 - np.abs(distance), 0)
        np.add.at(matrix, (np.arange(new), np.clip(first + tap, 0, old - 1)), weight)
    return matrix


def resample_abs_pos_embed(
    table: np.ndarray,
    new_grid: Pair,
    old_grid: Pair,
    num_prefix_tokens: int,
    *,
    method: str = "bicubic",
    antialias: bool = True,
) -> np.ndarray:
    """Resizes a position table [1, prefix + gh*gw, d] to another grid; the prefix entries stay as they are."""
    if new_grid == old_grid:
        return table
    prefix, grid = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    grid = grid.reshape(*old_grid, table.shape[-1]).astype(np.float64)
    down, across = (resize_matrix(o, n, method, antialias) for o, n in zip(old_grid, new_grid, strict=True))
    grid = np.einsum("yh,xw,hwd->yxd", down, across, grid, optimize=True)
    grid = grid.reshape(1, -1, table.shape[-1]).astype(np.float32)
    return np.concatenate([prefix.astype(np.float32), grid], axis=1)


def resample_patch_embed(
    kernel: np.ndarray, new_size: Pair, *, method: str = "bicubic", antialias: bool = True
) -> np.ndarray:
    """Resizes a patch kernel [d, c, ph, pw] for resized patches (FlexiViT; Beyer et al., 2023)."""
    old_size = kernel.shape[2:]
    if tuple(old_size) == tuple(new_size):
        return kernel
    down, across = (resize_matrix(o, n, method, antialias) for o, n in zip(old_size, new_size, strict=True))
    inverse = np.linalg.pinv(np.kron(down, across))  # [old, new]
    flat = kernel.reshape(*kernel.shape[:2], -1).astype(np.float64)
    return (flat @ inverse).reshape(*kernel.shape[:2], *new_size).astype(np.float32)


def _geometric_knots(old: int, new: int) -> np.ndarray:
    """Where the old offsets lie on the new axis: 1 apart at the centre, then wider by a common ratio (BEiT)."""
    half = old // 2
    low, high = 1.01, 1.5
    ratio = low
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    steps = np.cumsum(ratio ** np.arange(half))
    return np.concatenate([-steps[::-1], [0.0], steps])


def _geometric_matrix(old: int, new: int) -> np.ndarray:
    knots, points = _geometric_knots(old, new), np.arange(new) - new // 2
    return np.stack([np.interp(points, knots, basis) for basis in np.eye(old)], axis=1)


def resize_rel_pos_bias_table(table: np.ndarray, new_window: Pair, old_window: Pair) -> np.ndarray:
    """Resizes Swin's bias table [(2wh-1)*(2ww-1), heads] to another window, linearly between geometric offsets."""
    if new_window == old_window:
        return table
    old, new = ([2 * w - 1 for w in window] for window in (old_window, new_window))
    grid = table.reshape(*old, table.shape[-1]).astype(np.float64)
    down, across = (_geometric_matrix(o, n) for o, n in zip(old, new, strict=True))
    grid = np.einsum("yh,xw,hwd->yxd", down, across, grid, optimize=True)
    return grid.reshape(-1, table.shape[-1]).astype(np.float32)


def adapt_input_conv(kernel: np.ndarray, in_channels: int) -> np.ndarray:
    """Fits a first convolution [out, c, h, w] to other channels: their sum for one, else repeated and rescaled."""
    old = kernel.shape[1]
    if in_channels == old:
        return kernel
    kernel = kernel.astype(np.float32)
    if in_channels == 1:
        return kernel.sum(1, keepdims=True)
    repeats = -(-in_channels // old)
    return np.tile(kernel, (1, repeats, 1, 1))[:, :in_channels] * np.float32(old / in_channels)
