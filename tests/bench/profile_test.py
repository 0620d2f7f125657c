"""Where the time of a step goes: what asked for an instruction, and how it is called."""

from tests.bench.gpu_bench_test import tool

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
