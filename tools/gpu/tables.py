"""The tables of the documents that GPU results fill, and the lines in the recipes' headers.

A table stands between `<!-- gpu: NAME -->` and `<!-- end of gpu: NAME -->`; a recipe's line begins with `Measured:`.
Where a result is missing its first cell says so, with the packet that would measure it.
"""

import re
from pathlib import Path
from typing import NamedTuple

from tools.gpu import records
from tools.gpu.figures import figure, same_bits
from tools.gpu.packets import COMPARED, UNTUNED


class Line(NamedTuple):
    """A row: the cells before the figures, the result (PACKET/JOB), and the figures."""

    cells: tuple[str, ...]
    of: str
    figures: tuple[str, ...]


class Table(NamedTuple):
    """Where it stands, its heads, its rows; the last column, the hardware, is added."""

    file: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]


RATES = ("train rate", "train mfu", "infer rate", "infer mfu", "latency", "memory")
RATE_HEADS = ("model, batch", "training, images/s", "MFU", "inference, images/s", "MFU", "one image", "memory")
RATIOS = ("train rate", "timm's rate", "train ratio")
RATIO_HEADS = ("training: model, batch", "ours, images/s", "timm compiled, images/s", "ratio")
SPEED = (
    ("ViT-B/16, 256", "vit_base"), ("ViT-B/16, attention by XLA", "vit_base_xla"), ("Swin-T, 256", "swin_tiny"),
    ("Swin-T, window kernel", "swin_tiny_pallas"), ("Swin-B, 128", "swin_base"),
    ("Swin-B, window kernel", "swin_base_pallas"), ("ResNet-50, 512", "resnet50"), ("DeiT-Ti, 64", "deit_tiny"),
    ("DeiT-Ti, attention by XLA", "deit_tiny_xla"), ("ResNet-18, CIFAR stem, 32 px, 2,048", "resnet18_cifar"),
)  # fmt: skip
NEWER = (("ConvNeXt-T, 256", "convnext_tiny"), ("DINOv3 ViT-S/16, 256 px, 256", "dinov3_small"),
         ("Swin V2-T, windows of 8, 256 px, 128", "swinv2_tiny"))  # fmt: skip
PROFILES = (("ViT-B/16", "vit_base"), ("Swin-T, attention by XLA", "swin_tiny"),
            ("Swin-T, window kernel", "swin_tiny_pallas"), ("DeiT-Ti", "deit_tiny"),
            ("ResNet-18, 32 px", "resnet18_cifar"))  # fmt: skip
TUNED = ("vit_base", "resnet18_cifar")
LARGEST = (("ViT-L/16", "vit_large"), ("Swin-B", "swin_base"))

SEEDS = ("seeds' accuracy", "seeds' mirrored", "seeds' training", "reached", "seeds' compilation", "seeds' process")
SEED_HEADS = (
    "ResNet-18",
    "accuracy",
    "with mirror images",
    "training",
    "reached",
    "compilation, first seed",
    "whole process, other seeds",
)


def _bar(what: str, aim: str, of: str, name: str) -> Line:
    return Line((what, aim), of, (name,))


def _row(label: str, published: str, of: str, row: str) -> Line:
    return Line((label, published), of, (f"row {row}",))


def _study(*lines: Line) -> Table:
    return Table("docs/STUDIES.md", ("row", "published", "measured, test images"), lines)


TABLES = {
    "results": Table("README.md", ("on one GPU", "target", "measured"), (
        _bar("ViT-B/16 training speed, relative to compiled timm", "1.2", "v/vit_base", "train ratio"),
        _bar("ViT-B/16 training, MFU", "45 %", "a/vit_base", "train mfu"),
        _bar("Swin-T training speed, relative to compiled timm", "1.2", "v/swin_tiny", "train ratio"),
        _bar("ResNet-50 training speed, relative to compiled timm", "1.2", "v/resnet50", "train ratio"),
        _bar("ResNet-18 training at 32 px, images/s", "70,000", "a/resnet18_cifar", "train rate"),
        _bar("ResNet-18, CIFAR-100, 200 epochs from scratch", "79.5 %", "b/r18_200", "accuracy"),
        _bar("ResNet-18, CIFAR-100, with SAM in the second half", "80.2 %", "b/r18_200_sam", "accuracy"),
        _bar("ViT (9.5 M), CIFAR-100, 300 epochs from scratch", "77 %", "e/vit_300", "accuracy"),
        _bar("ViT (9.5 M), CIFAR-100, distilled from that ResNet-18", "79 %", "t/vit_300_taught", "accuracy"),
        _bar("ViT (9.5 M), CIFAR-100, MAE pretraining, 200 + 200 epochs", "78 %", "m/vit_mae", "accuracy"),
        _bar("ResNet-18, CIFAR-10, speed run: accuracy", "95 %", "f/fast10", "seeds' accuracy"),
        _bar("ResNet-18, CIFAR-10, speed run: training time", "30 s", "f/fast10", "seeds' training"),
        _bar("DeiT-Ti fine-tuned, CIFAR-100", "86 %", "c2/c100_deit", "accuracy"),
        _bar("DeiT-Ti fine-tuned, CIFAR-10", "97 %", "c1/c10_deit", "accuracy"),
    )),
    "rates": Table("docs/PERFORMANCE.md", RATE_HEADS,
                   tuple(Line((label,), f"a/{name}", RATES) for label, name in SPEED)),
    "ratios": Table("docs/PERFORMANCE.md", RATIO_HEADS,
                    (*(Line((label,), f"v/{name}", RATIOS) for label, name in SPEED if name in COMPARED),
                     *(Line((label,), f"n/{name}", RATIOS) for label, name in NEWER))),
    "kernel": Table("docs/PERFORMANCE.md", ("window kernel against XLA", "correct", "float32", "bfloat16"), (
        Line(("largest difference over Swin-T's stages",), "a/kernels", ("right", "float32 error", "bfloat16 error")),
    )),
    "profiles": Table("docs/PERFORMANCE.md", ("training step", "GPU busy", "most time spent in"),
                      tuple(Line((label,), f"a/profile_{name}", ("busy", "parts")) for label, name in PROFILES)),
    "largest": Table("docs/PERFORMANCE.md", ("", "`model.remat`", "batch", "memory", "images/s", "MFU"), tuple(
        Line((label, policy), f"g/{name}_{policy}", ("batch", "memory", "train rate", "train mfu"))
        for label, name in LARGEST for policy in ("none", "dots", "block"))),
    "startup": Table("docs/PERFORMANCE.md", ("ViT-B/16", "compilation, no cache", "from the cache", "time per step"), (
        Line(("blocks one by one",), "g/startup", ("cold", "warm", "step")),
        Line(("`model.scan=True`",), "g/startup_scan", ("cold", "warm", "step")),
    )),
    "tuning": Table("docs/PERFORMANCE.md", ("training step", "`XLA_FLAGS`", "compilation", "images/s"), tuple(
        Line((label, f"`{flags}`" if flags else ""), f"k/compile_{name}{word}", ("cold", "train rate"))
        for label, name in SPEED if name in TUNED for word, flags in UNTUNED.items())),
    "loop": Table("docs/PERFORMANCE.md", ("training loop with data", "images/s", "slower than the bare step by"), (
        Line(("ResNet-18, CIFAR stem, 2,048",), "g/loop", ("loop rate", "gap")),
    )),
    "methods": Table("docs/PERFORMANCE.md", ("time per step", "SAM / plain", "ASAM / SAM", "plain / head only"), (
        Line(("ResNet-18, 32 px, 512",), "g/steps_resnet18", ("sam", "asam", "head only")),
        Line(("DeiT-Ti, 64",), "g/steps_deit_tiny", ("sam", "asam", "head only")),
    )),
    "bits": Table("docs/PERFORMANCE.md", ("`deterministic=true`, compiled and trained twice", "same bits"), (
        Line(("ResNet-18, 32 px, 2 epochs",), "g/bits_1", ("same bits as g/bits_2",)),
    )),
    "speed runs": Table("docs/PERFORMANCE.md", SEED_HEADS, (
        Line(("CIFAR-10, 95 %: the recipe, 30 epochs",), "f/fast10", SEEDS),
        Line(("CIFAR-10, 95 %: 46 epochs, erasing, all images",), "f/fast10_long", SEEDS),
        Line(("CIFAR-100, 75 %",), "h/fast100", SEEDS),
    )),
    "cifar100_resnet_vs_vit": _study(
        _row("ResNet-18", "77.3 %", "d/cnn_and_small", "resnet18"),
        _row("ViT 2L-2H-128", "72.1 %", "d/cnn_and_small", "vit_2l_2h_128"),
        _row("ViT 4L-4H-256", "76.0 %", "d/middle", "vit_4l_4h_256"),
        _row("ViT 6L-8H-384", "77.1 %", "d/middle", "vit_6l_8h_384"),
        _row("ViT 8L-8H-512", "77.4 %", "d8/large", "vit_8l_8h_512"),
        Line(("ViT 12L-4H-256, ours", ""), "e/vit_300", ("accuracy",)),
        Line(("ViT 12L-4H-256, distilled from our ResNet-18", ""), "t/vit_300_taught", ("accuracy",)),
    ),
    "cifar100_small_vits": _study(
        Line(("ResNet-18, the teacher", ""), "b/r18_200", ("accuracy",)),
        Line(("ViT, from scratch, 300 epochs", ""), "e/vit_300", ("accuracy",)),
        Line(("ViT, soft distillation, 300 epochs", ""), "t/vit_300_taught", ("accuracy",)),
        Line(("ViT, MAE pretraining, 200 + 200 epochs", ""), "m/vit_mae", ("accuracy",)),
    ),
    "cifar10_vit_distillation": _study(
        _row("DeiT-Ti, from ImageNet", "", "c1/distillation", "deit_ti"),
        _row("ViT 6L-4H-128, distilled from it", "", "c1/distillation", "small_distilled"),
        _row("ViT 6L-4H-128, no teacher", "", "c1/distillation", "small_scratch"),
    ),
    "cifar100_asam": _study(
        _row("DeiT-Ti, ASAM", "", "c2/asam", "deit_ti_asam"), _row("DeiT-Ti, SGD", "", "c2/sgd", "deit_ti_sgd"),
        _row("DeiT-Ti, AdamW", "", "c2/adamw", "deit_ti_adamw"), _row("DeiT-Ti, SAM", "", "c3/sam", "deit_ti_sam"),
        _row("DeiT-Ti, SGD, twice the epochs", "", "c3/sgd_2x", "deit_ti_sgd_2x"),
        _row("DeiT-Ti, AdamW, twice the epochs", "", "c3/adamw_2x", "deit_ti_adamw_2x"),
    ),
    "cifar10_transfer_learning": _study(
        *(_row(f"DeiT-Ti, {share} % of the images", "", "c1/fractions", f"deit_ti_{share}")
          for share in (10, 20, 50, 100)),
        *(_row(f"DeiT-Ti, 50 %, {word} frozen", "", "c1/freezing", f"deit_ti_50_freeze_{word}")
          for word in ("early", "middle", "last")),
    ),
}  # fmt: skip

# recipe -> (result, how it is told: figures between the words)
RECIPES = {
    "scratch_cnn_cifar": ("b/r18_200", ("accuracy", "epochs", "training")),
    "scratch_vit_cifar": ("e/vit_300", ("accuracy", "epochs", "training")),
    "cifar100_vit_taught": ("t/vit_300_taught", ("accuracy", "epochs", "training")),
    "cifar100_vit_mae": ("m/vit_mae", ("accuracy", "epochs", "training")),
    "cifar10_deit_tiny": ("c1/c10_deit", ("accuracy", "epochs", "training")),
    "cifar100_deit_tiny": ("c2/c100_deit", ("accuracy", "epochs", "training")),
    "cifar10_fast_resnet18": ("f/fast10", ("seeds' accuracy", "reached", "seeds' training")),
    "cifar100_fast_resnet18": ("h/fast100", ("seeds' accuracy", "reached", "seeds' training")),
}
MEASURED = r"^Measured: .*$"
WORDS = {"epochs": "{} epochs", "training": "{} of training", "reached": "{} seeds reach the target",
         "seeds' training": "{} of training each"}  # fmt: skip


def absent(packet: str) -> str:
    """What stands for a figure that there is not."""
    return f"not measured yet (packet {packet})"


def draw(table: Table, root: Path) -> str:
    """The table as Markdown."""
    heads = (*table.heads, "GPU")
    rows = [heads, tuple("---" if not head or i < _leading(table) else "---:" for i, head in enumerate(heads))]
    for line in table.lines:
        packet, _, job = line.of.partition("/")
        record = records.load(root, packet, job)
        if record is None:
            cells = (absent(packet), *("" for _ in line.figures))
        else:
            cells = (*(_figure(name, record, root) for name in line.figures), figure("hardware", record))
        rows.append((*line.cells, *cells))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _figure(name: str, record: dict, root: Path) -> str:
    """A figure; `same bits as PACKET/JOB` needs that other record too."""
    if not name.startswith("same bits as "):
        return figure(name, record)
    packet, _, job = name.removeprefix("same bits as ").partition("/")
    other = records.load(root, packet, job)
    return absent(packet) if other is None else same_bits(record, other)


def _leading(table: Table) -> int:
    return len(table.lines[0].cells)


def recipe_line(name: str, root: Path) -> str:
    """The line of a recipe's header."""
    of, names = RECIPES[name]
    packet, _, job = of.partition("/")
    record = records.load(root, packet, job)
    if record is None:
        return f"Measured: not yet (packet {packet} of results/WANTED.md)."
    said = ", ".join(WORDS.get(word, "{}").format(figure(word, record)) for word in names)
    return f"Measured: {said}; {figure('hardware', record)} (results/gpu/{of}.json)."


def _table(name: str) -> tuple[str, re.Pattern[str], str]:
    """(the marker before a table, the pattern of it all, the marker behind)."""
    begin, end = f"<!-- gpu: {name} -->", f"<!-- end of gpu: {name} -->"
    return begin, re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.S), end


def check(root: Path) -> None:
    """Raises Damaged where a marker is gone or stands twice."""
    for name, table in TABLES.items():
        begin, pattern, _ = _table(name)
        count = len(pattern.findall((root / table.file).read_text(encoding="utf-8")))
        if count != 1:
            raise records.Damaged(f"{table.file} has {count} times the table {begin!r}; expected 1")
    for name in RECIPES:
        count = len(re.findall(MEASURED, (root / f"configs/{name}.py").read_text(encoding="utf-8"), re.M))
        if count != 1:
            raise records.Damaged(f"configs/{name}.py has {count} lines that begin with 'Measured:'; expected 1")


def redraw(root: Path) -> list[str]:
    """Draws all tables and lines anew; returns the files that changed. Raises Damaged as `check`."""
    check(root)
    files = [*sorted({table.file for table in TABLES.values()}), *(f"configs/{name}.py" for name in RECIPES)]
    before = {file: (root / file).read_text(encoding="utf-8") for file in files}
    texts = dict(before)
    for name, table in TABLES.items():
        begin, pattern, end = _table(name)
        drawn = f"{begin}\n{draw(table, root)}\n{end}"
        texts[table.file] = pattern.sub(lambda _, drawn=drawn: drawn, texts[table.file])
    for name in RECIPES:
        file, line = f"configs/{name}.py", recipe_line(name, root)
        texts[file] = re.sub(MEASURED, lambda _, line=line: line, texts[file], flags=re.M)
    changed = [file for file in files if texts[file] != before[file]]
    for file in changed:
        (root / file).write_text(texts[file], encoding="utf-8")
    return changed
