"""Plans for GPUs that are not here: their names, and what is traced for them."""

import jax
import jax.numpy as jnp
import pytest

from jaxvit.plan import chips, facts, step
from jaxvit.runtime import platform
from tests.helpers import tiny_config
from tests.helpers.marks import needs_cuda


@needs_cuda
def test_a_program_is_compiled_for_a_gpu():
    (device,) = step.devices_of(chips.parse("h200:1"))
    placed = jax.sharding.SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((64, 64), jnp.bfloat16, sharding=placed)
    compiled = jax.jit(lambda x: jnp.tanh(x @ x)).lower(x).compile()
    assert device.device_kind == "NVIDIA H200" and "bf16[64,64]" in compiled.as_text()


@needs_cuda
@pytest.mark.parametrize("topology", ["h100:1", "h200:2"])
def test_a_step_with_our_own_kernel_is_planned_where_no_gpu_is(topology, monkeypatch):
    """JAX 0.11 asks which GPU a kernel is for, of the devices that are here unless it is told."""
    config = tiny_config("cifar10", dtype="bfloat16", batch_size=4, parallel__num_devices=None)
    config.model = {"name": "swin_tiny_patch4_window7_224", "depths": (1,), "num_heads": (2,), "window_size": 4,
                    "embed_dim": 32, "attn_implementation": "pallas"}  # fmt: skip
    where = chips.parse(topology)
    programs = []
    monkeypatch.setattr(step.traffic, "memory_bytes", lambda hlo: programs.append(hlo) or 1.0)
    with platform.made_for("gpu"):
        (found,) = step.compile_steps(config, facts.find(config), where)
    assert found.fits and found.devices == where.chips
    assert programs[0].count('custom_call_target="__gpu$xla.gpu.triton"') == 2
