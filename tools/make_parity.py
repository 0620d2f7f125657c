"""Compares every model with timm on random weights and images, and writes docs/PARITY.md, one row per name.

    python tools/make_parity.py [--pattern 'swin_*'] [--minutes 60]     # needs timm 1.0.31 and a CPU build of torch
    python tools/make_parity.py --structure                             # names and shapes only, for all the rest
    python tools/make_parity.py --golden                                # tests/golden/logits.json instead

Float32 on the CPU. Weights are drawn by `jaxvit.pretrained.draw`, seeded by each tensor's name; images are drawn too,
at the model's own size. A name measured once is skipped (docs/parity.json holds the figures), so the command can be
stopped and started again; --again measures anew. Where a model is too large, its depth is cut, and the row says so.
"""

import argparse
import contextlib
import gc
import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

with contextlib.suppress(ImportError):  # only needed where torchvision was built for another torch
    import torchvision_cpu  # noqa: F401  # pyright: ignore[reportMissingImports]
import timm  # noqa: E402
import torchvision  # noqa: E402

from jaxvit.models import registry  # noqa: E402
from jaxvit.models.layers import to_pair  # noqa: E402
from jaxvit.pretrained import convert, export, rules  # noqa: E402
from jaxvit.pretrained import draw as drawn  # noqa: E402

FIGURES, PAGE, GOLDEN = ROOT / "docs/parity.json", ROOT / "docs/PARITY.md", ROOT / "tests/golden/logits.json"
TOLERANCE = 1e-4  # times max(1, largest logit)
REMARKS = {  # measured by hand: the same networks in torch's float64
    "resnet200d": "train mode: torch's float32 is 3.6e-4 from torch's float64, ours 4.2e-5",
    "vgg19_bn": "train mode: torch's float32 is 2.6e-4 from torch's float64, ours 2.6e-5",
}
LARGE = 100_000_000  # parameters; beyond this the depth is cut
TIMM_WORDS = {"image_size": "img_size", "in_channels": "in_chans"}

# Small models for the golden file: timm name, fields that make it small.
SMALL_VIT = {"depth": 2, "image_size": (48, 64), "num_classes": 10}
SMALL_EVA = {"depth": 2, "image_size": (48, 64), "patch_size": 16, "embed_dim": 32, "num_heads": 2, "num_classes": 10}
SMALL_SWIN = {"depths": (1, 2, 2, 1), "embed_dim": 24, "image_size": 64, "num_classes": 10}
SMALL_CONVNEXT = {"depths": (1, 1, 2, 1), "image_size": 64, "num_classes": 10}
COLUMNS = ("difference", "largest", "parameters", "image_size", "cut", "torch", "train_difference", "train_largest",
           "means_difference", "vars_difference")  # fmt: skip
# What a row has where docs/parity.json does not say otherwise
USUAL: dict[str, Any] = {"cut": {}, "image_size": [224, 224], "round_trip": True, "top1": True, "torch": "2.13.0+cpu"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("test_vit", {"num_classes": 10}),
    ("test_vit2", {"num_classes": 10, "image_size": (64, 48)}),
    ("test_vit3", {"num_classes": 10, "image_size": 64}),
    ("test_vit4", {"num_classes": 10, "image_size": 64}),
    ("vit_tiny_patch16_224", {**SMALL_VIT, "in_channels": 1}),
    ("deit_tiny_distilled_patch16_224", SMALL_VIT),
    ("deit3_small_patch16_224", {**SMALL_VIT, "num_classes": 0}),
    ("swin_tiny_patch4_window7_224", SMALL_SWIN),
    ("swin_s3_tiny_224", {**SMALL_SWIN, "image_size": (64, 96)}),
    ("test_resnet", {"num_classes": 10, "image_size": 64}),
    ("resnet10t", {"num_classes": 10, "image_size": (64, 80)}),
    ("vgg11_bn", {"num_classes": 10, "image_size": (64, 48), "mlp_ratio": 0.015625}),
    ("alexnet", {"num_classes": 10, "image_size": (64, 80)}),
    ("eva_giant_patch14_224", SMALL_EVA),
    ("eva02_base_patch16_clip_224", SMALL_EVA),
    ("eva02_enormous_patch14_clip_224", SMALL_EVA),
    ("vit_betwixt_patch16_rope_reg4_gap_256", SMALL_EVA),
    ("vit_pe_core_small_patch16_384", {**SMALL_EVA, "attn_pool_num_heads": 2}),
    ("vit_small_patch16_rope_mixed_ape_224", {**SMALL_EVA, "in_channels": 1}),
    ("vit_small_plus_patch16_dinov3_qkvb", SMALL_EVA),
    ("vit_base_patch16_sapiens2", {**SMALL_EVA, "num_kv_heads": (2, 1)}),
    ("swinv2_base_window12to16_192to256", {**SMALL_SWIN, "window_size": 4}),
    ("convnext_atto_ols", {**SMALL_CONVNEXT, "in_channels": 1}),
    ("convnextv2_atto", {**SMALL_CONVNEXT, "image_size": (64, 80)}),
    ("test_convnext3", {"num_classes": 10, "image_size": 64}),
]


def timm_model(name: str, fields: dict[str, Any]) -> torch.nn.Module:
    """Timm's model of the same fields (torchvision's AlexNet), in evaluation mode, on drawn weights."""
    words = {TIMM_WORDS.get(k, k): v for k, v in fields.items()}
    if not registry.model_entry(name)[0].takes_image_size:
        words.pop("img_size", None)
    model = timm.create_model(name, **words) if name != "alexnet" else torchvision.models.alexnet(**words)
    model.eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    weights = {key: torch.from_numpy(value) for key, value in drawn.state_dict(shapes).items()}
    model.load_state_dict(weights)
    return model


def compare(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Logits of both on two images; also that the way back gives timm's state dict bit for bit."""
    theirs = timm_model(name, fields)
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    model = registry.create_model(name, **fields)
    variables = convert(model, state)
    back = export(model, variables)
    exact = back.keys() == state.keys() and all(np.array_equal(back[k], state[k]) for k in state)
    height, width = to_pair(model.image_size)
    images = drawn.images(name, 2, height, width, model.in_channels)
    ours = np.asarray(jax.jit(model.apply)(variables, images))
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    jax.clear_caches()
    return {
        "parameters": sum(p.numel() for p in theirs.parameters()),
        "image_size": [height, width],
        "difference": float(np.abs(ours - wanted).max()),
        "largest": float(np.abs(wanted).max()),
        "top1": bool((ours.argmax(-1) == wanted.argmax(-1)).all()),
        "round_trip": exact,
        "cut": {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()},
        "torch": torch.__version__,
        **(train_mode(model, variables, theirs, name, images) if looks_at_others(name) else {}),
    }


def train_mode(model: Any, variables: Any, theirs: torch.nn.Module, name: str, images: np.ndarray) -> dict[str, Any]:
    """The same comparison in train mode, and of the running statistics that BatchNorm leaves."""
    images = np.concatenate([images, drawn.images(name + " more", 2, *images.shape[1:])])
    step = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    ours, moved = step(variables, images)
    with torch.no_grad():
        wanted = theirs.train()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    back = export(model, {"params": variables["params"], **moved})
    moved = {k: (back[k], v.numpy()) for k, v in theirs.state_dict().items() if k.endswith(("_mean", "_var"))}
    jax.clear_caches()
    return {
        "train_difference": float(np.abs(ours - wanted).max()),
        "train_largest": float(np.abs(wanted).max()),
        **{f"{word}s_difference": apart(moved, f"running_{word}") for word in ("mean", "var") if moved},
    }


def apart(moved: dict[str, tuple[np.ndarray, np.ndarray]], ending: str) -> float:
    """The largest difference of running statistics, as a share of the largest of their norm or of 1."""
    pairs = [pair for name, pair in moved.items() if name.endswith(ending)]
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in pairs)


def structure(name: str) -> dict[str, Any]:
    """Names and shapes of all tensors, full size, without computing anything."""
    with torch.device("meta"):
        theirs = {k: tuple(v.shape) for k, v in timm.create_model(name).state_dict().items()}
    ours = {rule.name: rule.shape for rule in rules.rules_of(registry.create_model(name))}
    same = ours == {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    return {"same_names_and_shapes": same, "tensors": len(theirs)}


def check_structures(pattern: str, minutes: float) -> None:
    """Checks the structure of names that have not been measured."""
    figures = read_figures()
    end = time.time() + 60 * minutes
    for name in registry.list_models(pattern):
        if name in figures:
            continue
        if time.time() > end:
            break
        figures[name] = structure(name)
        print(name, figures[name], flush=True)
    write_figures(figures)
    write_page(figures)


def cut(name: str) -> dict[str, Any]:
    """Fields that make a large model small enough to compare quickly; the blocks that remain are full size."""
    fields = registry.model_fields(name)
    if name == "alexnet":
        return {}
    with torch.device("meta"):
        parameters = sum(p.numel() for p in timm.create_model(name).parameters())
    tokens = np.prod(to_pair(fields["image_size"])) / 50176
    if parameters * tokens < LARGE:
        return {}
    if isinstance(fields.get("num_kv_heads"), tuple):  # an outer and an inner block
        return {"depth": 2, "num_kv_heads": (fields["num_kv_heads"][0], min(fields["num_kv_heads"]))}
    if "depth" in fields:
        return {"depth": 2}
    if "depths" in fields:
        return {"depths": (2, 2, 2, 2)}
    return {}


def measure(pattern: str, minutes: float, again: bool) -> None:
    """Measures what is missing, saving after each name."""
    figures = read_figures()
    names = [n for n in registry.list_models(pattern) if again or not complete(n, figures.get(n, {}))]
    end = time.time() + 60 * minutes
    for name in sorted(names, key=lambda n: zlib.crc32(n.encode())):  # a short run sees all families
        if time.time() > end:
            break
        try:
            figures[name] = compare(name, cut(name))
        except (ValueError, RuntimeError, MemoryError) as error:
            figures[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        print(name, figures[name], flush=True)
        write_figures(figures)
        write_page(figures)
        gc.collect()


def read_figures() -> dict[str, dict[str, Any]]:
    """What was measured, by name; what every row has in common is not in the file."""
    rows = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    words = rows.pop("", [])
    found = {n: {k: v for k, v in zip(words, row, strict=False) if v is not None} for n, row in rows.items()}
    return {name: (USUAL if "difference" in row else {}) | row for name, row in found.items()}


def write_figures(figures: dict[str, dict[str, Any]]) -> None:
    """One line per name, a column per word; three digits of each figure; null for what is USUAL or not there."""
    words = [*COLUMNS, *sorted({word for row in figures.values() for word in row} - {*COLUMNS})]
    lines = [f'"":{json.dumps(words)}']
    for name, row in sorted(figures.items()):
        short = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items() if USUAL.get(k) != v}
        cells = [short.get(word) for word in words]
        while cells and cells[-1] is None:
            cells.pop()
        lines.append(f"{json.dumps(name)}:{json.dumps(cells, separators=(',', ':'))}")
    FIGURES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def has_batch_norm(name: str) -> bool:
    """Whether a network's statistics are those of a batch while it trains."""
    return registry.model_entry(name)[0].name == "resnet" or name.endswith("_bn")


def looks_at_others(name: str) -> bool:
    """Whether its train mode is measured too: it has BatchNorm, or global response norms."""
    return has_batch_norm(name) or bool(registry.model_fields(name).get("use_grn"))


def complete(name: str, row: dict[str, Any]) -> bool:
    """Whether all that can be measured of a name is there."""
    wanted = "vars_difference" if has_batch_norm(name) else "train_difference"
    return "difference" in row and (not looks_at_others(name) or wanted in row)


def passes(row: dict[str, Any]) -> bool:
    """Whether a row meets the promise."""
    return (
        "difference" in row
        and row.get("train_difference", 0.0) <= TOLERANCE * max(1.0, row.get("train_largest", 0.0))
        and row.get("means_difference", 0.0) <= TOLERANCE
        and row.get("vars_difference", 0.0) <= TOLERANCE
        and row["difference"] <= TOLERANCE * max(1.0, row["largest"])
        and row["top1"]
        and row["round_trip"]
    )


def write_page(figures: dict[str, dict[str, Any]]) -> None:
    """Renders docs/PARITY.md."""
    names = [n for n in registry.list_models() if n in figures]
    measured = sum("difference" in figures[n] for n in names)
    alike = sum(figures[n].get("same_names_and_shapes", False) for n in names)
    good = sum(passes(figures[n]) for n in names)
    total = len(registry.list_models())
    torches = " and ".join(sorted({str(figures[n]["torch"]) for n in names if "torch" in figures[n]}))
    lines = [
        "# Parity with timm",
        "",
        "Each model was given random weights and random images, in float32 on the CPU, here and in timm "
        f"{timm.__version__} (torch {torches}, jax {jax.__version__}). {measured} of {total} names were measured. "
        f"{good} of them pass: the logits differ by at most 1e-4 x max(1, largest logit), the most probable class is "
        "the same, and the state dict comes back bit for bit."
        + (f" Of {alike} more, only the names and shapes of all tensors were compared." if alike else ""),
        "",
        "Networks with BatchNorm or global response norms were also compared in train mode, where BatchNorm uses the "
        "statistics of a batch of four: the logits, and the running means afterwards. The column `running variance` is "
        "the largest difference as a share of the largest variance; it is empty if it was not measured. Very large "
        "models were cut to a few blocks, as the remark says. AlexNet is compared with torchvision's.",
        "",
        "`python tools/make_parity.py` writes this page.",
        "",
        "| name | image size | parameters | largest logit | max difference | in train mode | running variance | "
        "remark |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in names:
        row = figures[name]
        if "same_names_and_shapes" in row:
            same = "names and shapes equal" if row["same_names_and_shapes"] else "names or shapes DIFFER"
            lines.append(f"| `{name}` | | | | | | | not yet computed; {same} ({row['tensors']} tensors) |")
            continue
        if "error" in row:
            lines.append(f"| `{name}` | | | | | | | {row['error']} |")
            continue
        size = "x".join(map(str, row["image_size"]))
        remark = ", ".join(f"{k}={v}" for k, v in row["cut"].items())
        lines.append(
            f"| `{name}` | {size} | {row['parameters']:,} | {row['largest']:.3g} | {row['difference']:.1e} | "
            f"{format(row['train_difference'], '.1e') if 'train_difference' in row else ''} | "
            f"{format(row['vars_difference'], '.1e') if 'vars_difference' in row else ''} | "
            f"{'cut to ' + remark if remark else ''}{REMARKS.get(name, '')}{'' if passes(row) else ' FAILS'}"
            f"{'' if row['top1'] else ' another class'}{'' if row['round_trip'] else ' another state dict'} |"
        )
    PAGE.write_text("\n".join(lines) + "\n")


def write_golden() -> None:
    """Stores timm's logits on drawn weights and images for the small models of CASES; those that are there stay."""
    stored = json.loads(GOLDEN.read_text())["cases"] if GOLDEN.exists() else []
    there, cases = {case_key(case["name"], case["fields"]): case for case in stored}, []
    for name, fields in CASES:
        if (key := case_key(name, fields)) in there:
            cases.append(there[key])
            continue
        model, ours = timm_model(name, fields), registry.create_model(name, **fields)
        images = drawn.images(name, 2, *to_pair(ours.image_size), ours.in_channels)
        with torch.no_grad():
            logits = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        written = [[float(f"{value:.9g}") for value in row] for row in logits]  # nine digits are a float32
        cases.append({"name": name, "fields": fields, "logits": written})
        print(name, logits.shape, float(np.abs(logits).max()))
    text = ",\n".join(json.dumps(case) for case in cases)
    command = "python tools/make_parity.py --golden"
    GOLDEN.write_text(f'{{"made_by": "{command}", "timm": "{timm.__version__}", "cases": [\n{text}\n]}}\n')


def case_key(name: str, fields: dict[str, Any]) -> str:
    """What a case of the golden file is known by."""
    return json.dumps([name, fields])


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", default="*", help="shell pattern of names")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no further name after this long")
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")
    parser.add_argument("--golden", action="store_true", help="write the golden file of the tests instead")
    parser.add_argument("--structure", action="store_true", help="only names and shapes, of what is not measured")
    options = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "float32")
    if options.golden:
        write_golden()
        return
    if options.structure:
        check_structures(options.pattern, options.minutes)
        return
    measure(options.pattern, options.minutes, options.again)


if __name__ == "__main__":
    import quiet

    quiet.run(main)
