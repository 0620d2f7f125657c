"""The share of augmentation in a training step: the same step with and without it, in turns.

python tools/measure_augment.py [--model resnet18] [--batch 512] [--dtype bfloat16] [--policy randaugment]
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jaxvit.bench.clock import timed  # noqa: E402
from jaxvit.bench.programs import compile_program  # noqa: E402
from jaxvit.bench.subjects import Settings, make_subject  # noqa: E402
from jaxvit.data.augment.compose import make_augment  # noqa: E402


def main() -> None:
    """Prints the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--policy", help="on top of flips and crops")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    fields = (("stem", "cifar"), ("num_classes", 10)) if "resnet" in args.model else ()
    subject = make_subject(Settings(args.model, args.dtype, 32, fields))
    words = {"flip": True, "crop_padding": 4, **({"policy": args.policy} if args.policy else {})}
    programs = []
    for options in ({}, words):
        step, state, batch = subject.training(args.batch, augment=make_augment(options))
        programs.append((compile_program(step, state, batch, donate=True, times="none").run, state, batch))
    found: list[list[float]] = [[], []]
    for _ in range(args.turns):
        for i, (run, state, batch) in enumerate(programs):
            timing, state = timed(lambda s, run=run, batch=batch: run(s, batch)[0], state, repeats=1, seconds=1.0)
            programs[i] = (run, state, batch)
            found[i].append(timing.median)
    plain, augmented = map(statistics.median, found)
    print(f"{args.model}, batch {args.batch}, {args.dtype}: step {1e3 * plain:.2f} ms, with {', '.join(words)} "
          f"{1e3 * augmented:.2f} ms; augmentation is {1 - plain / augmented:.1%} of the step")  # fmt: skip


if __name__ == "__main__":
    import quiet

    quiet.run(main)
