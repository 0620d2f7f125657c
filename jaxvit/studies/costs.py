"""What a row costs by its shapes alone: parameters, multiply-accumulates, work of its training."""

import copy
import dataclasses
import functools

from jaxvit import data, tree
from jaxvit.build import facts as of_data
from jaxvit.build import parts, pretraining
from jaxvit.build.facts import Facts
from jaxvit.build.resolve import complete
from jaxvit.config.default import Config
from jaxvit.data.sources.label_file import KINDS
from jaxvit.errors import UserError
from jaxvit.models.macs import count_macs

CLASSES = {"cifar100": 100}  # by data.name; all other data that are not read have 10
SIZES = {"cifar10": 32, "cifar100": 32, "digits": 8}  # pixels
ON_DISK = ("npz", "folder", *KINDS)  # kinds of data that are read for their classes and sizes, where they are there


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
    before: float = 0.0  # work of the pretraining, in the unit of `work`

    @property
    def work(self) -> float:
        """A measure to compare the length of rows by."""
        return self.macs * self.share * self.epochs * self.passes + self.before


def cost_of(config: Config) -> Cost:
    """Counts a row by tracing its model; nothing is computed."""
    facts = _stored(str(config.data.name), config.data.dir, config.data.columns) or _assumed(config)
    config = copy.deepcopy(config)
    if config.pretrained is not None and parts.pretrained_name(config.pretrained) is None:
        config.pretrained = None  # a file, which is looked for when the row is run
    config = complete(config, facts)
    model, size = parts.make_model(config), config.data.image_size
    shapes = parts.variable_shapes(model, size, config.model.in_channels)
    passes = (3 if config.optim.freeze != "head_only" else 1) * (2 if config.optim.sam.rho else 1)
    share, epochs = float(config.data.fraction), int(config.num_epochs)
    macs = count_macs(model, (*size, config.model.in_channels))
    before = 0.0
    if config.pretrain.name is not None:
        autoencoder = pretraining.make_autoencoder(config, model)
        before = 3.0 * count_macs(autoencoder, (*size, config.model.in_channels)) * share * config.pretrain.num_epochs
    return Cost(config.model.name, size, tree.count(shapes["params"]), macs, share, epochs, float(passes), before)


@functools.lru_cache(maxsize=8)
def _stored(name: str, data_dir: str | None, columns: str | None) -> Facts | None:
    """The facts of data that lie on the disk; None where they are elsewhere, or cannot be read."""
    if name.partition(":")[0] not in ON_DISK:
        return None
    try:
        return of_data.of_dataset(data.load_dataset(name, data_dir=data_dir, columns=columns))
    except UserError:
        return None  # the run will say why


def _assumed(config: Config) -> Facts:
    """The facts of the data of the published studies, which need not be there to be counted."""
    name = str(config.data.name)
    pixels = SIZES.get(name)
    return Facts(
        num_classes=config.model.get("num_classes") or CLASSES.get(name, 10),
        num_train=0, num_val=0, num_test=0,
        shape=None if pixels is None else (pixels, pixels, 3),
        in_channels=3,
        image_size=None if pixels is None else (pixels, pixels),
        mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip
