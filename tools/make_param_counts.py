"""Writes tests/golden/param_counts.json: the number of parameters of every name, as timm and torchvision have it.

python tools/make_param_counts.py [FILE]        # needs timm 1.0.31 and torchvision; nothing is allocated
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from jaxvit.models.registry import FAMILIES  # noqa: E402

TARGET = Path(__file__).parents[1] / "tests" / "golden" / "param_counts.json"


def count(model: Any) -> int:
    """The number of parameters; running statistics are none."""
    return sum(p.numel() for p in model.parameters())


def main() -> None:
    """Writes the file named on the command line, or the tests' own."""
    import timm
    import torch
    from torchvision.models import alexnet

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    with torch.device("meta"):
        counts = {"alexnet": count(alexnet())}
        for name in (
            n for family in FAMILIES.values() for m in family.timm_modules for n in timm.list_models(module=m)
        ):
            counts[name] = count(timm.create_model(name))
    target.write_text(json.dumps(counts, indent=0, sort_keys=True) + "\n")
    print(f"{target}: {len(counts)} names")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
