"""The pages of models: one for each family, made from its record, the recorded weights and what has been measured."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxvit.models import registry, tags
from jaxvit.models.family import Family
from jaxvit.runtime.console import count

TITLES = {
    "alexnet": "AlexNet", "vgg": "VGG", "resnet": "ResNet", "vit": "ViT and DeiT", "swin": "Swin",
    "swinv2": "Swin V2", "convnext": "ConvNeXt", "eva": "EVA and DINOv3",
}  # fmt: skip
# When to choose the family. One without an entry has the docstring of its module.
ADVICE = {
    "alexnet": (
        "A historic network, for comparisons. A ResNet-18 has a fifth of its parameters."
    ),
    "vgg": (
        "Plain stacks of 3x3 convolutions, for comparisons and for perceptual features. Of these families it needs "
        "the most memory and the most operations for its accuracy."
    ),
    "resnet": (
        "The safe first choice: fast, trains from scratch on small data sets, and there are many "
        "weights to start from. For images of 32 pixels set `model.stem=cifar`. `resnet18` and `resnet50` are the "
        "usual references."
    ),
    "vit": (
        "The most weights and the strongest pretraining (CLIP, SigLIP, DINOv2). Fine-tuned, a small ViT needs few "
        "images. From scratch it needs many images, strong augmentation or a teacher. Attention rollout shows what "
        "it attends to."
    ),
    "swin": (
        "A transformer with the stages of a convolutional network: attention within windows, so that large images "
        "cost in proportion to their area. A good choice for fine-tuning at 224 pixels and above."
    ),
    "swinv2": (
        "Swin with cosine attention and position biases that are computed from distances: weights of one window size "
        "work for another, and for larger images, without resampled tables."
    ),
    "convnext": (
        "A convolutional network with the recipe of transformers. Accurate at every size from `convnext_atto` on, and "
        "it takes any image size without resampled tables."
    ),
    "eva": (
        "Vision transformers with rotary positions, SwiGLU and the largest pretraining. They hold the best accuracies "
        "in timm's table, and they are large: look at the GMACs first. DINOv3 was pretrained without labels: take its "
        "features as they are, for neighbours, probes and `explain --method pca`."
    ),
}  # fmt: skip
PAPERS = {  # family -> (what, year, arXiv)
    "alexnet": [("One weird trick (Krizhevsky)", 2014, "1404.5997")],
    "vgg": [("VGG (Simonyan and Zisserman)", 2014, "1409.1556")],
    "resnet": [
        ("ResNet (He et al.)", 2015, "1512.03385"), ("Wide ResNet (Zagoruyko and Komodakis)", 2016, "1605.07146"),
        ("ResNeXt (Xie et al.)", 2016, "1611.05431"), ("SE (Hu et al.)", 2017, "1709.01507"),
        ("ECA (Wang et al.)", 2019, "1910.03151"), ("ResNet-RS (Bello et al.)", 2021, "2103.07579"),
        ("ResNet strikes back (Wightman et al.), the tags a1 to d", 2021, "2110.00476"),
    ],
    "vit": [
        ("ViT (Dosovitskiy et al.)", 2020, "2010.11929"), ("AugReg (Steiner et al.)", 2021, "2106.10270"),
        ("DeiT (Touvron et al.)", 2020, "2012.12877"), ("DeiT III (Touvron et al.)", 2022, "2204.07118"),
        ("CLIP (Radford et al.)", 2021, "2103.00020"), ("SigLIP (Zhai et al.)", 2023, "2303.15343"),
        ("DINOv2 (Oquab et al.)", 2023, "2304.07193"), ("Registers (Darcet et al.)", 2023, "2309.16588"),
    ],
    "swin": [("Swin (Liu et al.)", 2021, "2103.14030"), ("S3 (Chen et al.)", 2021, "2111.14725")],
    "swinv2": [("Swin V2 (Liu et al.)", 2021, "2111.09883")],
    "convnext": [("ConvNeXt (Liu et al.)", 2022, "2201.03545"), ("ConvNeXt V2 (Woo et al.)", 2023, "2301.00808")],
    "eva": [
        ("EVA (Fang et al.)", 2022, "2211.07636"), ("EVA-02 (Fang et al.)", 2023, "2303.11331"),
        ("RoPE for ViT (Heo et al.)", 2024, "2403.13298"), ("Perception Encoder (Bolya et al.)", 2025, "2504.13181"),
        ("DINOv3 (Siméoni et al.)", 2025, "2508.10104"),
    ],
}  # fmt: skip
NAMES_NOTE = """\
Parameters and file size (float32) are for the complete model, GMACs for one image of the given size. The last column is
the largest difference between our logits and timm's for the same random weights ([Parity](../PARITY.md))."""
WEIGHTS_NOTE = """\
`load_pretrained("NAME.TAG")` loads them; the first tag of a name is its default. Top-1 is timm's, on the validation
images of ImageNet at the given size ([source]({source})); no model has been evaluated on ImageNet here. A cell is empty
if the weights are not in timm's table or do not classify ImageNet-1k."""
ATTENTION = {
    None: "none",
    "tokens": "of all patches: `attention_rollout` and `attention_heads` explain it",
    "windows": "within windows: `attention_heads` explains it",
}


def pages(root: Path) -> dict[str, str]:
    """File name -> text, of the overview and of a page for each family; `root` holds docs/, results/ and tests/."""
    known = {
        "parameters": _read(root / "tests/golden/param_counts.json"),
        "macs": _read(root / "docs/macs.json"),
        "difference": _read(root / "docs/parity.json"),
        "top1": _read(root / "docs/imagenet_top1.json"),
    }
    rates = list(speeds(root / "results"))
    made = {f"family_{family.name}.md": page(family, known, rates) for family in registry.FAMILIES.values()}
    return {"models.md": overview(made), **made}


def overview(made: dict[str, str]) -> str:
    """The list of the families, with the best and the smallest of each."""
    names = sum(len(family.variants) for family in registry.FAMILIES.values())
    rows = ["| family | names | sets of weights | when to choose it |", "| --- | ---: | ---: | --- |"]
    for family in registry.FAMILIES.values():
        title, weights = TITLES.get(family.name, family.name), sum(len(_tags(name)) for name in family.variants)
        rows.append(f"| [{title}](family_{family.name}.md) | {len(family.variants)} | {weights} | {advice(family)} |")
    listed = "\n".join(name for name in made)
    return (
        f"# Models\n\n{names} names, with exactly timm's parameter counts. The page of a family lists its names, "
        "its weights with their accuracy, and its options. [Which model for my data](../WHICH_MODEL.md) compares them."
        "\n\n" + "\n".join(rows) + f"\n\n```{{toctree}}\n:hidden:\n{listed}\n```\n"
    )


def advice(family: Family) -> str:
    """When to choose a family; of one that nobody wrote about, what its module says."""
    text = sys.modules[family.model.__module__].__doc__ or ""
    return ADVICE.get(family.name, " ".join(text.split("\n\n")[0].split()))


def page(family: Family, known: dict[str, Any], rates: list[dict[str, Any]]) -> str:
    """The page of one family."""
    names = sorted(family.variants)
    classify = [name for name in names if any(tag["num_classes"] for tag in list(_tags(name).values())[:1])]
    classify = [name for name in classify if not name.startswith("test_")]  # timm's own, for tests
    first = min(classify or names, key=lambda name: known["parameters"].get(name, 1e12))
    title, layer = TITLES.get(family.name, family.name), family.default_layer
    if not isinstance(layer, str):
        layer = layer(registry.create_model(first))
    papers = [
        f"- {what}, {year}: [arXiv {number}](https://arxiv.org/abs/{number})"
        for what, year, number in PAPERS.get(family.name, [])
    ]
    facts = [
        f"- **Attention:** {ATTENTION[family.attention]}.",
        f"- **Heat maps:** Grad-CAM reads `{layer}` of `{first}`; "
        f"`python main.py explain --model {first} --layers` lists the others.",
        "- **Image size:** `--config.data.image_size=N` trains at another size; what depends on it is resampled when "
        "weights are loaded.",
    ]
    parts = [
        f"# {title}", advice(family), "\n".join(facts),
        "```\n" + example(first) + "\n```",
    ]  # fmt: skip
    if papers:
        parts += ["## Papers", "\n".join(papers)]
    parts += ["## Names", NAMES_NOTE, "\n".join(_names(names, known))]
    weights = list(_weights(names, known["top1"]))
    if weights:
        head = ["| name | tag | image | top-1 | licence |", "| --- | --- | ---: | --- | --- |"]
        note = WEIGHTS_NOTE.format(source=known["top1"].get("source", ""))
        parts += ["## Weights", note, "\n".join([*head, *weights])]
    measured = [row for row in rates if row["model"] in family.variants]
    if measured:
        parts += ["## Speed, measured", "\n".join([
            "| name | device | what | batch | image | images/s |", "| --- | --- | --- | ---: | ---: | ---: |",
            *(f"| `{r['model']}` | {r['device']} | {r['mode']}, {r['dtype']} | {r['batch']} | {r['size']} "
              f"| {r['rate']:,.{0 if r['rate'] > 100 else 1}f} |" for r in measured),
        ])]  # fmt: skip
    options = ", ".join(f"`{name}`" for name in sorted(_options(family)))
    parts += ["## Options", f"Each is an option `model.NAME` and an argument of `create_model`: {options}."]
    parts += [f"`{field}` is one of {', '.join(f'`{v}`' for v in values)}." for field, values in family.choices.items()]
    return "\n\n".join(parts) + "\n"


def example(name: str) -> str:
    """Commands for one name, with weights if it has any."""
    commands = [f"python main.py bench --model {name}"]
    if _tags(name):
        commands.insert(0, f"python main.py predict --model {name} photo.jpg")
        commands.insert(1, (
            f"python main.py --config folder_finetune --workdir runs/photos --config.model.name={name} "
            f"--config.pretrained={name} --config.data.name=folder:photos"
        ))  # fmt: skip
    return "\n".join(commands)


def speeds(results: Path) -> Iterator[dict[str, Any]]:
    """What `bench` measured and `results/` keeps, model by model; rows of other data, such as loops, are left out."""
    for path in [*sorted((results / "bench").glob("cpu_*.json")), *sorted((results / "gpu").glob("*/*.json"))]:
        content = _read(path)
        about = content.get("environment", {})
        cores = about.get("cores")
        device = content.get("hardware") or (f"{about['device']}, {cores} core{'s' * (cores != 1)}" if about else None)
        for row in content.get("results") or (content.get("found") or {}).get("rows") or []:
            if device and row.get("mode") in ("train", "infer") and not row.get("fields"):
                yield {
                    "model": row["model"], "device": device, "mode": row["mode"], "dtype": row["dtype"],
                    "batch": row["batch_size"], "size": _size(row["image_size"]),
                    "rate": row["images_per_second"]["median"],
                }  # fmt: skip


def _names(names: list[str], known: dict[str, Any]) -> Iterator[str]:
    yield "| name | parameters | MB | GMACs | image | difference |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name in names:
        pin, macs = known["parameters"].get(name), known["macs"].get(name)
        difference = next(iter(known["difference"].get(name, [])), None)  # the first column
        cells = (
            f"`{name}`",
            count(pin) if pin else "",
            f"{4 * pin / 1e6:,.0f}" if pin else "",
            f"{macs / 1e9:.3g}" if macs else "",
            _size(registry.data_config(name)["image_size"]),
            "" if difference is None else f"{difference:.0e}",
        )
        yield "| " + " | ".join(cells) + " |"


def _weights(names: list[str], table: dict[str, Any]) -> Iterator[str]:
    for name in names:
        for tag, entry in _tags(name).items():
            found = table.get("top1", {}).get(f"{name}.{tag}", {})
            accuracy = ", ".join(
                f"{value:.1f} % at {size}" for size, value in sorted(found.items(), key=lambda x: int(x[0]))
            )
            cells = (f"`{name}`", f"`{tag}`", _size(entry["image_size"]), accuracy, entry["license"] or "")
            yield "| " + " | ".join(cells) + " |"


def _tags(name: str) -> dict[str, dict[str, Any]]:
    return {tag: entry for tag, entry in tags.tag_tables().get(name, {}).items() if tag and entry["has_weights"]}


def _options(family: Family) -> set[str]:
    return {field.name for field in dataclasses.fields(family.model)} - {"parent", "name"}


def _size(image_size: Any) -> str:
    height, width = image_size
    return f"{height}" if height == width else f"{height}×{width}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
