"""Draws docs/images/which_model.svg: accuracy, milliseconds and megabytes of the models whose latency was measured.

    python tools/which_model_figure.py

Latency is that of `results/bench/cpu_*.json`: one image of 224 pixels, float32, one core of the processor named there.
Accuracy is timm's at 224 pixels for the best of the weights of that name (docs/imagenet_top1.json).
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
TARGET = ROOT / "docs" / "images" / "which_model.svg"
SIZE = 224


def rows() -> list[dict[str, Any]]:
    """What is drawn, fastest first: name, tag, milliseconds, megabytes, top-1 in per cent, processor."""
    top1, found = json.loads((ROOT / "docs/imagenet_top1.json").read_text())["top1"], []
    for path in sorted((ROOT / "results/bench").glob("cpu_*.json")):
        content = json.loads(path.read_text())
        for row in content.get("results", []):
            if row.get("mode") == "infer" and row["image_size"] == [SIZE, SIZE] and not row["fields"]:
                tags = {tag: by_size[str(SIZE)] for tag, by_size in top1.items() if str(SIZE) in by_size}
                tags = {tag: value for tag, value in tags.items() if tag.partition(".")[0] == row["model"]}
                if tags:
                    best = max(tags, key=lambda tag: tags[tag])
                    found.append({
                        "name": row["model"], "tag": best.partition(".")[2], "top1": tags[best],
                        "ms": 1e3 * row["latency_seconds"]["median"], "mb": 4 * row["parameters"] / 1e6,
                        "cpu": content["environment"]["cpu"],
                    })  # fmt: skip
    return sorted(found, key=lambda row: row["ms"])


def table(found: list[dict[str, Any]]) -> str:
    """The same as a table in Markdown."""
    lines = ["| model | weights | top-1 (timm's) | ms an image | MB |", "| --- | --- | ---: | ---: | ---: |"]
    return "\n".join(
        lines + [f"| `{r['name']}` | `{r['tag']}` | {r['top1']:.1f} % | {r['ms']:.0f} | {r['mb']:.0f} |" for r in found]
    )


def main() -> None:
    """Draws the picture and prints the table."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "jaxvit", "svg.fonttype": "none"})  # the same, small file every time
    found = rows()
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for number, row in enumerate(found, 1):
        label = f"{number}  {row['name']}, {row['mb']:.0f} MB"
        axis.scatter(row["ms"], row["top1"], s=3 * row["mb"], color="tab:blue", alpha=0.35, label=label)
        axis.annotate(
            str(number), (row["ms"], row["top1"]), xytext=(0, 9 + (3 * row["mb"]) ** 0.5 / 2),
            textcoords="offset points", ha="center", fontsize=9,
        )  # fmt: skip
    axis.legend(loc="lower left", fontsize=8, handlelength=0, markerscale=0, handletextpad=0, title="area: weights")
    axis.set(
        xscale="log", xlabel=f"milliseconds for an image of {SIZE} pixels (one core of an {found[0]['cpu']}, float32)",
        ylabel="ImageNet top-1, per cent (timm's)", ylim=(62, 85),
    )  # fmt: skip
    ticks = [10, 20, 50, 100, 200]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(9, 220)
    axis.grid(alpha=0.3)
    figure.savefig(TARGET, metadata={"Date": None})
    text = TARGET.read_text(encoding="utf-8")  # a tenth of a point is enough
    TARGET.write_text(re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.1f}", text), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    import quiet

    quiet.run(main)
