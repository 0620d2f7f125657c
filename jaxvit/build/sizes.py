"""The sizes of training images by epoch: progressive resizing, and training below the size of evaluation.

Howard 2018 (fast.ai, DAWNBench) and Tan & Le 2021 (EfficientNetV2) begin with small images; Touvron et al. 2019
(FixRes) train at a smaller size than they test at. Parameters keep the shapes that they have at `data.image_size`.
"""

from collections.abc import Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.models.macs import count_macs

Size = tuple[int, int]
EXAMPLE = "((0, 128), (40, 160), (70, 192))"


def read_sizes(entries: Any, num_epochs: int) -> list[tuple[int, Size]]:
    """Returns (first epoch, counted from 0, (h, w) of its training images) of `data.train_sizes`; [] where it is ().

    Raises:
      UserError: an entry is not such a pair, or the epochs do not increase from 0 or are not reached.
    """
    found: list[tuple[int, Size]] = []
    for entry in _several(entries):
        pair: tuple[Any, ...] = tuple(entry) if isinstance(entry, list | tuple) else ()
        size = pair[1:] and (tuple(pair[1]) if isinstance(pair[1], list | tuple) else (pair[1],))
        if len(pair) != 2 or not _whole(pair[0], 0) or len(size) not in (1, 2) or not all(_whole(s, 1) for s in size):
            raise UserError(f"data.train_sizes has {entry!r}; expected (epochs done, pixels) each, such as {EXAMPLE}")
        epoch = pair[0]
        if not found and epoch != 0:
            raise UserError(f"data.train_sizes begins at epoch {epoch}; expected 0, such as {EXAMPLE}")
        if found and epoch <= found[-1][0]:
            raise UserError(f"data.train_sizes: epoch {epoch} does not come after {found[-1][0]}; expected {EXAMPLE}")
        if epoch >= num_epochs:
            raise UserError(f"data.train_sizes: epoch {epoch} is never reached; num_epochs is {num_epochs}")
        found.append((epoch, (size[0], size[-1])))
    return found


def _several(entries: Any) -> Sequence[Any]:
    """The entries; a pair of numbers, as ((0, 128)) is in Python, is the one entry that was meant."""
    if not isinstance(entries, list | tuple):
        raise UserError(f"data.train_sizes is {entries!r}; expected (epochs done, pixels) each, such as {EXAMPLE}")
    return [entries] if len(entries) == 2 and all(_whole(x, 0) for x in entries) else entries


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def train_sizes(config: Config) -> list[tuple[int, Size]]:
    """Returns (first epoch, (h, w)) of a complete config: `data.image_size` from epoch 0 where no others are set.

    Raises:
      UserError: see `read_sizes`; or a size is above `data.image_size`, at which images are evaluated.
    """
    h, w = to_pair(config.data.image_size)
    sizes = read_sizes(config.data.train_sizes, config.num_epochs) or [(0, (h, w))]
    for _, size in sizes:
        if size[0] > h or size[1] > w:
            raise UserError(
                f"data.train_sizes has {size[0]}x{size[1]}, more than the {h}x{w} of data.image_size, at which images "
                f"are evaluated\nexpected at most that, or a larger data.image_size"
            )
    return sizes


def at_any_size(model: Any) -> Any:
    """The model as it takes images of another size, with the same parameters: a position table is resampled."""
    dynamic = getattr(model, "dynamic_img_size", True)
    return model if dynamic else model.clone(dynamic_img_size=True)


def describe(model: nn.Module, sizes: Sequence[tuple[int, Size]], num_epochs: int, evaluated: Size) -> str:
    """One line for the header: the epochs of each size, and the share of the work of evaluation that an image takes."""
    channels = model.in_channels  # pyright: ignore[reportAttributeAccessIssue]
    whole = count_macs(model, (*evaluated, channels))
    ends = [first for first, _ in sizes[1:]] + [num_epochs]
    said = []
    for (first, (h, w)), end in zip(sizes, ends, strict=True):
        share = count_macs(at_any_size(model), (h, w, channels)) / whole
        epochs = f"{first + 1}-{end}" if end > first + 1 else str(end)
        said.append(f"{epochs} at {h}x{w}" + (f" ({share:.2f} of the MACs)" if (h, w) != evaluated else ""))
    return f"epochs {', '.join(said)}; evaluation at {evaluated[0]}x{evaluated[1]}"


def check_model(
    model: nn.Module, variables: Any, sizes: Sequence[Size], in_channels: int, asked: str = "data.train_sizes has"
) -> None:
    """Raises UserError where a model, with variables of these shapes, cannot be applied to images of one of the sizes.

    The position tables of a ViT and the windows of a Swin can be; a model whose first linear layer reads all cells of a
    map cannot. `asked` begins the message.
    """
    for h, w in sizes:
        images = jax.ShapeDtypeStruct((1, h, w, in_channels), jnp.float32)
        try:
            jax.eval_shape(at_any_size(model).apply, variables, images)
        except UserError as error:
            raise UserError(f"{asked} {h}x{w}: {error}") from None
        except (flax.errors.ScopeParamShapeError, TypeError, ValueError) as error:
            raise UserError(
                f"{asked} {h}x{w}: {type(model).__name__} has other parameters at that size than at its own, or cannot "
                f"be applied to it\n({str(error).splitlines()[0][:160]})"
            ) from None
