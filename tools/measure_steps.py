"""Measures what a training step costs by method: plain, SAM, ASAM, head_only; writes results/step_ratios/*.json.

    taskset -c 0 python tools/measure_steps.py resnet18 [--batch-size 64] [--repeats 9]
    taskset -c 0 python tools/measure_steps.py deit_tiny_patch16_224

Each method is the compiled step of the trainer on the same images; the methods take turns, and medians over the turns
are compared, so that a change in the machine's speed falls on all of them. On one core of a CPU the process's own
time is taken, which other programs change little; elsewhere the clock's.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxvit import create_model, optim
from jaxvit.build.parts import make_normalise, make_to_float  # noqa: E402
from jaxvit.data.augment.compose import make_augment  # noqa: E402
from jaxvit.step import gradients, steps  # noqa: E402
from jaxvit.step.state import create_state, init_variables  # noqa: E402

CASES = {
    "resnet18": {"batch_size": 32, "image_size": 32, "fields": {"stem": "cifar"}},
    "deit_tiny_patch16_224": {"batch_size": 8, "image_size": 224, "fields": {}},
}
METHODS = {
    "plain": {},
    "sam": {"rho": 0.05},
    "asam": {"rho": 0.5, "adaptive": True},
    "head_only": {"freeze": "head_only"},
}
LIMITS = {"sam / plain": 2.05, "asam / sam": 1.05, "plain / head_only": 2.5}


def make_step(model, variables, size: int, freeze: str = "none", **sam):
    """The compiled step of one method, and its state."""
    trainable = optim.freeze_mask(variables["params"], freeze)
    tx = optim.make_optimizer(variables["params"], name="adamw", schedule=1e-3, trainable=trainable)
    step = steps.make_train_step(
        model=model,
        pixels=steps.Pixels(
            to_float=make_to_float(3),
            normalise=make_normalise((size, size), "bicubic", (0.5,) * 3, (0.25,) * 3),
            augment=make_augment({"flip": True}),
        ),
        task=steps.Task(num_classes=100),
        update=steps.Update(
            tx=tx,
            schedule=lambda step: jnp.float32(1e-3),
            trainable=trainable,
            gradient=gradients.make_gradient(**sam),
        ),
    )
    state = create_state(jax.tree.map(jnp.copy, variables), tx, trainable, jax.random.key(0))
    return jax.jit(step, donate_argnums=0), state


def measure(name: str, batch_size: int, size: int, fields: dict, repeats: int) -> dict[str, list[float]]:
    """Returns seconds a step by method, one entry a turn."""
    model = create_model(name, num_classes=100, image_size=size, **fields)
    variables = init_variables(model, jax.random.key(0), (size, size, 3))
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, 100, batch_size), jnp.int32),
        "mask": jnp.ones(batch_size, bool),
    }
    made = {method: make_step(model, variables, size, **words) for method, words in METHODS.items()}
    states = {}
    for method, (step, state) in made.items():  # compiles, and once more with warm caches
        for _ in range(2):
            state, _ = jax.block_until_ready(step(state, batch))
        states[method] = state
    alone = jax.default_backend() == "cpu" and len(os.sched_getaffinity(0)) == 1
    clock = time.process_time if alone else time.perf_counter
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(repeats):
        for method, (step, _) in made.items():
            begun = clock()
            states[method], _ = jax.block_until_ready(step(states[method], batch))
            seconds[method].append(clock() - begun)
    return seconds


def processor() -> str:
    """The CPU's name, or the accelerator's."""
    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


def main() -> None:
    """Measures one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=CASES)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("results/step_ratios"))
    args = parser.parse_args()
    case = CASES[args.model]
    batch_size = args.batch_size or case["batch_size"]
    size = args.image_size or case["image_size"]
    fields = case["fields"] | ({"dtype": jnp.bfloat16} if args.dtype == "bfloat16" else {})
    seconds = measure(args.model, batch_size, size, fields, args.repeats)
    medians = {method: statistics.median(values) for method, values in seconds.items()}
    ratios = {pair: medians[pair.split(" / ")[0]] / medians[pair.split(" / ")[1]] for pair in LIMITS}
    found = {
        "model": args.model,
        "image_size": size,
        "dtype": args.dtype,
        "batch_size": batch_size,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "repeats": args.repeats,
        "seconds_per_step": {method: round(value, 4) for method, value in medians.items()},
        "spread": {m: [round(min(v), 4), round(max(v), 4)] for m, v in seconds.items()},
        "ratios": {pair: round(value, 3) for pair, value in ratios.items()},
        "jax": jax.__version__,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.model}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found["seconds_per_step"]), json.dumps(found["ratios"]))


if __name__ == "__main__":
    import quiet

    quiet.run(main)
