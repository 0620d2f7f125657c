"""Plans for GPUs that are not here: their names, and what is traced for them."""

import re

import jax
import jax.numpy as jnp
import pytest

from jaxvit import create_model
from jaxvit.commands import plan
from jaxvit.errors import UserError
from jaxvit.plan import chips, facts, step
from jaxvit.runtime import platform
from tests.helpers import tiny_config
from tests.helpers.marks import needs_cuda
from tests.models.swin_test import tiny


def test_names_of_nodes():
    node = chips.parse("h200:8")
    assert (node.name, node.chips, node.is_gpu, node.is_cpu, node.chip.platform) == ("h200:8", 8, True, False, "gpu")
    assert not chips.parse("v5e:4x4").is_gpu and chips.parse("cpu:2").is_cpu
    for wrong in ("h200:16", "h100:2x4"):
        with pytest.raises(UserError, match="at most 8, as in h[12]00:8"):
            chips.parse(wrong)
    with pytest.raises(UserError, match="Did you mean 'h200'"):
        chips.parse("h20:1")


def test_the_compiler_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(plan, "_has", lambda name: False)
    with pytest.raises(UserError, match=r"jaxvit\[cuda\].*no GPU is needed"):
        plan.run(["--config", "none.py", "--topology", "h100:1"])
    monkeypatch.undo()
    assert plan._has("jax.numpy") and not plan._has("no_such_package.part")


def test_what_is_traced_is_the_same_anywhere_but_for_kernels():
    """Forms of plain XLA are chosen when a program is lowered; a kernel is asked for, and needs a GPU."""
    model = create_model("vit_tiny_patch16_224", image_size=32, depth=1)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def traced(model, variables):
        return re.sub(r" at 0x\w+", "", str(jax.make_jaxpr(model.apply)(variables, images)))

    here = traced(model, variables)
    kernel = tiny(attn_implementation="pallas")
    shapes = jax.eval_shape(kernel.init, jax.random.key(0), images)
    with pytest.raises(UserError, match="needs a GPU, this is a cpu"):
        traced(kernel, shapes)
    with platform.made_for("gpu"):
        assert traced(model, variables) == here
        assert "window_attention_forward" in traced(kernel, shapes)
    assert platform.platform() == "cpu"


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
        found = step.compile_step(config, facts.find(config), where)
    assert found.fits and found.devices == where.chips
    assert programs[0].count('custom_call_target="__gpu$xla.gpu.triton"') == 2
