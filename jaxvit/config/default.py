"""Every config word, once: its default and its unit; reading config files and overrides.

A Python config is a file with `get_config()` (or `get_config(arg)` for `--config file.py:arg`) and is run as code.
A YAML or JSON config is data: only known words, no code.
"""

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from jaxvit.config import files
from jaxvit.errors import UserError, suggest
from jaxvit.runtime.paths import expand

Config = Any  # a ConfigDict, whose words are attributes that a type checker cannot know

# What a run works out for itself when it is None; see `differences`.
DERIVED = (
    "data.image_size", "data.mean", "data.std", "data.crop_pct", "data.interpolation",
    "model.num_classes", "model.image_size", "model.in_channels", "parallel.num_devices",
    "model.distilled_training", "micro_batch", "ema.warmup",
)  # fmt: skip


def default() -> Config:
    """Returns the config with every word at its default; None is written as a typed placeholder."""
    optional = config_dict.placeholder
    c: Config = ConfigDict()
    c.seed = 0  # fixes initialisation, data order, augmentation and dropout
    c.num_epochs = 10
    c.batch_size = 128  # images per optimiser step, over all devices and micro-batches
    c.micro_batch = optional(int)  # images that a step computes at once; None: all, or what fits the memory
    c.auto_micro_batch = "auto"  # choose micro_batch where the batch does not fit; not with BatchNorm. "always", "off"
    c.steps_per_dispatch = optional(int)  # in one program; None: several for short steps on a GPU or TPU, else 1
    c.dtype = "float32"  # of the computation: "float32" or "bfloat16", parameters float32; "float64": all of it
    c.pretrained = optional(str)  # timm name with tag ("deit_tiny_patch16_224.fb_in1k") or a weight file
    c.deterministic = False  # on GPUs: the same bits on every run, by XLA's flags; elsewhere that is so anyway
    c.fast_dev_run = False  # two steps of everything, to see that all of it works
    c.lr_find = False  # in place of training: a short run over rising learning rates, a curve, a suggestion
    c.eval_every_epochs = 1
    c.log_every_steps = 50  # a line in metrics.jsonl within long epochs

    c.model = ConfigDict()
    c.model.name = "resnet18"  # any of `main.py models`; any field of that model may stand beside it

    c.data = ConfigDict()
    c.data.name = "digits"  # digits, cifar10, cifar100, tfds:NAME, folder:PATH, npz:PATH
    c.data.dir = optional(str)  # where TFDS keeps its data sets (None: TFDS's own default)
    c.data.archive = optional(str)  # local copy of CIFAR's official binary archive
    c.data.image_size = optional(object)  # pixels, int or (h, w) (None: the model's, or else the data's)
    c.data.mean = optional(tuple)  # per channel, in [0, 1] pixel units (None: the weights' or the data's)
    c.data.std = optional(tuple)
    c.data.crop_pct = optional(float)  # of photos: the centre share of the resized short side
    c.data.interpolation = optional(str)  # "bicubic", "bilinear", "lanczos" or "nearest"
    c.data.fraction = 1.0  # share of the training split, stratified
    c.data.per_class = optional(int)  # at most so many training images a class
    c.data.val_fraction = 0.1  # share of the training split held out for validation
    c.data.test_limit = optional(int)  # at most so many test images; None = all
    c.data.max_bad_fraction = 0.01  # share of the files of folder:PATH that may be unreadable
    c.data.resident_mb = 2048  # a split of at most this size (MiB, uint8) is kept on the device

    c.augment = ConfigDict()
    c.augment.flip = False  # horizontal, with probability 1/2
    c.augment.crop_padding = 0  # pixels of zero padding before a random crop to the old size
    c.augment.random_resized_crop = optional(tuple)  # (least, greatest) share of the area, e.g. (0.08, 1.0)
    c.augment.crop_ratio = (3 / 4, 4 / 3)  # of random_resized_crop: (least, greatest) width / height
    c.augment.affine_degrees = 0.0  # rotation, shift (share of the side), factor and shear (degrees), all ± at random
    c.augment.affine_translate = 0.0
    c.augment.affine_scale = (1.0, 1.0)
    c.augment.affine_shear = 0.0
    c.augment.policy = optional(str)  # randaugment, autoaugment_cifar10, autoaugment_imagenet, trivialaugment, augmix
    c.augment.randaug_num_ops = 2
    c.augment.randaug_magnitude = 9.0  # of 10, as in timm's rand-m9-mstd0.5-inc1
    c.augment.color_jitter = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue (at most 0.5)
    c.augment.random_erasing_prob = 0.0
    c.augment.random_erasing_mode = "pixel"  # noise; or "const"
    c.augment.fill = 0.5  # grey value in [0, 1] of what lies outside an image or was erased
    c.augment.mixup_alpha = 0.0  # of Beta(alpha, alpha); 0 = off
    c.augment.cutmix_alpha = 0.0
    c.augment.mix_prob = 1.0  # that an image is mixed at all
    c.augment.mix_switch_prob = 0.5  # of CutMix instead of mixup where both are on
    c.augment.repeated = 1  # copies of an image in a batch, each augmented anew; an epoch keeps its length

    c.loss = ConfigDict()
    c.loss.label_smoothing = 0.0
    c.loss.on_nan = "stop"  # or "skip" the step, or "rollback" to the last checkpoint, half the rate, other draws

    c.distill = ConfigDict()
    c.distill.teacher = optional(str)  # a run's workdir, a timm name or a weight file; None = off
    c.distill.model = optional(str)  # timm name of a teacher that is a weight file
    c.distill.mode = "soft"  # or "hard" (the teacher's first choice), or "token": hard, on DeiT's distillation token
    c.distill.alpha = 0.5  # share of the teacher in the loss
    c.distill.temperature = 3.0  # of soft targets

    c.optim = ConfigDict()
    c.optim.name = "adamw"  # adamw, sgd, or another optax alias
    c.optim.learning_rate = 1e-3  # the peak of the schedule
    c.optim.weight_decay = optional(float)  # on kernels only; None: 0.05 where decoupled, else 0
    c.optim.b1 = optional(float)  # this and the next four: None = the optimiser's own default
    c.optim.b2 = optional(float)
    c.optim.eps = optional(float)
    c.optim.momentum = optional(float)
    c.optim.nesterov = optional(bool)
    c.optim.options = ConfigDict()  # any other argument of the optax alias by its own name, as optim.options.b3
    c.optim.layer_decay = optional(float)  # factor between the rates of one layer and the next
    c.optim.mu_dtype = optional(str)  # of the first moment, e.g. "bfloat16"
    c.optim.grad_clip_norm = optional(float)  # of the global norm
    c.optim.accum_steps = 1  # micro-batches per step
    c.optim.freeze = "none"  # none, early, early_with_stem, middle, head_only, last_N_blocks, or a regex
    c.optim.unfreeze = ()  # of (epochs done, freeze word): gradually, as ((2, "last_2_blocks"), (5, "none"))
    c.optim.schedule = ConfigDict()
    c.optim.schedule.name = "cosine"  # or constant, linear, polynomial, onecycle, wsd, step, multistep, plateau, ...
    c.optim.schedule.warmup_epochs = 0.0  # linear, from 0
    c.optim.schedule.min_learning_rate = 0.0
    c.optim.schedule.step_size = optional(int)  # of step, in `unit`
    c.optim.schedule.milestones = optional(tuple)  # of multistep, in `unit`
    c.optim.schedule.gamma = optional(float)  # of step, multistep and exponential
    c.optim.schedule.unit = optional(str)  # "epochs" or "steps"
    c.optim.schedule.power = optional(float)  # of polynomial
    c.optim.schedule.pct_start = optional(float)  # of onecycle
    c.optim.schedule.div_factor = optional(float)
    c.optim.schedule.final_div_factor = optional(float)
    c.optim.schedule.anneal = optional(str)  # of onecycle: "cos" or "linear"
    c.optim.schedule.decay_fraction = optional(float)  # of wsd
    c.optim.schedule.decay = optional(str)  # of wsd: "linear", "cosine" or "sqrt"
    c.optim.schedule.metric = optional(str)  # of plateau, this and the next: of validation, as early_stopping.metric
    c.optim.schedule.mode = optional(str)  # "max" or "min"; None = by the metric
    c.optim.schedule.factor = optional(float)
    c.optim.schedule.patience = optional(int)  # evaluations
    c.optim.schedule.threshold = optional(float)
    c.optim.schedule.threshold_mode = optional(str)  # "rel" or "abs"
    c.optim.schedule.cooldown = optional(int)  # evaluations
    c.optim.schedule.min_scale = optional(float)  # least multiplier on the rates
    c.optim.sam = ConfigDict()
    c.optim.sam.rho = 0.0  # radius of the perturbation; 0 = off
    c.optim.sam.adaptive = False  # ASAM
    c.optim.sam.eta = 0.01  # ASAM: added to |w|
    c.optim.sam.method = "sam"  # or "gsam"
    c.optim.sam.alpha = 0.4  # GSAM: weight of the orthogonal part
    c.optim.sam.rho_min = optional(float)  # GSAM: rho falls to it in step with the learning rate
    c.optim.sam.m = optional(int)  # images that share a perturbation; None = the batch
    c.optim.sam.every = 1  # each so many steps is a SAM step, the others are plain
    c.optim.sam.start_fraction = 0.0  # plain steps in this first part of training

    c.ema = ConfigDict()
    c.ema.decay = 0.0  # of the average of the weights, e.g. 0.9998; 0 = off
    c.ema.warmup = optional(bool)  # None: decay at most (1 + n) / (10 + n) at step n; True: timm's; False: none

    c.early_stopping = ConfigDict()
    c.early_stopping.patience = optional(int)  # evaluations without improvement; None = off
    c.early_stopping.min_delta = 0.0  # least improvement, in the metric's unit (accuracy: a fraction)
    c.early_stopping.metric = "accuracy"  # accuracy, top5_accuracy or loss of validation; picks the best checkpoint
    c.early_stopping.restore = True  # the best weights are what a run ends with; False: the last

    c.sweep = ConfigDict()  # of the command `sweep`
    c.sweep.ranges = ()  # of (word, kind, values...), kind log, uniform, int or choice: ("batch_size", "int", 8, 99)
    c.sweep.sampler = "tpe"  # or "random"
    c.sweep.pruner = "median"  # stops a trial that is below the median of the others at its epoch; or "none"
    c.sweep.startup_trials = 5  # drawn at random and never stopped
    c.sweep.startup_epochs = 1  # in which no trial is stopped; nor is one in its warm-up

    c.parallel = ConfigDict()
    c.parallel.mode = "jit"  # one program over all devices; or "pmap": one a device, their gradients averaged
    c.parallel.num_devices = optional(int)  # None = all, of all processes
    c.parallel.fsdp = 1  # devices that share one copy of the state
    c.parallel.tensor = 1  # devices that share the matmuls of a transformer

    c.wandb = ConfigDict()  # Weights & Biases, beside TensorBoard
    c.wandb.project = optional(str)  # None = off
    c.wandb.name = optional(str)  # of the run; None = the workdir's last part
    c.wandb.mode = "online"  # or "offline": files for `wandb sync`

    c.checkpoint = ConfigDict()
    c.checkpoint.every_steps = optional(
        int
    )  # a state within epochs after each so many steps; None = between epochs only
    c.checkpoint.every_epochs = 1  # a state after each so many epochs; one at the end and at a signal in any case
    c.checkpoint.min_seconds = 30.0  # sooner than this after the last state an epoch's end saves none; 0 = each does
    c.checkpoint.keep_last = 2  # newest states that stay
    c.checkpoint.keep_best = 2  # best weights that stay
    c.checkpoint.keep_every_steps = optional(int)  # the first state in each so many steps stays for good
    return c


def load(path: str, overrides: Sequence[str] = (), model_fields: Callable[[str], Iterable[str]] | None = None):
    """Reads a config file and applies `--config.word=value` overrides.

    Args:
      path: a `.py` file (`file.py:arg` passes arg to get_config), `.yaml`, `.yml` or `.json`.
      overrides: command-line words of the form `--config.a.b=value`.
      model_fields: from a model's name to the names that may stand under `model.`.

    Raises:
      UserError: no such file, no such word, or a value of the wrong type.
    """
    file, _, argument = path.partition(":") if ".py:" in path else (path, "", "")
    if Path(file).is_dir():
        raise UserError(f"config {file!r} is a directory; expected a .py, .yaml or .json file in it")
    if not Path(file).is_file():
        near = dict.fromkeys(map(str, (*Path(file).parent.glob("*.py"), *Path("configs").glob("*.py"))))
        raise UserError(f"no config file {file!r}.{suggest(file, near)}")
    if Path(file).suffix == ".py":
        config = files.run_python(Path(file), argument)
        strange = [w for w in flatten(config) if w not in flatten(default()) and not w.startswith(OPEN)]
        if strange:
            raise unknown(strange[0])
    elif Path(file).suffix in (".yaml", ".yml", ".json"):
        config = from_mapping(files.read_data(Path(file)))
    else:
        raise UserError(f"config {file!r} is of no known kind; expected .py, .yaml, .yml or .json")
    config = override(config, overrides, model_fields)
    if model_fields is not None:
        fields = set(model_fields(config.model.name))
        for field, value in config.model.items():
            if field not in fields and field != "name" and value is not None:
                raise UserError(
                    f"{config.model.name} has no field {field!r}, which {path!r} sets.{suggest(field, fields)}\n"
                    f"--config.model.{field}=None leaves it out"
                )
    return config


def unknown(word: str) -> UserError:
    """The error for an option that there is not."""
    return UserError(f"no config word {word!r}.{suggest(word, flatten(default())) or _WORDS_HINT}")


def from_mapping(values: Mapping[str, Any]) -> Config:
    """Returns `default()` updated with nested plain `values`; unknown words are errors."""
    config = default()
    _update(config, values, "")
    return config


def update(config: Config, values: Mapping[str, Any]) -> None:
    """Sets nested plain `values` in `config`; raises UserError for unknown words and for values of the wrong kind."""
    _update(config, values, "")


def override(config: Config, overrides: Sequence[str], model_fields=None) -> Config:
    """Returns a copy of `config` with `--config.a.b=value` words applied and type-checked."""
    config = copy.deepcopy(config)  # not copy_and_resolve_references: that drops the types of the placeholders
    words, values = _split_overrides(overrides)
    for word, value in zip(words, values, strict=True):
        if word == "model.name":
            config.model.name = value
    for word in words:  # a model's fields are not declared by the defaults: declare those of this model
        if word.startswith(_OPTIONS):
            with config.unlocked():
                config.optim.options[word.removeprefix(_OPTIONS)] = config_dict.placeholder(object)
        if word.startswith("model.") and word not in ("model.name",) and model_fields is not None:
            field = word.removeprefix("model.")
            fields = set(model_fields(config.model.name))
            if field in config.model and (word, "None") in zip(words, values, strict=True):
                continue  # left out below: it may be of another family
            if field not in fields:
                near = suggest(field, fields) or f" Its fields: {', '.join(sorted(fields - {'name', 'parent'}))}."
                raise UserError(f"{config.model.name} has no field {field!r}.{near}")
            with config.unlocked():
                config.model[field] = config_dict.placeholder(object)
    known = set(flatten(config))
    for word in words:
        if word not in known:
            raise UserError(f"no config word {word!r}.{suggest(word, known) or _WORDS_HINT}")
    nones = [word for word, value in zip(words, values, strict=True) if value == "None"]
    for word in nones:  # flags would read the text "None"
        if flatten(default()).get(word) is not None:
            raise UserError(f"config word {word} must have a value; None is not one")
        if word.startswith("model."):  # the same as if it had not been set
            with config.unlocked():
                del config.model[word.removeprefix("model.")]
            continue
        _set(config, word, None)
    flag_values = flags.FlagValues()
    # The flag's own objects are read here, hence the explicit argv.
    pairs = [(word, value) for word, value in zip(words, values, strict=True) if word not in nones]
    argv = ["main.py", *(f"--config.{word}={value}" for word, value in pairs)]
    holder = config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=argv)
    try:
        flag_values(argv)
    except (flags.Error, TypeError, ValueError) as error:
        for word, value in pairs:  # absl names the word in the middle of its own prose
            if f"config.{word}={value}" in str(error) and expected(word):
                raise UserError(f"config word {word} is {value!r}; expected {expected(word)}") from None
        raise UserError(f"bad config value: {str(error).splitlines()[0]}") from None
    return holder.value


def to_dict(config: Config) -> dict[str, Any]:
    """Returns plain nested dicts; tuples become lists, as in JSON."""
    return json.loads(config.to_json())


def differences(given: Config, resolved: Mapping[str, Any]) -> list[str]:
    """Returns the words whose values differ between a config and a run's resolved one, as "word: old -> new".

    What a search would vary is no property of a run; weights on the disk may bring model fields that are not given.
    """
    new, old = flatten(to_dict(given)), flatten(to_dict(default())) | flatten(dict(resolved))  # words of later versions
    brings = bool(new.get("pretrained")) and expand(new["pretrained"]).exists()
    out = []
    for word in sorted(new.keys() | old.keys()):
        left_open = word in DERIVED or word.startswith("model.") and brings
        if word.startswith("sweep.") or left_open and new.get(word) is None:
            continue
        if word.startswith("parallel."):  # where a run is computed, not what it is
            continue
        if new.get(word) != old.get(word) and not _made_of(word, new.get(word), old.get(word)):
            out.append(f"{word}: {old.get(word)} -> {new.get(word)}")
    return out


def _made_of(word: str, given: Any, resolved: Any) -> bool:
    """Whether a value for each side or channel is what a run made of one for all of them, or of their mean."""
    if word not in ("model.image_size", "data.image_size", "data.mean", "data.std") or not isinstance(resolved, list):
        return False
    values = given if isinstance(given, list) else [given]
    if not values or not all(isinstance(v, int | float) for v in values):
        return False
    same = len(set(values)) == 1 and resolved == values[:1] * len(resolved)
    return same or resolved == [sum(values) / len(values)]


_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a word",
    tuple: "values in brackets, as (0.5, 0.5, 0.5)", ConfigDict: "words with values",
}  # fmt: skip
_OPTIONS = "optim.options."
OPEN = ("model.", _OPTIONS)  # below them stands what the chosen model and optimiser take
_WORDS_HINT = " jaxvit/config/default.py lists the words there are."


def _split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits `--config.word=value`, `--config.word value` and (for a switch) `--config.word`."""
    words, values = [], []
    for text in overrides:
        if not text.startswith("--") and words and values[-1] is None:
            values[-1] = text
            continue
        word, equals, value = text.removeprefix("--").partition("=")
        if not word.startswith("config."):
            raise UserError(f"cannot read {text!r}; expected --config.WORD=VALUE")
        words.append(word.removeprefix("config."))
        values.append(value if equals else None)
    return words, ["true" if value is None else value for value in values]


def _set(config: Config, word: str, value: Any) -> None:
    *parents, name = word.split(".")
    for parent in parents:
        config = config[parent]
    config[name] = value


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested words as one level: "optim.sam.rho" -> value."""
    out = {}
    for name, value in values.items():
        if isinstance(value, Mapping | ConfigDict):
            out.update(flatten(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value
    return out


def _update(config: Config, values: Mapping[str, Any], prefix: str) -> None:
    if not isinstance(values, Mapping):
        raise UserError(f"config {prefix.rstrip('.') or 'file'} is {values!r}; expected words with values")
    for name, value in values.items():
        word = f"{prefix}{name}"
        if not isinstance(name, str):
            raise UserError(f"config word {word!r} is no text.{suggest(word, flatten(default()))}")
        if isinstance(config.get(name), ConfigDict):
            _update(config[name], value, f"{word}.")
        elif name in config:
            try:
                config[name] = tuple(value) if isinstance(value, list) else value
            except (TypeError, ValueError):
                raise UserError(f"config word {word} is {value!r}; expected {expected(word)}") from None
        elif prefix in ("model.", _OPTIONS):  # checked against the chosen model when it is created
            config[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise unknown(word)


def expected(word: str) -> str:
    """What kind of value a word takes, in plain words; "" where anything goes."""
    *parents, name = word.split(".")
    config = default()
    for parent in parents:
        config = config.get(parent, ConfigDict())
    return _KINDS.get(config.get_type(name), "") if name in config else ""
