"""Plans: slices and their chips, traffic from HLO, facts without data, whether it fits and what would help."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvit.plan import chips, estimate, facts, step
from jaxvit.train import loop as train
from tests.helpers import tiny_config, write_npz

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_plan_for_virtual_devices_counts_what_training_has(tmp_path):
    name = write_npz(tmp_path / "data")
    words = {"parallel__num_devices": 2, "parallel__fsdp": 2, "model__embed_dim": 64}
    config = tiny_config(name, data__train_sizes=((0, 4), (1, 8)), pretrain__name="mae", **words)
    config.pretrain.update({"num_epochs": 3, "decoder_embed_dim": 16})
    first, small, compiled = step.compile_steps(config, facts.find(config), chips.parse("cpu:2"))
    assert "1 of 4 patches" in compiled.notes[-1]
    steps = compiled.steps
    assert [(p.part, p.image_size, p.steps) for p in (first, small)] == [
        ("mae", (8, 8), 3 * steps),
        ("training", (4, 4), steps),
    ]
    assert first.parameters > compiled.parameters == small.parameters  # with the decoder, without a classifier
    assert small.counted_flops < 0.5 * compiled.counted_flops  # of two tokens against five
    assert 5 < first.counted_flops / (first.forward_macs * first.batch_size) <= 6
    config.pretrain.name, config.data.train_sizes = None, ()
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
def test_tpu_slices_through_their_compiler():
    pytest.importorskip("libtpu")
    command = [sys.executable, str(ROOT / "main.py"), "plan", "--config", str(ROOT / "configs/digits_vit.py")]
    done = subprocess.run([*command, "--topology", "v5e:2x2"], capture_output=True, text=True)
    assert done.returncode == 0 and "16 GiB per chip" in done.stdout and "MFU" in done.stdout, done.stderr
    assert np.all([word in done.stdout for word in ("roofline", "all-reduce", "memory")])


def planned(config, topology="cpu:2"):
    (compiled,) = step.compile_steps(config, facts.find(config), chips.parse(topology))
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


def test_the_reason_why_devices_are_idle_is_named():
    assert step.idle_devices(None, 8, 4, 4) == step.idle_devices(4, 8, 4, 4) == []
    assert "parallel.num_devices=1 leaves 3" in step.idle_devices(1, 8, 1, 4)[0]
    assert "batch of 9 divides over only 3 of the 4" in step.idle_devices(None, 9, 3, 4)[0]
