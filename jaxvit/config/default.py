"""Every option of a config, declared once: its default, its unit and what it does."""

from typing import Any

from ml_collections import ConfigDict, config_dict

Config = Any  # a ConfigDict, whose options are attributes that a type checker cannot know


class Options(ConfigDict):
    """A ConfigDict that takes NumPy's numbers for Python's."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, plain(value))


def plain(value: Any) -> Any:
    """Returns Python's number for one of NumPy's or JAX's (np.float32(0.1), np.bool_(1)), in tuples and lists too."""
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    number = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if number else value


def default() -> Config:
    """Returns the config with every word at its default; None is written as a typed placeholder."""
    optional = config_dict.placeholder
    c: Config = Options()
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
    c.calibrate = True  # fit a temperature on the validation split at the end (calibration.json); changes no prediction
    c.log_every_steps = 50  # a line in metrics.jsonl within long epochs

    c.model = Options()
    c.model.name = "resnet18"  # any of `main.py models`; any field of that model may stand beside it

    c.data = Options()
    c.data.name = (
        "digits"  # digits, cifar10, cifar100, tfds:NAME, folder:PATH, npz:PATH, csv:FILE, hf:NAME, wds:PATTERN
    )
    c.data.columns = optional(str)  # of csv:FILE, as "file=path,label=species"; None: by their usual names
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
    c.data.imbalance = optional(float)  # largest class : smallest, of the training split; None: as the data are
    c.data.sampling = optional(str)  # of an epoch, with replacement: "balanced" or "sqrt" (of class size); None: once
    c.data.fold = optional(str)  # "2/5": fold 2 of 5 of the training images is the test split, the others train
    c.data.test_limit = optional(int)  # at most so many test images; None = all
    c.data.max_bad_fraction = 0.01  # share of the files of folder:PATH and csv:FILE that may be unreadable
    c.data.check = optional(str)  # "leaks": look for doubles between the splits first; "leaks_deep": by features too
    c.data.drop_leaks = False  # with data.check: train without the images that have a double in val or test
    c.data.resident_mb = 2048  # a split of at most this size (MiB, uint8) is kept on the device

    c.augment = Options()
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

    c.loss = Options()
    c.loss.name = "cross_entropy"  # or "focal", or "bce": each class on its own, for several labels per image or one
    c.loss.label_smoothing = 0.0
    c.loss.class_weights = optional(object)  # "balanced", "sqrt", "effective" or a number for each class, mean 1
    c.loss.class_weights_beta = 0.9999  # of "effective": images of a class count as (1 - beta^n) / (1 - beta)
    c.loss.focal_gamma = 2.0  # of "focal": power of 1 - p
    c.loss.logit_adjustment = 0.0  # tau: tau log(share of a class) is added to the logits of training; 0 = off
    c.loss.pos_weight = optional(object)  # of bce, of positive labels: "balanced", a number, or one for each class
    c.loss.bce_target_thresh = optional(float)  # of bce: targets become 1 above it, else 0, as in timm; None: soft
    c.loss.bce_sum = False  # of bce: the sum over the classes in place of the mean
    c.loss.on_nan = "stop"  # or "skip" the step, or "rollback" to the last checkpoint, half the rate, other draws

    c.distill = Options()
    c.distill.teacher = optional(str)  # a run's workdir, a timm name or a weight file; None = off
    c.distill.model = optional(str)  # timm name of a teacher that is a weight file
    c.distill.mode = "soft"  # or "hard" (the teacher's first choice), or "token": hard, on DeiT's distillation token
    c.distill.alpha = 0.5  # share of the teacher in the loss
    c.distill.temperature = 3.0  # of soft targets

    c.optim = Options()
    c.optim.name = "adamw"  # adamw, sgd, or another optax alias
    c.optim.learning_rate = 1e-3  # the peak of the schedule
    c.optim.weight_decay = optional(float)  # on kernels only; None: 0.05 where decoupled, else 0
    c.optim.b1 = optional(float)  # this and the next four: None = the optimiser's own default
    c.optim.b2 = optional(float)
    c.optim.eps = optional(float)
    c.optim.momentum = optional(float)
    c.optim.nesterov = optional(bool)
    c.optim.options = Options()  # any other argument of the optax alias by its own name, as optim.options.b3
    c.optim.layer_decay = optional(float)  # factor between the rates of one layer and the next
    c.optim.mu_dtype = optional(str)  # of the first moment, e.g. "bfloat16"
    c.optim.grad_clip_norm = optional(float)  # of the global norm
    c.optim.accum_steps = 1  # micro-batches per step
    c.optim.freeze = "none"  # none, early, early_with_stem, middle, head_only, last_N_blocks, or a regex
    c.optim.unfreeze = ()  # of (epochs done, freeze word): gradually, as ((2, "last_2_blocks"), (5, "none"))
    c.optim.schedule = Options()
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
    c.optim.sam = Options()
    c.optim.sam.rho = 0.0  # radius of the perturbation; 0 = off
    c.optim.sam.adaptive = False  # ASAM
    c.optim.sam.eta = 0.01  # ASAM: added to |w|
    c.optim.sam.method = "sam"  # or "gsam"
    c.optim.sam.alpha = 0.4  # GSAM: weight of the orthogonal part
    c.optim.sam.rho_min = optional(float)  # GSAM: rho falls to it in step with the learning rate
    c.optim.sam.m = optional(int)  # images that share a perturbation; None = the batch
    c.optim.sam.every = 1  # each so many steps is a SAM step, the others are plain
    c.optim.sam.start_fraction = 0.0  # plain steps in this first part of training

    c.ema = Options()
    c.ema.decay = 0.0  # of the average of the weights, e.g. 0.9998; 0 = off
    c.ema.warmup = optional(bool)  # None: decay at most (1 + n) / (10 + n) at step n; True: timm's; False: none

    c.early_stopping = Options()
    c.early_stopping.patience = optional(int)  # evaluations without improvement; None = off
    c.early_stopping.min_delta = 0.0  # least improvement, in the metric's unit (accuracy: a fraction)
    c.early_stopping.metric = "accuracy"  # of validation, or top5_accuracy, balanced_accuracy, macro_f1, loss, nll
    # of several labels per image: accuracy stands for mAP; or micro_f1, macro_f1, exact_match, loss
    c.early_stopping.restore = True  # the best weights are what a run ends with; False: the last

    c.sweep = Options()  # of the command `sweep`
    c.sweep.ranges = ()  # of (word, kind, values...), kind log, uniform, int or choice: ("batch_size", "int", 8, 99)
    c.sweep.sampler = "tpe"  # or "random"
    c.sweep.pruner = "median"  # stops a trial that is below the median of the others at its epoch; or "none"
    c.sweep.startup_trials = 5  # drawn at random and never stopped
    c.sweep.startup_epochs = 1  # in which no trial is stopped; nor is one in its warm-up

    c.parallel = Options()
    c.parallel.mode = "jit"  # one program over all devices; or "pmap": one a device, their gradients averaged
    c.parallel.num_devices = optional(int)  # None = all, of all processes
    c.parallel.fsdp = 1  # devices that share one copy of the state
    c.parallel.tensor = 1  # devices that share the matmuls of a transformer

    c.wandb = Options()  # Weights & Biases, beside TensorBoard
    c.wandb.project = optional(str)  # None = off
    c.wandb.name = optional(str)  # of the run; None = the workdir's last part
    c.wandb.mode = "online"  # or "offline": files for `wandb sync`

    c.checkpoint = Options()
    c.checkpoint.every_steps = optional(
        int
    )  # a state within epochs after each so many steps; None = between epochs only
    c.checkpoint.every_epochs = 1  # a state after each so many epochs; one at the end and at a signal in any case
    c.checkpoint.min_seconds = 30.0  # sooner than this after the last state an epoch's end saves none; 0 = each does
    c.checkpoint.keep_last = 2  # newest states that stay
    c.checkpoint.keep_best = 2  # best weights that stay
    c.checkpoint.keep_every_steps = optional(int)  # the first state in each so many steps stays for good
    return c
