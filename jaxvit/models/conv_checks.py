"""Fields of the convolutional families that do not fit each other: said before a network is built from them."""

from collections.abc import Iterable
from typing import Any

from jaxvit.errors import UserError

GROUPS = 32  # of GroupNorm


def check_resnet(model: Any) -> None:
    """Raises UserError where a convolution would have no channels, or channels that its groups do not divide."""
    model.stage_blocks()
    if model.down_kernel_size % 2 == 0:
        raise UserError(f"down_kernel_size={model.down_kernel_size} is even; expected 1 or 3.")
    widths = _stem_widths(model)
    for stage, depth in enumerate(model.layers):
        if model.pruned is not None and len(model.pruned[stage][1]) < depth:
            known = [len(inner) for _, inner in model.pruned]
            raise UserError(f"layers={model.layers} has more blocks than `pruned` has widths for: {known}.")
        for block in dict.fromkeys(model.block_widths(stage, i) for i in range(depth)):
            _check_block(model, stage, block)
            widths += block
    if model.norm_layer == "groupnorm":
        _check_norm("channels, base_width and stem_width", widths)


def _stem_widths(model: Any) -> list[int]:
    first, width = model.stem_widths()[model.stem_type]
    if first < 1:
        raise UserError(f"stem_width={model.stem_width} leaves a stem of no channels; expected at least 4.")
    return [first, width] + ([model.stem_width] if model.stem_type and model.stem == "imagenet" else [])


def _check_block(model: Any, stage: int, widths: tuple[int, ...]) -> None:
    planes, groups, inner = model.channels[stage], model.cardinality, list(widths[:-1])
    if inner[-1] < 1 and len(inner) > 1:
        least = -(-64 // model.base_width)
        raise UserError(
            f"channels={model.channels} with base_width={model.base_width}: {planes} is too narrow, as a group "
            f"would have less than one channel; expected at least {least}."
        )
    if inner[0] < 1:
        raise UserError(f"block_reduce_first={model.block_reduce_first} leaves no channels of {planes}.")
    if any(width % groups for width in inner):
        between = " and ".join(map(str, inner))
        raise UserError(f"cardinality={groups} does not divide the {between} channels of a block.")


def check_vgg(model: Any) -> None:
    """Raises UserError for a list of layers, or a width of the hidden layers, of which no network can be built."""
    wrong = next((entry for entry in model.cfg if entry != "M" and not isinstance(entry, int)), None)
    if wrong is not None:
        raise UserError(f"cfg holds {wrong!r}; expected numbers of channels, and 'M' for each pool.")
    if not any(isinstance(entry, int) for entry in model.cfg):
        raise UserError(f"cfg={model.cfg} has no convolution; expected numbers of channels, and 'M' for each pool.")
    if int(model.head_hidden_size * model.mlp_ratio) < 1:
        raise UserError(f"mlp_ratio={model.mlp_ratio} leaves no hidden units of {model.head_hidden_size}.")
    if model.norm_layer == "groupnorm":
        _check_norm("cfg", [entry for entry in model.cfg if entry != "M"])


def _check_norm(what: str, widths: Iterable[int]) -> None:
    wrong = next((width for width in widths if width % GROUPS), None)
    if wrong is not None:
        raise UserError(
            f"norm_layer='groupnorm' has {GROUPS} groups, which do not divide {wrong} channels; "
            f"expected multiples of {GROUPS} from {what}."
        )
