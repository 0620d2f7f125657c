"""The roofline and what would help."""

import pytest

from jaxvit import config as config_lib
from jaxvit.plan import chips, estimate, step


def found(**words):
    config = config_lib.from_mapping({"model": {"name": "vit_tiny_patch16_224"}, "data": {"image_size": [224, 224]}})
    values = {
        "config": config, "part": "training", "image_size": (224, 224), "steps": 3600,
        "sharp": False, "devices": 16, "batch_size": 1024, "parameters": 10,
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


def test_what_a_loop_does_is_counted_each_time():
    plan = estimate.estimate(found(flops=1e10), chips.parse("v5e:4x4"))
    assert plan["step_flops_per_device"] == 6e12 / 16 and plan["mfu"] < 1


def test_a_run_is_the_sum_of_its_parts():
    small = {"image_size": (128, 128), "memory_bytes": 4 * 2**30, "bytes_accessed": 819e9}  # a second a step
    parts = [found(part="mae", memory_bytes=18 * 2**30, steps=1800), found(**small), found(bytes_accessed=2 * 819e9)]
    plan = estimate.whole(parts, chips.parse("v5e:4x4"))
    assert plan["image_size"] == [224, 224] and plan["memory_bytes"] == 12 * 2**30
    assert not plan["fits"] and plan["suggestions"]  # the pretraining does not
    assert plan["hours"] == pytest.approx(8e9 / 819e9 / 2 + 1 + 2)
    assert [part["hours"] for part in plan["parts"][1:]] == pytest.approx([1, 2])
    said = estimate.lines(plan)
    assert [line.split()[:4] for line in said if line.startswith("part")] == [
        ["part", "mae", "at", "224x224:"],
        ["part", "training", "at", "128x128:"],
        ["part", "training", "at", "224x224:"],
    ]
    assert any("18.00 GiB" in line and "NOT" in line for line in said) and any("9,000 steps" in line for line in said)
    assert estimate.whole(parts[1:], chips.parse("v5e:4x4"))["fits"]
