"""What a row costs by its shapes alone: parameters, multiply-accumulates, work of its training."""

import dataclasses
from typing import Any

from jaxvit import models, setup, tree
from jaxvit.config import Config
from jaxvit.macs import count_macs
from jaxvit.models.layers import to_pair

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
    if given is None:  # as `setup` decides: the weights' size; a convolutional network takes the data's
        own = models.data_config(config.pretrained)["image_size"] if _is_name(config.pretrained) else None
        usual = models.model_fields(name)
        fits = SIZES.get(data) if "patch_size" not in usual else None
        given = own or fits or usual["image_size"]
    size = to_pair(tuple(given) if isinstance(given, list | tuple) else given)
    fields |= {"image_size": size, "num_classes": CLASSES.get(data, 10), "in_channels": 3}
    model = models.create_model(name, **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
    passes = (3 if config.optim.freeze != "head_only" else 1) * (2 if config.optim.sam.rho else 1)
    share, epochs = float(config.data.fraction), int(config.num_epochs)
    macs = count_macs(model, (*size, 3))
    return Cost(name, (int(size[0]), int(size[1])), tree.count(shapes["params"]), macs, share, epochs, float(passes))


def _is_name(pretrained: str | None) -> bool:
    return pretrained is not None and setup.pretrained_name(pretrained) is not None
