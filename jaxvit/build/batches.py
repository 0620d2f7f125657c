"""How the images of an epoch come to the devices: steps, the parts of a batch, how much goes at once."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models.macs import count_macs
from jaxvit.runtime import sharding
from jaxvit.runtime.platform import platform

SHORT = 2e12  # FLOPs: a step of more keeps the device busy for longer than its launches take
LONG = 32e12  # FLOPs of a dispatch: metrics and signals wait for its end
LONGEST = 200e12  # of one that spares a second program: half a second of an H100, ten seconds of a T4
MOST = 32  # steps of one
SMALL = 64 * 64  # pixels of images that are evaluated
EVALUATED = 1024  # of those at once, where there are as many
WORTHWHILE = 8  # steps; fewer are not taken for the sake of dividing an epoch


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batch plan of a run."""

    size: int  # images of an optimiser step
    eval_size: int  # images that are evaluated at once
    steps_per_epoch: int
    num_epochs: int
    per_dispatch: int  # steps of one program

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.num_epochs


def num_parts(config: Config) -> int:
    """Parts that a batch is computed in: optim.accum_steps, or what micro_batch comes to."""
    if not config.micro_batch:
        return config.optim.accum_steps
    if config.optim.accum_steps > 1 or config.batch_size % config.micro_batch:
        raise UserError(f"micro_batch {config.micro_batch} does not divide batch_size, or optim.accum_steps is set too")
    return config.batch_size // config.micro_batch


def split_batch(config: Config, num_train: int) -> tuple[int, int]:
    """(images a step, parts that it is computed in): the config's, or what the training images give."""
    sam, accum_steps = config.optim.sam, num_parts(config)
    m = sam.m if sam.rho and sam.m else config.batch_size
    if config.batch_size % m:
        raise UserError(f"optim.sam.m {m} does not divide batch_size {config.batch_size}")
    batch_size = min(config.batch_size, num_train)
    batch_size -= batch_size % math.lcm(accum_steps, min(m, batch_size))
    if batch_size < 1:
        raise UserError(f"{num_train} training images are fewer than optim.accum_steps or optim.sam.m need")
    return batch_size, max(accum_steps, batch_size // m)


def make_mesh(config: Config, batch_size: int, pieces: int, devices: Sequence[Any] | None = None) -> Mesh:
    """The devices: the config's number of them, or as many as the batch divides over."""
    p = config.parallel
    if p.mode == "pmap":  # each device cuts its own part of the batch
        pieces = math.lcm(num_parts(config), (config.optim.sam.rho and config.optim.sam.m) or 1)
    count = p.num_devices
    if count is None and (devices is not None or jax.process_count() == 1):
        available = jax.device_count() if devices is None else len(devices)
        count = sharding.most_devices(batch_size // pieces, available, fsdp=p.fsdp, tensor=p.tensor)
    mesh = sharding.make_mesh(count, fsdp=p.fsdp, tensor=p.tensor, devices=devices)
    sharding.check_batch_size(batch_size, pieces, mesh)
    return mesh


def steps_per_dispatch(
    wanted: int | None, steps_per_epoch: int, *, able: bool, dry_run: bool, flops: Callable[[], float]
) -> int:
    """The config's number, or what suits the device: 1 on a CPU, where nothing is gained, and for long steps.

    Args:
      wanted: `config.steps_per_dispatch`.
      steps_per_epoch: of the run.
      able: whether the images lie on the device and nothing stands against it.
      dry_run: whether there are only two steps.
      flops: those of a step, about; asked where they decide.

    Raises:
      UserError: several were asked for and the data are not on the device.
    """
    if wanted is not None:
        if wanted > 1 and not able:
            needs = "images on the device, parallel.mode=jit and no teacher with stored logits (one without augment.*)"
            raise UserError(f"steps_per_dispatch {wanted} needs {needs}")
        return wanted
    if not able or dry_run or platform() == "cpu":
        return 1
    of_step = flops()
    if of_step > SHORT:
        return 1
    most = min(MOST, int(LONG // of_step))
    # where they divide the epoch no second program is compiled, which takes as long as the first
    dividing = [n for n in range(WORTHWHILE, steps_per_epoch + 1) if steps_per_epoch % n == 0]
    short, long = [n for n in dividing if n <= most], [n for n in dividing if most < n <= LONGEST // of_step]
    return max(1, (short[-1:] or long[:1] or [min(most, steps_per_epoch)])[0])


def flops_per_step(model: Any, image_shape: tuple[int, int, int], batch_size: int, *, sharp: bool) -> float:
    """FLOPs of a training step, about: forward, and twice as many backward; all of it twice with SAM."""
    return 3 * 2 * count_macs(model, image_shape) * batch_size * (2 if sharp else 1)


def eval_batch_size(image_size: tuple[int, int], batch_size: int, held_out: int) -> int:
    """Images that are evaluated at once: small ones on a GPU or TPU are more than a step trains on."""
    height, width = image_size
    if platform() == "cpu" or height * width > SMALL:
        return batch_size
    return max(batch_size, min(EVALUATED, held_out))
