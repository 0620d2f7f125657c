"""How many steps go to the device at once, and how many images are evaluated at once."""

import functools

import jax
import pytest

from jaxvit.build import batches
from jaxvit.config.default import default
from jaxvit.errors import UserError
from jaxvit.models import create_model


def number(steps_per_epoch, *, wanted=None, able=True, dry_run=False, flops=1e6):
    return batches.steps_per_dispatch(wanted, steps_per_epoch, able=able, dry_run=dry_run, flops=lambda: flops)


def test_the_number_of_steps_that_suits(monkeypatch):
    assert number(10) == 1  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert number(10) == 10
    assert number(10, dry_run=True) == 1
    assert number(95) == 19  # an epoch in five alike, so that one program does
    assert number(97) == 97  # nothing divides it: all at once, so that one program does
    assert number(382, flops=4.3e11) == 191  # CIFAR-100 less 2 %, by 128
    assert number(382, flops=1.9e12) == 16  # 191 would keep a signal waiting for too long: two programs
    assert number(4) == 4
    assert number(100, able=False) == 1  # streamed
    # FLOPs of a step decide, not pixels: a launch costs as much for small images as for large ones
    assert number(100, flops=1.9e12) == 10  # at most 16: a signal waits for 32 TFLOP
    assert number(100, flops=2.1e12) == 1
    assert number(100, wanted=2) == 2
    with pytest.raises(UserError, match="needs images on the device"):
        number(100, wanted=2, able=False)
    assert default().steps_per_dispatch is None


def test_flops_of_a_step():
    """DeiT-Ti at 224 pixels: 1.26 GMACs per image (timm's table), three passes of 2 FLOPs each; SAM twice that."""
    flops = functools.partial(batches.flops_per_step, create_model("deit_tiny_patch16_224"), (224, 224, 3), 64)
    plain = flops(sharp=False)
    assert plain == pytest.approx(6 * 64 * 1.26e9, rel=0.02)
    assert flops(sharp=True) == 2 * plain


def test_small_images_are_evaluated_in_large_batches(monkeypatch):
    assert batches.eval_batch_size((32, 32), 128, 10_000) == 128  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert batches.eval_batch_size((32, 32), 128, 10_000) == 1024
    assert batches.eval_batch_size((32, 32), 2048, 10_000) == 2048
    assert batches.eval_batch_size((32, 32), 128, 450) == 450
    assert batches.eval_batch_size((224, 224), 128, 10_000) == 128
