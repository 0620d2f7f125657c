"""Writes jaxvit/models/tags.json: what timm records about every pretrained tag of its families, and AlexNet's.

    python tools/make_tags.py [FILE]        # needs timm 1.0.31; torch is not needed to read the file

The file: {"renamed": {old name: new name}, "families": {family: {"defaults": {...}, "models": {name: {tag: {...}}}}}}.
An entry holds only what differs from its
family's defaults; the first tag of a name is the default one; the tag "" belongs to names without tags.
`normalization` names a row of NORMALIZATION in jaxvit/models/tags.py. `hub` absent means "timm/NAME.TAG";
null means that the weights lie at `url`, or nowhere when there is none.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from jaxvit.models import registry  # noqa: E402
from jaxvit.models.tags import NORMALIZATION  # noqa: E402

MODULES = tuple(module for family in registry.FAMILIES.values() for module in family.timm_modules)
TARGET = Path(__file__).parents[1] / "jaxvit" / "models" / "tags.json"

ALEXNET = {
    "defaults": {},
    "models": {
        "alexnet": {
            "tv_in1k": {
                "hub": None,
                "url": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                "license": "bsd-3-clause",
                "num_classes": 1000,
                "in_channels": 3,
                "image_size": [224, 224],
                "normalization": "imagenet",
                "crop_pct": 0.875,
                "crop_mode": "center",
                "interpolation": "bilinear",
                "classifier": "classifier.6",
                "first_conv": "features.0",
            }
        }
    },
}


def natural(name: str) -> list[Any]:
    """Sorts numbers inside names by value."""
    return [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)]


def entry(name: str, tag: str, cfg: Any) -> dict[str, Any]:
    """Everything recorded about one tag; None where timm records nothing."""
    channels, *image_size = cfg.input_size
    full = f"{name}.{tag}" if tag else name
    hub = f"timm/{full}" if cfg.hf_hub_id == "timm/" else cfg.hf_hub_id
    row = (tuple(cfg.mean), tuple(cfg.std))
    return {
        "hub": "" if hub == f"timm/{full}" else hub or None,
        "url": (cfg.url or None) if not hub else None,
        "license": cfg.license,
        "num_classes": cfg.num_classes,
        "in_channels": channels,
        "image_size": image_size,
        "test_image_size": list(cfg.test_input_size[1:]) if cfg.test_input_size else None,
        "normalization": next(k for k, v in NORMALIZATION.items() if v == row),
        "crop_pct": cfg.crop_pct,
        "test_crop_pct": cfg.test_crop_pct,
        "crop_mode": cfg.crop_mode,
        "interpolation": cfg.interpolation,
        "classifier": list(cfg.classifier) if isinstance(cfg.classifier, tuple) else cfg.classifier,
        "first_conv": cfg.first_conv,
        "fixed_input_size": cfg.fixed_input_size,
    }


def family_table(module: str) -> dict[str, Any]:
    """The most common value of every field, and per tag what differs from it."""
    import timm
    from timm.models import _registry

    models = {}
    for name in sorted(timm.list_models(module=module), key=natural):
        cfgs = sys.modules[f"timm.models.{module}"].default_cfgs[name]
        models[name] = {tag: entry(name, tag, cfgs.cfgs[tag]) for tag in cfgs.tags}
        default = _registry.get_pretrained_cfg(name, allow_unregistered=False)
        assert default is not None and (default.tag or "") == next(iter(models[name]))
    entries = [e for tags in models.values() for e in tags.values()]
    defaults = {"hub": "", "url": None, "test_image_size": None, "test_crop_pct": None}
    for key in entries[0]:
        common = Counter(json.dumps(e[key]) for e in entries).most_common(1)[0][0]
        defaults.setdefault(key, json.loads(common))
    for tags in models.values():
        for tag, e in tags.items():
            tags[tag] = {k: v for k, v in e.items() if v != defaults[k]}
    return {"defaults": {k: v for k, v in defaults.items() if v not in (None, "")}, "models": models}


def renamed() -> dict[str, str]:
    """Names that timm once had -> today's, most of them with a tag."""
    from timm.models import _registry

    today: dict[str, str] = {}
    for family in MODULES:
        for old, new in sorted(_registry._module_to_deprecated_models[family].items()):
            new = new or ""
            if old.startswith("ig_"):  # timm leads all widths to the narrowest one
                new = f"{old.removeprefix('ig_')}.{new.partition('.')[2]}"
            for target in (new, f"{new}_in1k", new.partition(".")[0]):  # a few of its tags do not exist (any more)
                if target in _registry._model_pretrained_cfgs:
                    today.setdefault(old, target)
    return today


def dumps(tables: dict[str, Any]) -> str:
    """JSON with one line per tag, so that a change shows as a change of that line."""
    families = []
    for family, table in tables.items():
        models = []
        for name, tags in table["models"].items():
            lines = ",\n".join(f"{json.dumps(t)}:{json.dumps(e, separators=(',', ':'))}" for t, e in tags.items())
            models.append(f"{json.dumps(name)}: {{\n{lines}\n}}")
        body = f' "defaults": {json.dumps(table["defaults"])},\n "models": {{\n' + ",\n".join(models) + "\n }"
        families.append(f"{json.dumps(family)}: {{\n{body}\n}}")
    old = json.dumps(renamed(), indent=0)
    return f'{{"renamed": {old},\n"families": {{\n' + ",\n".join(families) + "\n}}\n"


def main() -> None:
    """Writes the file named on the command line, or the package's own."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    tables = {"alexnet": ALEXNET, **{family: family_table(family) for family in MODULES}}
    target.write_text(dumps(tables))
    count = sum(len(tags) for table in tables.values() for tags in table["models"].values())
    print(f"{target}: {count} tags, {target.stat().st_size} bytes")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
