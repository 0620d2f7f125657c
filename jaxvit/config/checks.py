"""Which options and values of a config are valid, as far as this can be checked without data or model."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from jaxvit import plugins
from jaxvit.config.default import Config, default
from jaxvit.config.words import OPEN, declared, expected, flatten, from_mapping, unknown
from jaxvit.errors import UserError, suggest

_POSITIVE = ("num_epochs", "batch_size", "eval_every_epochs", "log_every_steps", "micro_batch", "steps_per_dispatch",
             "optim.accum_steps", "optim.learning_rate",
             "data.per_class", "data.test_limit", "data.num_workers",
             "checkpoint.every_steps", "checkpoint.every_epochs",
             "early_stopping.patience",
             "parallel.num_devices", "parallel.fsdp", "parallel.tensor",
             "optim.grad_clip_norm", "data.crop_pct", "optim.eps", "optim.sam.eta",
             "optim.sam.m", "optim.sam.every", "distill.temperature",
             "pretrain.num_epochs", "pretrain.batch_size", "pretrain.decoder_depth", "pretrain.decoder_embed_dim",
             "pretrain.decoder_num_heads", "pretrain.learning_rate",
             "checkpoint.keep_last", "checkpoint.keep_best", "checkpoint.keep_every_steps")  # fmt: skip
_NOT_NEGATIVE = ("optim.weight_decay", "optim.sam.rho", "augment.crop_padding", "data.resident_mb",
                 "optim.schedule.warmup_epochs",
                 "optim.schedule.min_learning_rate", "early_stopping.min_delta", "seed", "optim.sam.alpha",
                 "optim.sam.rho_min", "optim.schedule.patience", "optim.schedule.cooldown",
                 "checkpoint.min_seconds", "loss.focal_gamma", "loss.logit_adjustment",
                 "pretrain.weight_decay", "pretrain.warmup_epochs",
                 "sweep.startup_trials", "sweep.startup_epochs")  # fmt: skip
_WHOLE = {"seed": 2**32, "batch_size": 2**31, "num_epochs": 2**31}  # and their limits, not included
MAX_CROP = 2.0  # a crop of twice the image has a border; more is a percentage
_UNIT = ("data.val_fraction", "loss.label_smoothing", "loss.class_weights_beta", "optim.b1", "optim.b2",
         "optim.momentum", "ema.decay", "optim.sam.start_fraction")  # fmt: skip
_SHARE = ("data.fraction", "optim.layer_decay", "distill.alpha", "pretrain.min_crop")
# of an evaluation -> its better way
METRICS = {
    "accuracy": "max", "top5_accuracy": "max", "balanced_accuracy": "max", "macro_f1": "max", "loss": "min",
    "nll": "min", "mAP": "max", "micro_f1": "max", "exact_match": "max",
}  # fmt: skip
RANDAUGMENT = ("num_ops", "magnitude")
OF_BCE = ("pos_weight", "bce_target_thresh", "bce_sum")
# what stands before the colon of `data.name` where an option of `data` is read -> an example of such a name
OF_DATA = {
    "columns": ({"csv", "parquet", "hf"}, "csv:FILE"),
    "dir": ({"tfds", "cifar10", "cifar100"}, "tfds:NAME"),
    "archive": ({"cifar10", "cifar100"}, "cifar10"),
}
CLASS_WEIGHTS = ("balanced", "sqrt", "effective")
_CHOICES = {
    "dtype": ("float32", "bfloat16", "float64"),
    "auto_micro_batch": ("auto", "always", "off"),
    "parallel.mode": ("jit", "pmap"),
    "loss.on_nan": ("stop", "skip", "rollback"),
    "wandb.mode": ("online", "offline"),
    "distill.mode": ("soft", "hard", "token"),
    "pretrain.name": ("mae",),
    "optim.sam.method": ("sam", "gsam"),
    "data.sampling": ("balanced", "sqrt"),
    "early_stopping.metric": METRICS,
    "optim.schedule.metric": METRICS,
    "optim.schedule.mode": ("max", "min"),
    "sweep.sampler": ("tpe", "random"),
    "sweep.pruner": ("median", "none"),
    "data.check": ("leaks", "leaks_deep"),
    "data.decoder": ("pillow", "opencv"),
    "data.workers": ("threads", "processes"),
    "data.interpolation": ("bicubic", "bilinear", "lanczos", "nearest"),
}
_FLOAT16 = "its gradients need a loss scale, which is not built in; bfloat16 has the range of float32"
_WHY = {("dtype", name): _FLOAT16 for name in ("float16", "fp16", "f16", "half")}


def validate(config: Config) -> None:
    """Checks options, types and values; raises UserError at the first that is not valid. Names: `build.checks.check`.

    The modules of `imports` are imported: what they register are valid values.
    """
    check_words(config)
    plugins.use(config.imports)
    _check_values(config)


def check_words(config: Config) -> None:
    """Raises UserError for an option that nothing reads, one that is missing, or a value of the wrong type."""
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"the config is a {type(config).__name__}; expected a ConfigDict, from jaxvit.config.default()\n"
            "jaxvit.config.load reads one from a file or a recipe, jaxvit.config.from_mapping from a dict"
        )
    if isinstance(config, FrozenConfigDict):
        raise UserError("the config is frozen; expected a ConfigDict, as ml_collections.ConfigDict(config)")
    values = config.to_dict()
    for word in flatten(values):
        if word not in declared() and not word.startswith(OPEN):
            raise unknown(word)
    _check_sections(values, default().to_dict(), "")
    from_mapping(values)


def _check_sections(values: Mapping[str, Any], usual: Mapping[str, Any], prefix: str) -> None:
    for name, value in usual.items():
        if name not in values:
            raise UserError(f"the config has no {prefix}{name}; start from jaxvit.config.default()")
        if isinstance(value, Mapping) and isinstance(values[name], Mapping):
            _check_sections(values[name], value, f"{prefix}{name}.")


def _check_values(config: Config) -> None:
    values = flatten(config)
    for word, usual in declared().items():
        value = values.get(word)
        if usual is not None and value is None:
            raise UserError(f"config option {word} must have a value; expected {expected(word)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{word} is {value}; expected a finite number")
        if isinstance(value, bool) and expected(word) in ("a number", "a whole number"):
            raise UserError(f"{word} is {value}; expected {expected(word)}")
        if value == "":
            raise UserError(f"{word} is empty; expected text, or leave it out")
    checks = (
        (_POSITIVE, lambda v: v > 0, "a number above 0"),
        (_NOT_NEGATIVE, lambda v: v >= 0, "0 or more"),
        (_UNIT, lambda v: 0 <= v < 1, "at least 0 and below 1"),
        (("data.max_bad_fraction",), lambda v: 0 <= v <= 1, "a share from 0 to 1"),
        (("data.imbalance",), lambda v: v >= 1, "largest class : smallest, a number of at least 1"),
        (("data.crop_pct",), lambda v: v <= MAX_CROP, "a share of the resized image, such as 0.875"),
        (("loss.bce_target_thresh",), lambda v: 0 <= v < 1, "at least 0 and below 1"),
        (("pretrain.mask_ratio",), lambda v: 0 < v < 1, "a share above 0 and below 1, such as 0.75"),
        (_SHARE, lambda v: 0 < v <= 1, "above 0 and at most 1"),
    )
    for words, holds, wanted in checks:
        for word in words:
            value = values.get(word)
            if value is not None and not holds(value):
                raise UserError(f"{word} is {value}; expected {wanted}")
    for word, choices in _CHOICES.items():
        value = values.get(word)
        if value is not None and value not in choices:
            why = _WHY.get((word, value))
            why = f" ({why})" if why else suggest(str(value), choices)
            raise UserError(f"{word} is {value!r}; expected {' or '.join(choices)}.{why}")
    for word in ("data.image_size", "model.image_size"):
        value = values.get(word)
        sides = value if isinstance(value, list | tuple) else (value,)
        whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
        if value is not None and not (whole and len(sides) == (2 if sides is value else 1)):
            raise UserError(f"{word} is {value!r}; expected pixels, such as 32, or height and width, such as (32, 48)")
    _check_class_weights(config.loss.class_weights)
    _check_pos_weight(config.loss.pos_weight)
    for word, end in _WHOLE.items():
        if values[word] >= end:
            raise UserError(f"{word} is {values[word]}; expected less than {end}")
    if config.lr_find and config.pretrain.name is not None:
        raise UserError(
            "lr_find starts from existing weights; with pretrain.name set, there are none yet\n"
            "pretrain first, then search with --config.pretrain.name=None --config.pretrained=WORKDIR/pretrain"
        )
    if config.data.drop_leaks and config.data.check is None:
        raise UserError("data.drop_leaks drops the images that data.check finds; set data.check=leaks too")
    if config.data.check == "leaks_deep" and config.pretrained is None:
        raise UserError(
            "data.check=leaks_deep compares features of the weights in pretrained; without weights use data.check=leaks"
        )
    if config.parallel.mode == "pmap" and config.parallel.fsdp * config.parallel.tensor > 1:
        raise UserError("parallel.mode=pmap keeps a whole state on every device; parallel.fsdp and .tensor need jit")
    if config.augment.repeated > config.batch_size:
        raise UserError(f"augment.repeated is {config.augment.repeated}; a batch has {config.batch_size} images")
    if config.batch_size % config.optim.accum_steps:
        raise UserError(
            f"batch_size {config.batch_size} does not divide into optim.accum_steps {config.optim.accum_steps}"
        )


def _check_class_weights(value: Any) -> None:
    """Raises UserError where `loss.class_weights` is neither a named weighting nor valid weights."""
    wanted = f"expected {', '.join(CLASS_WEIGHTS)} or a number per class, such as (1.0, 2.5)"
    if isinstance(value, str) and value not in CLASS_WEIGHTS:
        raise UserError(f"loss.class_weights is {value!r}; {wanted}.{suggest(value, CLASS_WEIGHTS)}")
    if value is None or isinstance(value, str):
        return
    numbers = isinstance(value, list | tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in value)
    if not numbers:
        raise UserError(f"loss.class_weights is {value!r}; {wanted}")
    if min(value, default=0) < 0:
        raise UserError(f"loss.class_weights has {min(value)}; expected 0 or more per class")
    if not any(value):
        raise UserError("loss.class_weights are all 0; expected at least one above 0")


def _check_pos_weight(value: Any) -> None:
    """Raises UserError where `loss.pos_weight` is neither "balanced" nor valid weights."""
    numbers = value if isinstance(value, list | tuple) else (value,)
    good = all(type(v) in (int, float) and math.isfinite(v) and v > 0 for v in numbers) and len(numbers)
    if value is not None and value != "balanced" and not good:
        raise UserError(f"loss.pos_weight is {value!r}; expected balanced, a number above 0, or one number per class")


def reads(data_name: str, option: str) -> bool:
    """Whether a data source reads an option of `OF_DATA`."""
    return data_name.partition(":")[0] in OF_DATA[option][0]


def idle(config: Config) -> dict[str, str]:
    """Options that are set but not read, because another option is off: {"ema.warmup": "ema.decay"}."""
    values, usual = flatten(config), declared()
    a, sam = config.augment, config.optim.sam
    cut = any(v is not None for v in (a.random_resized_crop, a.train_crop_mode, config.pretrain.name))
    lone = (  # option, whether it is read, where it is
        *((f"augment.randaug_{word}", a.policy == "randaugment", "augment.policy=randaugment") for word in RANDAUGMENT),
        ("augment.random_erasing_mode", a.random_erasing_prob > 0, "augment.random_erasing_prob"),
        ("augment.mix_prob", max(a.mixup_alpha, a.cutmix_alpha) > 0, "augment.mixup_alpha"),
        ("augment.mix_switch_prob", min(a.mixup_alpha, a.cutmix_alpha) > 0, "augment.mixup_alpha or .cutmix_alpha"),
        ("augment.crop_ratio", cut, "augment.random_resized_crop"),
        ("optim.sam.eta", sam.adaptive, "optim.sam.adaptive"),
        *((f"optim.sam.{word}", sam.method == "gsam", "optim.sam.method=gsam") for word in ("alpha", "rho_min")),
        ("distill.temperature", config.distill.mode == "soft", "distill.mode=soft"),
        ("early_stopping.min_delta", config.early_stopping.patience is not None, "early_stopping.patience"),
        ("loss.focal_gamma", config.loss.name == "focal", "loss.name=focal"),
        ("loss.class_weights_beta", config.loss.class_weights == "effective", "loss.class_weights=effective"),
        *((f"loss.{word}", config.loss.name == "bce", "loss.name=bce") for word in OF_BCE),
        *((f"data.{word}", reads(config.data.name, word), f"data.name={of}") for word, (_, of) in OF_DATA.items()),
    )
    return {word: switch for word, read, switch in lone if not read and values[word] != usual[word]} | {
        word: switch
        for switch in ("optim.sam.rho", "ema.decay", "distill.teacher", "pretrain.name", "wandb.project")
        if not values[switch]
        for word in usual
        if word.startswith(switch.rpartition(".")[0] + ".") and word != switch and values[word] != usual[word]
    }
