"""Where the time of a step goes: what asked for an instruction, and how it is called."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT, tool

profile_step = tool("profile_step")
BACK = "jit(step)/transpose(jvp(SwinTransformer))/layers_0/attn/window_attention_backward/pallas_call"
PROGRAM = f"""\
ENTRY %main (a: f32[8]) -> f32[8] {{
  %dot.1 = f32[8]{{0}} dot(%a, %b), metadata={{op_name="jit(step)/jvp(SwinTransformer)/layers_0/attn/qkv/dot_general"}}
  %call.2 = f32[8]{{0}} custom-call(%a), custom_call_target="__gpu$xla.gpu.triton", metadata={{op_name="{BACK}"}}
  ROOT %pad.3 = f32[8]{{0}} pad(%a), metadata={{op_name="jit(step)/jvp(ResNet)/layer1_0/conv1/pad"}}
}}
"""


def test_instructions_are_told_apart_by_part_and_kind():
    asked = profile_step.modules(PROGRAM)
    parts = {name: profile_step.first(profile_step.PARTS, path, "rest") for name, path in asked.items()}
    assert parts == {
        "dot.1": "linear layers of attention",
        "call.2": "attention, without its linear layers",
        "pad.3": "convolutions",
    }
    kinds = {
        name: profile_step.first(profile_step.KINDS, f"{name} {path.rsplit('/', 1)[-1]}", "rest")
        for name, path in asked.items()
    }
    assert kinds == {"dot.1": "matmul", "call.2": "own kernel", "pad.3": "copy or transposition"}


@pytest.mark.parametrize(
    "path, part",
    [
        ("jvp(ResNet)/layer2_0/layer2_0.add/layer2_0.downsample/downsample_0/conv_general_dilated", "convolutions"),
        ("jvp(ResNet)/layer2_0/layer2_0.add/layer2_0.downsample/downsample_1/reduce_sum", "norms"),
        ("jvp(ResNet)/layer2_0/layer2_0.add/layer2_0.downsample/downsample_1/conv_general_dilated", "convolutions"),
        ("jvp(ResNet)/layer2_0/layer2_0.add/layer2_0.downsample/downsample_2/mul", "norms"),
        ("jvp(ResNet)/layer2_0/layer2_0.add/layer2_0.downsample/slice", "convolutions"),
        ("jvp(SwinTransformer)/layers_1/downsample/reduction/dot_general", "embedding and merging"),
        ("jvp(SwinTransformer)/layers_1/downsample/norm/mul", "norms"),
        ("jvp(VisionTransformer)/patch_embed/proj/dot_general", "embedding and merging"),
    ],
)
def test_shortcuts_of_a_resnet_are_convolutions_and_norms(path, part):
    assert profile_step.first(profile_step.PARTS, f"jit(train_step)/{path}", "rest") == part


def test_an_empty_profile_is_no_success():
    said = profile_step.shortfall({"platform": "gpu", "kernel_seconds": 0.001, "step_seconds": 0.1})
    assert said is not None and "1% of a step" in said and "command buffers" in said
    assert profile_step.shortfall({"platform": "gpu", "kernel_seconds": 0.081, "step_seconds": 0.1}) is None


@pytest.mark.parametrize("given, wanted", [
    ("", "--xla_gpu_enable_command_buffer="),
    ("--xla_dump_to=/x", "--xla_dump_to=/x --xla_gpu_enable_command_buffer="),
    ("--xla_gpu_enable_command_buffer=FUSION", "--xla_gpu_enable_command_buffer=FUSION"),
])  # fmt: skip
def test_command_buffers_are_off_before_jax_starts(given, wanted):
    """The flag stands when the tool imports JAX, in a process of its own; what was asked for stays."""
    program = """
import os, runpy, sys
class Probe:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            print(os.environ.get("XLA_FLAGS"))
            sys.exit(0)
sys.meta_path.insert(0, Probe())
runpy.run_path(sys.argv[1])
"""
    environment = {**os.environ, "XLA_FLAGS": given}
    command = [sys.executable, "-c", program, str(ROOT / "tools" / "profile_step.py")]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == wanted
