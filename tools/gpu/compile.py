"""Compiles the programs that `main.py bench` will time, into the cache of compiled programs, and runs none of them.

    python3 tools/gpu/compile.py --model NAME --batch-size N [the other options of bench]

Several may go side by side: compiling takes processors and little of the GPU's memory, running takes all of it.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)  # the checkout, and not this folder

from jaxvit.commands import bench  # noqa: E402
from jaxvit.runtime import compile_cache  # noqa: E402


def main(argv: list[str]) -> int:
    """Compiles training, inference and the latter for one image, as far as --mode asks for them."""
    args = bench._parse(argv)
    compile_cache.use()
    from jaxvit.bench.measure import prepared
    from jaxvit.bench.subjects import make_subject

    sizes = {"train": [args.batch_size], "infer": [args.batch_size, 1]}
    for settings in bench._wanted(args):
        subject = make_subject(settings)
        for mode in ("train", "infer") if args.mode == "both" else (args.mode,):
            for batch_size in sizes[mode]:
                prepared(subject, mode, batch_size, "none")
                print(f"{settings.name} {mode} {batch_size}: compiled", flush=True)
    return 0


if __name__ == "__main__":
    from tools import quiet

    quiet.run(lambda: main(sys.argv[1:]))
