"""What training scripts put around weights: dictionaries that hold them, and prefixes of their names."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxvit.errors import UserError, shown
from jaxvit.models.family import Family
from jaxvit.pretrained import foreign

Tensors = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

CHOICES = ("ema", "raw")
# Where scripts put the weights, by kind. Averaged ones come first, as timm has it; I-JEPA's encoder before its average.
RAW = (
    "state_dict", "model", "model_state_dict", "net", "net_state_dict", "network", "module", "student", "weights",
    "params", "encoder",
)  # fmt: skip
EMA = (
    "state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "model_state_dict_ema", "net_ema",
    "ema_model", "ema", "params_ema", "teacher", "target_encoder",
)  # fmt: skip
ORDER = (*(key for key in EMA if key != "target_encoder"), *RAW, "target_encoder")
# Whole words of a prefix that mark a kept average.
AVERAGED = (
    r"(^|[._])(teacher|ema|model_ema|ema_\w+|averaged_model|avg_model|swa_model|encoder_k|momentum_encoder|"
    r"target_encoder)\."
)
PREFIXES = ("module.", "_orig_mod.", "model.")  # stripped wherever every name has them
BESIDE = r"optim|sched|scaler|loss|criterion|callback|config|args|hyper|rng|metric"  # dictionaries of other things
MAX_DEPTH = 8
FEWEST = 0.1  # share of all names that a prefix must cover to be tried
HEAD = r"(^|\.)(heads?|fc|cls_head|classifier|linear|logits|last_layer)\.(?:.*\.)?weight$"
MOST_NAMES = 5  # that a note lists


def check(weights: str | None) -> None:
    """Raises UserError for a value that is neither None, "ema" nor "raw"."""
    if weights is not None and not (isinstance(weights, str) and weights in CHOICES):
        raise UserError(f"weights={shown(weights)} is unknown; expected 'ema' (averaged), 'raw' or None.")


def unwrap(state_dict: Mapping[str, Any], weights: str | None = None) -> tuple[Tensors, list[str]]:
    """Finds the tensors inside a training script's checkpoint and strips the prefixes that all names share.

    Where averaged and raw weights lie side by side `weights` chooses; None takes the averaged ones and notes it.
    Raises UserError for a value that is not an array, and where the file has not what `weights` asks for.
    """
    check(weights)
    notes: list[str] = []
    chosen = ""
    for _ in range(MAX_DEPTH):
        found = [key for key in ORDER if isinstance(state_dict.get(key), Mapping) and state_dict[key]]
        if not found:
            break
        ema, raw = ([key for key in found if key in kind] for kind in (EMA, RAW))
        chosen = (ema if weights == "ema" and ema else raw if weights == "raw" and raw else found)[0]
        if ema and raw:
            other, word = (raw[0], "raw") if chosen in EMA else (ema[0], "ema")
            notes.append(f"{chosen!r} is read; weights={word!r} takes {other!r}")
        elif weights == "raw" and chosen in EMA:
            raise UserError(f"the file has only averaged weights, under {chosen!r}; expected weights='ema' or None.")
        state_dict = state_dict[chosen]
    state_dict = _dotted(state_dict) or state_dict
    tensors = {str(name): _array(name, value) for name, value in state_dict.items()}
    while tensors and (prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), "")):
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    if weights == "ema" and chosen not in EMA and not any(re.search(AVERAGED, name) for name in tensors):
        keys = ", ".join(EMA[:3])
        raise UserError(f"the file has no averaged weights; expected them under {keys}, teacher or a similar name.")
    return tensors, notes


def _dotted(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """The arrays within dictionaries of any other name, as "best_model.fc.bias"; {} if there are none.

    Their prefix is then found as that of any other names.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, Mapping):
            if depth and hasattr(value, "shape"):
                found[f"{prefix}{name}"] = value
        elif depth < MAX_DEPTH and not re.search(BESIDE, str(name).casefold()):
            found |= _dotted(value, f"{prefix}{name}.", depth + 1)
    if found and not depth:
        found |= {str(name): value for name, value in values.items() if hasattr(value, "shape")}
    return found


def _array(name: Any, value: Any) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) else None
    try:
        array = np.asarray(value) if array is None else array
    except Exception as error:
        raise UserError(f"{name} in the checkpoint is not an array: {error}") from None
    if array.dtype.kind in "OSUM":
        raise UserError(f"{name} in the checkpoint is {type(value).__name__}; expected an array of numbers.")
    return array


def candidates(names: Iterable[str]) -> list[str]:
    """The dotted prefixes that at least FEWEST of the names have, short ones first."""
    names, counts = list(names), {}
    for name in names:
        end = name.find(".") + 1
        while end:
            counts[name[:end]] = counts.get(name[:end], 0) + 1
            end = name.find(".", end) + 1
    return sorted((p for p, n in counts.items() if n >= FEWEST * len(names)), key=lambda p: (p.count("."), p))


def to_timm(
    family: Family, tensors: Mapping[str, np.ndarray], shapes: Shapes, weights: str | None = None
) -> tuple[Tensors, list[str]]:
    """Timm's names for a model of the family with tensors of these shapes, and a note of what was stripped.

    Where the names do not fit, the prefix under which most of them do is taken away. What lies outside of it is used
    where it fits or is plainly the classifier, and else not loaded, as a loss's own weights are not the model's.
    """
    heads = tuple(name for pair in family.classifiers.items() for name in pair if name)
    needed = {name for name in shapes if not name.startswith(heads)}
    fits = _fits(family, tensors, needed)
    if len(fits) == len(needed):
        return foreign.to_timm(family, tensors), []
    counted = {
        prefix: len(_fits(family, [n.removeprefix(prefix) for n in tensors if n.startswith(prefix)], needed))
        for prefix in candidates(tensors)
    }
    most = max(counted.values(), default=0)
    if most <= max(len(fits), len(needed) // 4):
        return foreign.to_timm(family, tensors), []
    best = [prefix for prefix, count in counted.items() if count == most]
    ema = [prefix for prefix in best if re.search(AVERAGED, prefix)]
    raw = [prefix for prefix in best if prefix not in ema]
    prefix = ([*raw, *ema] if weights == "raw" else [*ema, *raw])[0]
    inside = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
    outside = {n: a for n, a in tensors.items() if not n.startswith(prefix)}
    renamed = foreign.to_timm(family, inside)
    taken = _also(family, renamed, outside, shapes)
    note = f"{len(inside)} names fit without the prefix {prefix!r}"
    note += "".join(f"; {theirs} is taken for {ours}" for ours, theirs in taken.items() if ours != theirs)
    left = [name for name in outside if name not in taken.values()]
    note += f"; not loaded: {some(left)}" if left else ""
    others = [p for p in best if p != prefix and bool(re.search(AVERAGED, p)) != bool(re.search(AVERAGED, prefix))]
    if ema and others:
        note += f"; weights={'ema' if prefix in raw else 'raw'!r} takes {others[0]!r}"
    renamed |= {ours: outside[theirs] for ours, theirs in taken.items()}
    head = next(iter(family.classifiers))
    if f"{head}.weight" in taken and f"{head}.bias" not in renamed:
        renamed[f"{head}.bias"] = np.zeros(len(renamed[f"{head}.weight"]), np.float32)
    return renamed, [note]


def _fits(family: Family, names: Iterable[str], needed: set[str]) -> set[str]:
    """Which of the needed names a layout makes of `names`; arrays without entries cost nothing to rename."""
    try:
        return needed & foreign.to_timm(family, dict.fromkeys(names, np.zeros(0, np.float32))).keys()
    except UserError:
        return set()


def _also(family: Family, renamed: Tensors, outside: Tensors, shapes: Shapes) -> dict[str, str]:
    """Tensors outside of the prefix that belong to the model: {our name: the file's}; its classifier above all."""
    heads = {f"{head}.{leaf}" for head in family.classifiers for leaf in ("weight", "bias")}
    taken = {name: name for name in outside if name in {*shapes, *heads} and name not in renamed}
    head = next(iter(family.classifiers))
    want = shapes.get(f"{head}.weight")
    if want is None or f"{head}.weight" in (renamed | taken):
        return taken
    found = [
        name.removesuffix(".weight")
        for name, array in outside.items()
        if re.search(HEAD, name) and array.ndim > 1 and array.shape[1:] == want[1:]
    ]
    if len(found) != 1:
        return taken
    leaves = [leaf for leaf in ("weight", "bias") if f"{found[0]}.{leaf}" in outside]
    if "bias" not in leaves and not found[0].endswith("head.proj"):  # OpenCLIP's projection has none
        return taken
    return taken | {f"{head}.{leaf}": f"{found[0]}.{leaf}" for leaf in leaves}


def some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
