"""Plans: slices and their chips, traffic from HLO, facts without data, whether it fits and what would help."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit.errors import UserError
from jaxvit.plan import chips, estimate, facts, step, traffic
from jaxvit.train import loop as train
from tests.helpers import tiny_config, write_npz

ROOT = Path(__file__).resolve().parent.parent.parent

HLO = """\
%all-reduce-scatter.1 (input: f32[8,4]) -> f32[2,4] {
  %all-reduce.3 = f32[8,4]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %all-gather.6 = bf16[16,4]{1,0:T(8,128)S(1)} all-gather(%x), replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}
  %ar = (f32[10]{0}, f32[30]{0}) all-reduce(%a, %b), replica_groups=[1,8]<=[8], to_apply=%add
  %ags = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), replica_groups={{0,1},{2,3}}, dimensions={0}
  %agd = f32[8]{0} all-gather-done(%ags)
  %one = f32[10]{0} all-reduce(%a), replica_groups={{0},{1}}, to_apply=%add
  %fusion = f32[10]{0} fusion(%all-reduce.3), calls=%all-reduce-scatter.1
}
"""

LOOP = """\
%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %near = f32[8]{0:S(1)} copy(%p)
  ROOT %ar = f32[8]{0} all-reduce(%near), replica_groups={{0,1}}, to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %gather = f32[2]{0} fusion(%a, %a), kind=kLoop, calls=%somewhere
  ROOT %w = f32[8]{0} while(%a), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""

# As XLA writes matmuls and convolutions for a GPU: results and scratch; bytes that are a result, or alone, are data.
CALLS = """\
ENTRY %main (a: bf16[64,32], b: bf16[32,16]) -> bf16[64,16] {
  %a = bf16[64,32]{1,0} parameter(0)
  %b = bf16[32,16]{1,0} parameter(1)
  %gemm = (bf16[64,16]{1,0}, s8[33554432]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul"
  %dot = bf16[64,16]{1,0} get-tuple-element(%gemm), index=0
  %conv = (bf16[64,8]{1,0}, u8[4096]{0}) custom-call(%dot), custom_call_target="__cudnn$convForward"
  %pair = (s8[100]{0}, s8[4,8]{1,0}) custom-call(%dot), custom_call_target="two_results"
  %whole = u8[64]{0} custom-call(%dot), custom_call_target="one_result"
  ROOT %out = bf16[64,16]{1,0} negate(%dot)
}
"""


def test_traffic_is_read_from_the_program():
    found = traffic.count(HLO, 8)
    assert found["reduce-scatter"] == {"operations": 1, "bytes": 32.0, "sent": 32.0 * 3}
    assert found["all-gather"] == {"operations": 2, "bytes": 128.0 + 32.0, "sent": 128.0 * 3 / 4 + 32.0 / 2}
    assert found["all-reduce"] == {"operations": 1, "bytes": 160.0, "sent": 160.0 * 2 * 7 / 8}


def test_loops_count_each_time_and_memory_on_the_chip_not_at_all():
    assert traffic.count(LOOP, 2)["all-reduce"] == {"operations": 5, "bytes": 160.0, "sent": 160.0}
    assert traffic.memory_bytes(LOOP) == (8 + 32) + 5 * (32 + 32)  # the gather, and in the loop one read and one write


def test_scratch_of_libraries_is_no_traffic():
    a, b, dot = 64 * 32 * 2, 32 * 16 * 2, 64 * 16 * 2
    assert traffic.memory_bytes(CALLS) == (a + b + dot) + (dot + 64 * 8 * 2) + (dot + 132) + (dot + 64) + 2 * dot


@pytest.mark.parametrize(
    "name, said",
    [("v5f:4x4", "no chip 'v5f'.*v5e"), ("v5e", "names no slice"), ("v5e:4x4x4", "2 sides"), ("v5p:4x4", "3 sides"),
     ("cpu:2x2", "counted"), ("v5e:0x4", "names no slice")],
)  # fmt: skip
def test_wrong_topologies_are_named(name, said):
    with pytest.raises(UserError, match=said):
        chips.parse(name)


def test_facts_come_from_headers_names_and_arguments(tmp_path):
    name = write_npz(tmp_path, num_train=48, num_test=20, size=8)
    config = tiny_config(name)
    here = facts.find(config)
    assert (here.num_classes, here.num_train, here.num_val, here.num_test, here.shape) == (3, 43, 5, 20, (8, 8, 3))
    assert here.note is None
    config.data.name = "tfds:imagenet2012"
    assert facts.find(config).num_classes == 1000 and facts.find(config, num_train=5).num_train == 5
    config.data.name = "folder:/nowhere"
    assert facts.find(config, num_classes=7).num_classes == 7
    unknown = facts.find(config)
    assert unknown.num_classes == 1000 and unknown.shape is None
    assert unknown.note is not None and "folder:/nowhere is not here; assumed are photos, 1,000 classes" in unknown.note


def found(**words):
    config = config_lib.from_mapping({"model": {"name": "vit_tiny_patch16_224"}, "data": {"image_size": [224, 224]}})
    values = {
        "config": config, "sharp": False, "devices": 16, "batch_size": 1024, "parameters": 10,
        "state_bytes": 4 * 2**30, "resident_bytes": 0, "memory_bytes": 12 * 2**30, "fits": True,
        "forward_macs": 10**9, "counted_flops": 6e12, "flops": 4e11, "bytes_accessed": 8e9, "compile_seconds": 1.0,
        "collectives": {"all-reduce": {"operations": 1, "bytes": 1e8, "sent": 2e8}},
    }  # fmt: skip
    return step.Compiled(**{**values, **words})


def test_the_roofline_by_hand():
    plan = estimate.estimate(found(), chips.parse("v5e:4x4"))
    assert plan["limits_seconds"] == pytest.approx(
        {"compute": 4e11 / 197e12, "memory": 8e9 / 819e9, "interconnect": 1e-3}
    )
    assert plan["bound_by"] == "memory" and plan["step_seconds"] == pytest.approx(8e9 / 819e9)
    assert plan["mfu"] == pytest.approx(6e9 * 1024 / (8e9 / 819e9 * 16 * 197e12))
    assert plan["fits"] and not plan["suggestions"]


def test_what_would_help_where_it_does_not_fit():
    plan = estimate.estimate(found(memory_bytes=24 * 2**30), chips.parse("v5e:4x4"))
    said = " ".join(plan["suggestions"])
    assert not plan["fits"]
    for word in ("model.remat=true", "optim.accum_steps=2", "batch_size=592"):
        assert word in said
    state = estimate.estimate(found(state_bytes=20 * 2**30, memory_bytes=26 * 2**30), chips.parse("v5e:4x4"))
    assert "parallel.fsdp=4" in " ".join(state["suggestions"])
    mapped = found(state_bytes=20 * 2**30, memory_bytes=26 * 2**30)
    mapped.config.parallel.mode = "pmap"
    assert "fsdp" not in " ".join(estimate.suggest(mapped, 16 * 2**30))
    refused = estimate.estimate(found(fits=False, memory_bytes=20 * 2**30, flops=None), chips.parse("v5e:4x4"))
    assert not refused["fits"] and refused["step_flops_per_device"] == 6e12 / 16


def test_a_plan_for_virtual_devices_counts_what_training_has(tmp_path):
    name = write_npz(tmp_path / "data")
    config = tiny_config(name, parallel__num_devices=2, parallel__fsdp=2, model__embed_dim=64)
    compiled = step.compile_step(config, facts.find(config), chips.parse("cpu:2"))
    plan = estimate.estimate(compiled, chips.parse("cpu:2"))
    run, state = train.prepare(config, tmp_path)
    run.checkpoints.close()
    sizes = [sum(s.data.nbytes for s in x.addressable_shards) / 2 for x in jax_leaves(state)]
    assert plan["state_bytes"] == sum(sizes)
    assert plan["fits"] and plan["devices"] == 2 and plan["collectives"]
    assert compiled.config.model.num_classes == 3
    # forward and backward of a ViT: three times the forward pass, but for the gradient of the images
    assert 5.5 < compiled.counted_flops / (compiled.forward_macs * compiled.batch_size) <= 6.0


def jax_leaves(tree):
    import jax

    return jax.tree.leaves(tree)


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, str(ROOT / "main.py"), "plan", "--config", str(ROOT / "configs/digits_vit.py")]
    target = tmp_path / "plan.json"
    done = subprocess.run([*command, "--topology", "cpu:4", "--json", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(target.read_text())["devices"] == 4 and "fits      yes" in done.stdout


@pytest.mark.slow
def test_tpu_slices_through_their_compiler():
    pytest.importorskip("libtpu")
    command = [sys.executable, str(ROOT / "main.py"), "plan", "--config", str(ROOT / "configs/digits_vit.py")]
    done = subprocess.run([*command, "--topology", "v5e:2x2"], capture_output=True, text=True)
    assert done.returncode == 0 and "16 GiB a chip" in done.stdout and "MFU" in done.stdout, done.stderr
    assert np.all([word in done.stdout for word in ("roofline", "all-reduce", "memory")])


def planned(config, topology="cpu:2"):
    compiled = step.compile_step(config, facts.find(config), chips.parse(topology))
    return compiled, estimate.estimate(compiled, chips.parse(topology))


def test_a_teacher_in_the_step_is_counted_and_one_that_has_answered_is_not(tmp_path):
    name = write_npz(tmp_path / "data")
    words: dict = {"parallel__num_devices": 2, "augment__crop_padding": 0, "augment__flip": False}
    alone, _ = planned(tiny_config(name, **words))
    words |= {"distill__teacher": "resnet18", "distill__mode": "hard"}
    answered, _ = planned(tiny_config(name, **words))
    inside, plan = planned(tiny_config(name, **words | {"augment__flip": True}))
    assert answered.counted_flops == pytest.approx(alone.counted_flops, rel=1e-3)
    forward = 2 * 1.8e9 * 16  # ResNet-18 at 224 px, 16 images
    assert inside.counted_flops - alone.counted_flops == pytest.approx(forward, rel=0.05)
    assert inside.memory_bytes - alone.memory_bytes > 4 * 11_000_000  # its weights
    assert "teacher resnet18 at 224x224 answers in every step" in plan["notes"]
    absent, plan = planned(tiny_config(name, **words | {"distill__teacher": str(tmp_path / "gone")}))
    assert absent.counted_flops == alone.counted_flops and "left out" in plan["notes"][0]


def test_a_mapped_step_and_one_in_float64_are_planned_too(tmp_path):
    name = write_npz(tmp_path / "data")
    words: dict = {"parallel__num_devices": 2}
    single, _ = planned(tiny_config(name, **words))
    mapped, plan = planned(tiny_config(name, **words, parallel__mode="pmap"))
    assert plan["mode"] == "pmap" and mapped.counted_flops == pytest.approx(single.counted_flops)
    with jax.enable_x64(True):
        double, _ = planned(tiny_config(name, **words, dtype="float64"))
    assert double.state_bytes == pytest.approx(2 * single.state_bytes, rel=1e-3)


SCANNED = """\
%inner (p0: f32[24,8,8], p1: s32[]) -> f32[8,8] {
  %p0 = f32[24,8,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %ds = f32[1,8,8]{2,1,0} dynamic-slice(%p0, %p1, %p1, %p1), dynamic_slice_sizes={1,8,8}
  ROOT %b = f32[8,8]{1,0} bitcast(%ds)
}

%reads (a0: f32[24,8,8], a1: s32[], a2: f32[8,8]) -> f32[8,8] {
  %a0 = f32[24,8,8]{2,1,0} parameter(0)
  %a1 = s32[] parameter(1)
  %a2 = f32[8,8]{1,0} parameter(2)
  %one = f32[8,8]{1,0} fusion(%a0, %a1), kind=kLoop, calls=%inner
  ROOT %sum = f32[8,8]{1,0} add(%one, %a2)
}

%writes (b0: f32[24,8,8], b1: f32[8,8], b2: s32[]) -> f32[24,8,8] {
  %b0 = f32[24,8,8]{2,1,0} parameter(0)
  %b1 = f32[8,8]{1,0} parameter(1)
  %b2 = s32[] parameter(2)
  %up = f32[1,8,8]{2,1,0} bitcast(%b1)
  ROOT %dus = f32[24,8,8]{2,1,0} dynamic-update-slice(%b0, %up, %b2, %b2, %b2)
}

%body (s: (s32[], f32[24,8,8], f32[24,8,8], f32[8,8])) -> (s32[], f32[24,8,8], f32[24,8,8], f32[8,8]) {
  %s = (s32[], f32[24,8,8]{2,1,0}, f32[24,8,8]{2,1,0}, f32[8,8]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %w = f32[24,8,8]{2,1,0} get-tuple-element(%s), index=1
  %g = f32[24,8,8]{2,1,0} get-tuple-element(%s), index=2
  %h = f32[8,8]{1,0} get-tuple-element(%s), index=3
  %read = f32[8,8]{1,0} fusion(%w, %n, %h), kind=kLoop, calls=%reads
  %ar = f32[8,8]{1,0} all-reduce(%read), replica_groups={{0,1}}, to_apply=%add
  ROOT %write = f32[24,8,8]{2,1,0} fusion(%g, %ar, %n), kind=kLoop, calls=%writes
}

%below (s: (s32[], f32[24,8,8], f32[24,8,8], f32[8,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(24)
  %s.1 = (s32[]{:T(128)}, f32[24,8,8]{2,1,0}, f32[24,8,8]{2,1,0}, f32[8,8]{1,0}) parameter(0)
  %n.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%n.1, %limit), direction=LT, metadata={op_name="while/cond/lt"}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %loop = (s32[], f32[24,8,8]{2,1,0}, f32[24,8,8]{2,1,0}, f32[8,8]{1,0}) while(%a), condition=%below, body=%body
}
"""


def test_a_loop_over_blocks_moves_a_slice_at_a_time_and_its_trips_are_in_its_condition():
    """As the TPU compiler writes it: no trip count, stacked weights read and gradients written within fusions."""
    assert traffic.count(SCANNED, 2)["all-reduce"] == {"operations": 24, "bytes": 24 * 256.0, "sent": 24 * 256.0}
    read, reduced, written = 256 + 4 + 256 + 256, 256 + 256, 256 + 4 + 256
    assert traffic.memory_bytes(SCANNED) == 24 * (read + reduced + written)


def test_what_a_loop_does_is_counted_each_time():
    plan = estimate.estimate(found(flops=1e10), chips.parse("v5e:4x4"))
    assert plan["step_flops_per_device"] == 6e12 / 16 and plan["mfu"] < 1
