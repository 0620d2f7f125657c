"""What a row costs by its shapes alone: parameters, multiply-accumulates, work of its training."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxvit import models, tree
from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.models.layers import to_pair
from jaxvit.models.macs import count_macs

CLASSES = {"cifar100": 100}  # by data.name; all other data of the studies have 10
SIZES = {"cifar10": 32, "cifar100": 32, "digits": 8}  # pixels


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of the model as the study has it, at its own image size."""

    model: str
    image_size: tuple[int, int]
    parameters: int
    macs: int  # of one image, forward; 1 MAC is 2 FLOPs
    share: float  # of the training split that is used
    epochs: int
    passes: float  # forward and backward passes of a step, in forward passes

    @property
    def work(self) -> float:
        """A measure to compare the length of rows by."""
        return self.macs * self.share * self.epochs * self.passes


def cost_of(config: Config) -> Cost:
    """Counts a row by tracing its model; nothing is computed."""
    import jax
    import jax.numpy as jnp

    name, data = config.model.name, str(config.data.name)
    fields: dict[str, Any] = {k: v for k, v in config.model.items() if k != "name" and v is not None}
    given = fields.get("image_size") or config.data.image_size
    if given is None and _is_name(config.pretrained):
        given = models.data_config(config.pretrained)["image_size"]
    given = given or _natural_size(SIZES.get(data), models.model_fields(name), fields)
    size = to_pair(tuple(given) if isinstance(given, list | tuple) else given)
    fields |= {"image_size": size, "num_classes": CLASSES.get(data, 10), "in_channels": 3}
    model = models.create_model(name, **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
    passes = (3 if config.optim.freeze != "head_only" else 1) * (2 if config.optim.sam.rho else 1)
    share, epochs = float(config.data.fraction), int(config.num_epochs)
    macs = count_macs(model, (*size, 3))
    return Cost(name, (int(size[0]), int(size[1])), tree.count(shapes["params"]), macs, share, epochs, float(passes))


def _is_name(pretrained: str | None) -> bool:
    return pretrained is not None and parts.pretrained_name(pretrained) is not None


def _natural_size(own: int | None, usual: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """As `parts.resolve` decides: the size of the data where the model can work with it, else the model's."""
    if own is None or "patch_size" not in usual:
        return own or usual["image_size"]
    patch = max(to_pair(given.get("patch_size", usual["patch_size"])))
    enough = "patch_size" in given or (own // patch) ** 2 >= parts.FEWEST_PATCHES
    return own if own % patch == 0 and enough else usual["image_size"]
