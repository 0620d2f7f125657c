"""Placement changes no result: the same runs on one device, on several, with a split state, and as a mapped step."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxvit import create_model, optim, train, tree
from jaxvit.build.parts import make_to_float
from jaxvit.errors import UserError
from jaxvit.models.family import MEGATRON
from jaxvit.runtime import sharding
from jaxvit.step import steps
from jaxvit.step.state import create_state
from tests.helpers import tiny_config, write_npz
from tests.helpers.placements import MODELS, NEWER, PLACES, STEPS, difference, run_at, run_config, steps_of
from tests.helpers.plugins import examples
from tests.helpers.tiny_steps import batch as small_batch
from tests.helpers.tiny_steps import build


@pytest.mark.parametrize(
    "model, method, place",
    [
        pytest.param("vit", "adamw", "tensor2", marks=pytest.mark.slow),
        pytest.param("vit", "clip", "tensor2", marks=pytest.mark.slow),
        pytest.param("resnet", "clip", "fsdp4", marks=pytest.mark.slow),
    ],
)
def test_several_devices_give_the_metrics_of_one_in_float64(tmp_path, model, method, place):
    one = run_at(tmp_path, "1", model, method)
    assert len(one) == STEPS + 1
    assert difference(one, run_at(tmp_path, place, model, method)).max() < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adamw", "asam"])
@pytest.mark.parametrize("model", MODELS)
def test_any_placement_gives_the_metrics_of_one_device_in_float64(tmp_path, model, method):
    one = run_at(tmp_path, "1", model, method)
    for place in set(PLACES) - {"1"}:
        assert difference(one, run_at(tmp_path, place, model, method)).max() < 1e-9, place


@pytest.mark.slow
@pytest.mark.parametrize("place", ["fsdp4", "tensor2"])
@pytest.mark.parametrize("model", NEWER)
def test_states_of_newer_families_are_split(tmp_path, model, place):
    words: dict = {"num_test": 5, "num_train": 68}
    if model == "convnext":  # Adam divides gradients that are almost 0 by themselves: their rounding becomes 1.5e-7
        words |= {"num_train": 40, "optim__name": "sgd", "optim__learning_rate": 0.01}
    one = run_at(tmp_path, "1", model, **words)
    assert difference(one, run_at(tmp_path, place, model, **words)).max() < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("model, method", [("vit", "asam"), ("resnet", "adamw")])
def test_numbers_of_devices_that_are_no_powers_of_two(tmp_path, model, method):
    one = run_at(tmp_path, "1", model, method, batch_size=30)
    for n in (3, 5, 6):
        other = run_at(tmp_path / str(n), "1", model, method, batch_size=30, parallel__num_devices=n)
        assert difference(one, other).max() < 1e-9, n


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adamw", "asam"])
@pytest.mark.parametrize("model", MODELS)
def test_float32_agrees_at_the_first_step_and_without_batchnorm_for_twenty(tmp_path, model, method):
    one = run_at(tmp_path, "1", model, method, precision="float32")
    for place in ("2", "8", "fsdp4"):
        found = difference(one, run_at(tmp_path, place, model, method, precision="float32"))
        assert found[0] < 1e-5, place
        if model != "resnet":  # BatchNorm's sums in another order grow: docs/PARALLEL.md
            assert found.max() < 1e-5, place


def large():
    """ViT-L with AdamW and an average, as shapes, and its step."""
    model = create_model("vit_large_patch16_224")
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    trainable = optim.freeze_mask(variables["params"], "none")
    tx = optim.make_optimizer(variables["params"], name="adamw", schedule=1e-3, grad_clip_norm=1.0)
    create = partial(create_state, tx=tx, trainable=trainable, key=jax.random.key(0), ema=True)
    step = steps.make_train_step(
        model=model, pixels=steps.Pixels(to_float=make_to_float(3), normalise=lambda images: images),
        task=steps.Task(num_classes=1000), update=steps.Update(
            tx=tx, schedule=lambda step: jnp.float32(1e-3), trainable=trainable,
            average=lambda ema, variables, step: optim.ema.update(ema, variables, 0.999),
        ),
    )  # fmt: skip
    return jax.eval_shape(create, variables), step


@pytest.mark.slow
def test_the_compiled_step_of_a_large_model_takes_an_eighth_of_its_state():
    state, step = large()
    mesh = sharding.make_mesh(8, fsdp=8)
    places = sharding.state_shardings(state, mesh, MEGATRON)
    shaped = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
    parts = jax.tree.map(partial(shaped, place=sharding.batch_sharding(mesh)), {
        "image": np.zeros((16, 224, 224, 3), np.uint8), "label": np.zeros(16, np.int32), "mask": np.zeros(16, bool),
    })  # fmt: skip
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    memory = jitted.lower(jax.tree.map(shaped, state, places), parts, None).compile().memory_analysis()
    whole, images = tree.num_bytes(state), 2 * 224 * 224 * 3 * 1.1
    assert memory.argument_size_in_bytes - images <= 1.15 / 8 * whole
    assert memory.alias_size_in_bytes > 0.99 * sharding.bytes_per_device(state, places)  # updated in place


def test_fsdp_holds_an_eighth_of_a_large_model_per_device():
    state, _ = large()
    assert tree.count(state.params) == 304_326_632
    for shape in ({"fsdp": 8}, {"fsdp": 4}, {"fsdp": 4, "tensor": 2}):
        places = sharding.state_shardings(state, sharding.make_mesh(8, **shape), MEGATRON)
        parts = shape["fsdp"] * shape.get("tensor", 1)
        assert sharding.bytes_per_device(state, places) <= 1.15 / parts * tree.num_bytes(state), shape


def test_rules_name_what_is_split():
    mesh = sharding.make_mesh(8, fsdp=2, tensor=2)
    spec = partial(sharding.spec_of, mesh=mesh, rules=MEGATRON)
    assert spec("opt_state/1/0/mu/blocks_0/attn/qkv/kernel", (64, 192)) == PartitionSpec("fsdp", "tensor")
    assert spec("ema/params/blocks_0/mlp/fc2/kernel", (256, 64)) == PartitionSpec("tensor", "fsdp")
    assert spec("params/layer1_0/conv1/kernel", (3, 3, 64, 128)) == PartitionSpec(None, None, None, "fsdp")
    assert spec("params/head/kernel", (65, 101)) == PartitionSpec()  # divides by nothing
    assert spec("params/norm/scale", (64,)) == PartitionSpec()  # too small


@pytest.mark.slow
def test_a_state_goes_on_under_another_placement(tmp_path):
    """Saved on one device, gone on with on eight with the state in four parts, ended as a mapped step."""
    still = {"augment__flip": False, "augment__crop_padding": 0}
    words: dict = {"method": "clip", "optim__sam__rho": 0.0, "optim__schedule__name": "constant", **still}
    whole = run_at(tmp_path, "1", **words, num_epochs=3)
    data_name = write_npz(tmp_path / "data", num_train=356, num_test=21)
    workdir = tmp_path / "moving"
    mapped = {"parallel__mode": "pmap", "parallel__num_devices": 2}
    with jax.enable_x64(True):
        for epochs, place in enumerate(("1", "fsdp4", mapped), 1):
            more = place if isinstance(place, dict) else PLACES[place]
            config = run_config(data_name, **words, **more, num_epochs=epochs, dtype="float64")
            train.train_and_evaluate(config, workdir, force=True)  # one epoch more
    assert difference(whole, steps_of(workdir)).max() < 1e-9


REFUSED = [
    ({"parallel__num_devices": 9}, "parallel.num_devices is 9; there are 8"),
    ({"parallel__num_devices": 3}, "a micro-batch of 16 images does not divide over 3 devices"),
    ({"parallel__num_devices": 4, "parallel__fsdp": 3}, "4 devices do not divide into groups of parallel.fsdp 3"),
    ({"parallel__fsdp": 16}, "parallel.fsdp 16 x parallel.tensor 1 needs 16 devices"),
    ({"parallel__fsdp": 2, "parallel__mode": "pmap"}, "parallel.mode=pmap keeps a whole state on every device"),
    ({"parallel__mode": "pmap", "parallel__num_devices": 8, "optim__accum_steps": 4}, "expected a batch_size that is"),
    ({"parallel__mode": "xmap"}, "parallel.mode is 'xmap'; expected jit or pmap"),
]


@pytest.mark.parametrize("words, said", REFUSED, ids=[said[:30] for _, said in REFUSED])
def test_what_does_not_divide_is_refused(tmp_path, words, said):
    data_name = write_npz(tmp_path / "data")
    config = tiny_config(data_name, **{"parallel__num_devices": None} | words)
    with pytest.raises(UserError, match=said):
        train.train_and_evaluate(config, tmp_path / "run")


def test_devices_that_a_batch_divides_over():
    assert sharding.most_devices(16, 8) == 8
    assert sharding.most_devices(12, 8) == 6
    assert sharding.most_devices(12, 8, fsdp=4) == 4
    assert sharding.most_devices(7, 8) == 7
    assert sharding.most_devices(6, 8, tensor=4) == 8
    assert sharding.dealt(np.arange(8), 4, sharding.make_mesh(2)).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


# The mapped step ("pmap").


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, other",
    [
        ({}, {}),
        # each device has an ascent of its own: the m-sharpness of batch / devices images
        ({"optim__sam__rho": 0.5, "optim__sam__adaptive": True}, {"optim__sam__m": 4}),
        ({"optim__sam__rho": 0.1, "optim__sam__m": 2, "optim__accum_steps": 2}, {}),
    ],
    ids=["plain", "asam", "m"],
)
def test_pmap_equals_jit_without_batchnorm_and_random_draws(tmp_path, words, other):
    still = {"augment__flip": False, "augment__crop_padding": 0, **words}
    mapped = run_at(tmp_path, "4", **still, parallel__mode="pmap")
    assert difference(run_at(tmp_path, "4", **still, **other), mapped).max() < 1e-9


@pytest.mark.parametrize("method", ["plain", pytest.param("asam", marks=pytest.mark.slow)])
def test_the_mapped_step_is_that_of_jax_pmap_and_sam_of_it_the_m_sharpness_of_its_parts(method):
    mesh = sharding.make_mesh(4)
    words = {"augment": False, **({"rho": 0.5, "adaptive": True} if method == "asam" else {})}
    state, step, *_ = build(axis_name=sharding.MAPPED, **words)
    batch = small_batch(16)
    dealt = jax.tree.map(lambda x: x[sharding.dealt(np.arange(16), 16, mesh)], batch)
    ours = jax.jit(sharding.map_over_devices(step, mesh))
    placed = sharding.put(dealt, sharding.batch_sharding(mesh))
    new, metrics = jax.device_get(ours(sharding.put(state, sharding.replicated(mesh)), placed, None))

    m_sharp = jax.jit(build(perturbations=4, **words)[1])
    chex.assert_trees_all_close((new, metrics), jax.device_get(m_sharp(state, batch)), rtol=1e-4, atol=1e-6)

    batch = dealt
    split = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch)
    theirs, theirs_metrics = jax.pmap(
        lambda state, batch: step(state, batch, None), "data", in_axes=(None, 0), devices=jax.devices()[:4]
    )(state, split)
    first = jax.tree.map(lambda x: x[0], jax.device_get((theirs, theirs_metrics)))
    chex.assert_trees_all_close((new, metrics), first, rtol=1e-5, atol=1e-7)
    for leaf in jax.tree.leaves(jax.device_get(theirs)):  # the same on every device
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


@pytest.mark.slow
def test_pmap_differs_where_a_device_sees_its_own_part_only(tmp_path):
    """BatchNorm normalises by 4 images in place of 16, and draws are each device's own."""
    still = {"augment__flip": False, "augment__crop_padding": 0}
    cases: tuple[tuple[str, dict], ...] = (("resnet", still), ("vit", {"augment__flip": True}))
    for model, words in cases:
        mapped = run_at(tmp_path, "4", model, "adamw", **words, parallel__mode="pmap")
        assert difference(run_at(tmp_path, "4", model, "adamw", **words), mapped)[1] > 1e-4


@pytest.mark.slow
def test_the_loop_of_the_page_is_that_of_one_device():
    there = {}
    (code,) = examples("PARALLEL.md")
    exec(code, there)
    params, images = jax.device_get((there["variables"]["params"], there["images"]))
    wanted = jax.jit(jax.value_and_grad(there["loss_fn"]))(params, images)
    assert len(there["images"].sharding.device_set) == jax.device_count() > 1
    for found in ((there["loss"], there["grads"]), (there["same_loss"], there["same_grads"])):
        chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-7)
