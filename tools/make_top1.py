"""Writes docs/imagenet_top1.json: timm's ImageNet accuracies of the weights that jaxvit loads, for the pages of models.

    python tools/make_top1.py results-imagenet.csv COMMIT      # of timm's repository, results/ at that commit

For every tag: image size in pixels -> top-1 in per cent on the 50,000 validation images, as timm measured it.
"""

import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from jaxvit.models import registry  # noqa: E402

TARGET = Path(__file__).parents[1] / "docs" / "imagenet_top1.json"
SOURCE = "https://github.com/huggingface/pytorch-image-models/blob/{}/results/results-imagenet.csv"


def main() -> None:
    """Reads the table and keeps the rows of our tags."""
    tags, found = set(registry.list_models(pretrained=True)), {}
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] in tags:
                found.setdefault(row["model"], {})[row["img_size"]] = float(row["top1"])
    content = {"source": SOURCE.format(sys.argv[2]), "top1": dict(sorted(found.items()))}
    TARGET.write_text(json.dumps(content, indent=0) + "\n")
    print(f"{TARGET}: {len(found)} of {len(tags)} tags")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
