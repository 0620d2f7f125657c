"""Every option of a config, declared once: its default, its unit and what it does."""

import os
from typing import Any

from ml_collections import ConfigDict, config_dict

Config = Any  # a ConfigDict, whose options are attributes that a type checker cannot know


class Options(ConfigDict):
    """A ConfigDict that takes NumPy's numbers for Python's, and paths for text."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, plain(value))


def plain(value: Any) -> Any:
    """Returns Python's number for one of NumPy's or JAX's (np.float32(0.1), np.bool_(1)), in tuples and lists too.

    A path becomes text.
    """
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    number = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if number else value


def default() -> Config:
    """Returns the config with every option at its default; None is written as a typed placeholder.

    The comment of an option, behind it or above it, is its entry in the reference of the documentation.
    """
    optional = config_dict.placeholder
    c: Config = Options()
    # names of modules that register parts of your own (docs/PLUGINS.md), such as ("my_parts",); --import NAME adds one
    c.imports = ()
    c.seed = 0  # fixes initialisation, data order, augmentation and dropout
    c.num_epochs = 10  # passes over the training images
    c.batch_size = 128  # images per optimiser step, over all devices and micro-batches
    c.micro_batch = optional(int)  # images that are computed at once; None: the whole batch, or what fits the memory
    # when micro_batch is chosen: "auto" (the batch does not fit, no BatchNorm), "always" or "off"
    c.auto_micro_batch = "auto"
    # optimiser steps in one compiled program; None: several for short steps on a GPU or TPU, else 1
    c.steps_per_dispatch = optional(int)
    # type of the computation: "float32", "bfloat16" (parameters stay float32) or "float64" (parameters too)
    c.dtype = "float32"
    # a timm name with its tag ("deit_tiny_patch16_224.fb_in1k"), a repository (hf_hub:user/name), a weight file or
    # the workdir of a finished run
    c.pretrained = optional(str)
    c.deterministic = False  # the same bits on every run on a GPU, by XLA's flags; a CPU or a TPU gives them anyway
    c.fast_dev_run = False  # two steps of everything, to check that it works
    c.lr_find = False  # a short run over rising learning rates instead of training: draws a curve and suggests a rate
    c.eval_every_epochs = 1  # epochs between two evaluations on the validation split
    # fits a temperature on the validation split at the end (calibration.json); changes no prediction
    c.calibrate = True
    c.log_every_steps = 50  # steps between two lines of metrics.jsonl within an epoch

    c.model = Options()
    # a name that `main.py models` lists; any field of that model is an option under `model.` too
    c.model.name = "resnet18"

    c.data = Options()
    # digits, cifar10, cifar100, tfds:NAME, folder:PATH, npz:PATH, csv:FILE, parquet:FILE, hf:NAME or wds:PATTERN
    c.data.name = "digits"
    # columns of csv:FILE and parquet:FILE, such as "file=path,label=species"; None: found by their usual names
    c.data.columns = optional(str)
    c.data.dir = optional(str)  # folder of the TFDS data sets; None: TFDS's own default
    c.data.archive = optional(str)  # a local copy of CIFAR's official binary archive
    # side in pixels, or (height, width); None: the model's size, or else that of the data
    c.data.image_size = optional(object)
    # pairs (epochs done, side in pixels) for progressive resizing, as ((0, 128), (40, 160), (70, 192)): the training
    # images of those epochs; evaluation stays at data.image_size; (): all of training is at that size
    c.data.train_sizes = ()
    # mean of the pixels per channel, for pixels in [0, 1]; None: that of the weights or of the data
    c.data.mean = optional(tuple)
    # standard deviation of the pixels per channel, for pixels in [0, 1]; None: as for data.mean
    c.data.std = optional(tuple)
    c.data.crop_pct = optional(float)  # photos: share of the resized short side that the centre crop keeps
    c.data.interpolation = optional(str)  # "bicubic", "bilinear", "lanczos" or "nearest"
    c.data.fraction = 1.0  # share of the training split that is used, stratified
    c.data.per_class = optional(int)  # at most this many training images per class
    c.data.val_fraction = 0.1  # share of the training split that is held out for validation
    # makes the training split long-tailed: size of the largest class over the smallest; None: as it is
    c.data.imbalance = optional(float)
    # draws an epoch with replacement: "balanced" classes, or "sqrt" of their sizes; None: every image once
    c.data.sampling = optional(str)
    # "2/5": fold 2 of 5 of the training images is the test split, and the other folds train
    c.data.fold = optional(str)
    c.data.test_limit = optional(int)  # at most this many test images; None: all
    c.data.max_bad_fraction = 0.01  # share of the files of folder:PATH and csv:FILE that may be unreadable
    c.data.rescan = False  # reads all files again, not only those that have changed since an earlier start
    # "leaks": looks for duplicates between the splits first; "leaks_deep": compares features too
    c.data.check = optional(str)
    c.data.drop_leaks = False  # with data.check: trains without the images that have a duplicate in validation or test
    # photos: what decodes and resizes training crops, "pillow" or "opencv" (the extra `fast`): about 1.7 times as fast
    c.data.decoder = "pillow"
    # photos that are streamed: what reads them, "threads" or "processes", of about 30 MB each; the images are the same.
    # None: processes, or threads on Windows
    c.data.workers = optional(str)
    c.data.num_workers = optional(int)  # how many of them; None: a process per core, at most 16, or 8 threads
    c.data.resident_mb = 2048  # splits up to this size (MiB, as uint8) are kept on the device

    c.augment = Options()
    c.augment.flip = False  # flips half of the images horizontally
    c.augment.crop_padding = 0  # pixels of zero padding before a random crop back to the old size
    # (least, greatest) share of the area that a random crop keeps, such as (0.08, 1.0)
    c.augment.random_resized_crop = optional(tuple)
    c.augment.crop_ratio = (3 / 4, 4 / 3)  # (least, greatest) width over height of random_resized_crop
    # photos: how training images are cut from the original: "rrc" (random_resized_crop), "rkrc" or "rkrr" (timm's,
    # which keep most of the photo) or "src" (DeiT III's: resize, pad by four pixels, random crop); None: rrc if
    # augment.random_resized_crop is set, else the centre
    c.augment.train_crop_mode = optional(str)
    # photos: "random" (bilinear or bicubic for each image), or one method; None: data.interpolation
    c.augment.train_interpolation = optional(str)
    # photos: "original" crops on the host, from all of the pixels; "resized" crops on the device, from images of the
    # model's size, which is coarser, and fast where the data set fits onto it
    c.augment.crop_from = "original"
    c.augment.affine_degrees = 0.0  # rotates by at most this many degrees
    c.augment.affine_translate = 0.0  # shifts by at most this share of the side
    c.augment.affine_scale = (1.0, 1.0)  # (least, greatest) factor of a random change of size
    c.augment.affine_shear = 0.0  # shears by at most this many degrees
    # randaugment, autoaugment_cifar10, autoaugment_imagenet, trivialaugment, augmix, or DeiT III's three_augment
    c.augment.policy = optional(str)
    c.augment.randaug_num_ops = 2  # operations per image of RandAugment
    c.augment.randaug_magnitude = 9.0  # strength of RandAugment's operations, of 10, as in timm's rand-m9-mstd0.5-inc1
    c.augment.color_jitter = (0.0, 0.0, 0.0, 0.0)  # (brightness, contrast, saturation, hue); hue is at most 0.5
    c.augment.random_erasing_prob = 0.0  # probability that a rectangle of an image is erased
    # what the rectangle is filled with: "pixel" (noise) or "const" (augment.fill)
    c.augment.random_erasing_mode = "pixel"
    c.augment.fill = 0.5  # grey value in [0, 1] of what lies outside an image or was erased
    c.augment.mixup_alpha = 0.0  # mixup: parameter alpha of Beta(alpha, alpha); 0: off
    c.augment.cutmix_alpha = 0.0  # CutMix: parameter alpha of Beta(alpha, alpha); 0: off
    c.augment.mix_prob = 1.0  # probability that an image is mixed at all
    c.augment.mix_switch_prob = 0.5  # probability of CutMix where both it and mixup are on
    c.augment.repeated = 1  # copies of an image in a batch, each augmented anew; an epoch keeps its length
    c.augment.options = Options()  # strengths of registered augmentations by their names, as augment.options.fog

    c.loss = Options()
    # "cross_entropy"; "focal"; or "bce", each class on its own, for one label per image or several
    c.loss.name = "cross_entropy"
    c.loss.label_smoothing = 0.0  # share of the target that is spread over all classes
    # "balanced", "sqrt", "effective" or one number per class; scaled to a mean of 1
    c.loss.class_weights = optional(object)
    c.loss.class_weights_beta = 0.9999  # "effective": a class of n images counts as (1 - beta^n) / (1 - beta)
    c.loss.focal_gamma = 2.0  # "focal": the power of 1 - p
    c.loss.logit_adjustment = 0.0  # tau: adds tau log(share of the class) to the logits while training; 0: off
    # "bce": weight of positive labels: "balanced", one number, or one number per class
    c.loss.pos_weight = optional(object)
    # "bce": soft targets become 1 above this value and 0 below it, as in timm; None: stay soft
    c.loss.bce_target_thresh = optional(float)
    c.loss.bce_sum = False  # "bce": sums over the classes instead of averaging
    c.loss.options = Options()  # arguments of a registered loss by their own names
    # when the loss is not finite: "stop", "skip" the step, or "rollback" to the last checkpoint at half the rate
    c.loss.on_nan = "stop"

    c.distill = Options()
    # workdir of a run, a timm name, a repository (hf_hub:user/name) or a weight file; None: no distillation
    c.distill.teacher = optional(str)
    c.distill.model = optional(str)  # timm name of the teacher where the teacher is a weight file
    # "soft"; "hard" (the teacher's first choice); or "token" (hard, on DeiT's distillation token)
    c.distill.mode = "soft"
    c.distill.alpha = 0.5  # share of the teacher in the loss
    c.distill.temperature = 3.0  # temperature of soft targets

    c.pretrain = Options()
    # "mae": a masked autoencoder learns from the training images, before their labels (docs/PRETRAINING.md); None: off
    c.pretrain.name = optional(str)
    c.pretrain.num_epochs = 200  # passes over the training images, before those of num_epochs
    c.pretrain.batch_size = optional(int)  # images per step of pretraining; None: batch_size
    c.pretrain.mask_ratio = 0.75  # share of the patches of an image that the encoder does not see
    c.pretrain.norm_pix_loss = True  # predicts each patch less its mean, over its standard deviation
    c.pretrain.decoder_depth = 2  # blocks of the decoder
    c.pretrain.decoder_embed_dim = 256  # width of the decoder, a multiple of 4
    c.pretrain.decoder_num_heads = optional(int)  # of the decoder; None: one for each 32 of its width
    c.pretrain.learning_rate = optional(float)  # the peak of a cosine; None: 1.5e-4 for each 256 images of a batch
    c.pretrain.weight_decay = 0.05  # applied to kernels only
    c.pretrain.warmup_epochs = 10.0  # epochs of linear warm-up from 0, of those of pretraining
    c.pretrain.min_crop = 0.2  # least share of the area that a random crop keeps; 1: no crop

    c.optim = Options()
    c.optim.name = "adamw"  # adamw, sgd, or another optimiser of optax by its name
    c.optim.learning_rate = 1e-3  # the peak of the schedule
    c.optim.weight_decay = optional(float)  # applied to kernels only; None: 0.05 where it is decoupled, else 0
    c.optim.b1 = optional(float)  # decay of the first moment; None: the optimiser's own default
    c.optim.b2 = optional(float)  # decay of the second moment; None: the optimiser's own default
    c.optim.eps = optional(float)  # added to the denominator; None: the optimiser's own default
    c.optim.momentum = optional(float)  # momentum of SGD and the like; None: the optimiser's own default
    c.optim.nesterov = optional(bool)  # Nesterov's form of momentum; None: the optimiser's own default
    c.optim.options = Options()  # any other argument of the optax optimiser by its own name, as optim.options.b3
    # factor between the learning rates of one layer and the next; None: all layers have the same rate
    c.optim.layer_decay = optional(float)
    c.optim.mu_dtype = optional(str)  # type of the first moment, such as "bfloat16"; None: that of the parameters
    c.optim.grad_clip_norm = optional(float)  # largest global norm of the gradient; None: not clipped
    c.optim.accum_steps = 1  # micro-batches per optimiser step
    c.optim.freeze = "none"  # none, early, early_with_stem, middle, head_only, last_N_blocks, or a regular expression
    # pairs (epochs done, value of optim.freeze) for gradual unfreezing, such as ((2, "last_2_blocks"), (5, "none"))
    c.optim.unfreeze = ()
    c.optim.schedule = Options()
    # cosine, constant, linear, polynomial, exponential, onecycle, wsd, step, multistep or plateau
    c.optim.schedule.name = "cosine"
    c.optim.schedule.warmup_epochs = 0.0  # epochs of linear warm-up from 0
    c.optim.schedule.min_learning_rate = 0.0  # where the schedule ends
    c.optim.schedule.step_size = optional(int)  # step: distance between two drops, in optim.schedule.unit
    c.optim.schedule.milestones = optional(tuple)  # multistep: places of the drops, in optim.schedule.unit
    c.optim.schedule.gamma = optional(float)  # step, multistep, exponential: factor of a drop
    c.optim.schedule.unit = optional(str)  # "epochs" or "steps"
    c.optim.schedule.power = optional(float)  # polynomial: the power
    c.optim.schedule.pct_start = optional(float)  # onecycle: share of training in which the rate rises
    c.optim.schedule.div_factor = optional(float)  # onecycle: peak over first rate
    c.optim.schedule.final_div_factor = optional(float)  # onecycle: first over last rate
    c.optim.schedule.anneal = optional(str)  # onecycle: "cos" or "linear"
    c.optim.schedule.decay_fraction = optional(float)  # wsd: share of training in which the rate falls
    c.optim.schedule.decay = optional(str)  # wsd: "linear", "cosine" or "sqrt"
    c.optim.schedule.metric = optional(str)  # plateau: the validation metric, as for early_stopping.metric
    c.optim.schedule.mode = optional(str)  # plateau: "max" or "min"; None: by the metric
    c.optim.schedule.factor = optional(float)  # plateau: factor of a drop
    c.optim.schedule.patience = optional(int)  # plateau: evaluations without improvement before a drop
    c.optim.schedule.threshold = optional(float)  # plateau: least improvement that counts
    c.optim.schedule.threshold_mode = optional(str)  # plateau: "rel" or "abs"
    c.optim.schedule.cooldown = optional(int)  # plateau: evaluations after a drop that do not count
    c.optim.schedule.min_scale = optional(float)  # plateau: least factor on the rates
    c.optim.schedule.options = Options()  # arguments of a registered schedule by their own names
    c.optim.sam = Options()
    c.optim.sam.rho = 0.0  # radius of SAM's perturbation; 0: off
    c.optim.sam.adaptive = False  # ASAM: the radius is relative to the weights
    c.optim.sam.eta = 0.01  # ASAM: added to |w|
    c.optim.sam.method = "sam"  # "sam" or "gsam"
    c.optim.sam.alpha = 0.4  # GSAM: weight of the orthogonal part
    c.optim.sam.rho_min = optional(float)  # GSAM: rho falls to this value with the learning rate
    c.optim.sam.m = optional(int)  # images that share a perturbation (m-sharpness); None: the batch
    c.optim.sam.every = 1  # every n-th step is a SAM step, and the others are plain
    c.optim.sam.start_fraction = 0.0  # share of training at its beginning in which all steps are plain

    c.ema = Options()
    c.ema.decay = 0.0  # decay of the average of the weights, as 0.9998; 0: off
    # None: the decay is at most (1 + n) / (10 + n) at step n; True: timm's warm-up; False: none
    c.ema.warmup = optional(bool)

    c.early_stopping = Options()
    c.early_stopping.patience = optional(int)  # evaluations without improvement before training ends; None: off
    c.early_stopping.min_delta = 0.0  # least improvement that counts, in the unit of the metric (accuracy: a fraction)
    # accuracy (mAP for several labels), top5_accuracy, balanced_accuracy, macro_f1, micro_f1, exact_match, loss or nll
    c.early_stopping.metric = "accuracy"
    c.early_stopping.restore = True  # a run ends with its best weights; False: with the last

    c.sweep = Options()  # of the command `sweep`
    # tuples (option, kind, values...) with kind log, uniform, int or choice: ("batch_size", "int", 8, 99)
    c.sweep.ranges = ()
    c.sweep.sampler = "tpe"  # "tpe" or "random"
    c.sweep.pruner = "median"  # "median" stops a trial that is below the median of the others at its epoch; or "none"
    c.sweep.startup_trials = 5  # trials that are drawn at random and never stopped
    c.sweep.startup_epochs = 1  # epochs in which no trial is stopped; none is stopped in its warm-up either

    c.parallel = Options()
    c.parallel.mode = "jit"  # "jit": one program over all devices; "pmap": one per device, with averaged gradients
    # devices to use, of all processes together; None: as many as the batch divides over
    c.parallel.num_devices = optional(int)
    c.parallel.fsdp = 1  # devices that share one copy of the state
    c.parallel.tensor = 1  # devices that share the matrix products of a transformer

    c.wandb = Options()  # Weights & Biases, beside TensorBoard
    c.wandb.project = optional(str)  # Weights & Biases project, in addition to TensorBoard; None: off
    c.wandb.name = optional(str)  # name of the run there; None: the last part of the workdir
    c.wandb.mode = "online"  # "online"; or "offline", which leaves files for `wandb sync`

    c.checkpoint = Options()
    # saves a state after this many steps within an epoch; None: between epochs only
    c.checkpoint.every_steps = optional(int)
    # saves a state after this many epochs; one at the end and at a signal is saved in any case
    c.checkpoint.every_epochs = 1
    # the end of an epoch saves no state sooner than this after the last one; 0: always saves
    c.checkpoint.min_seconds = 30.0
    c.checkpoint.keep_last = 2  # newest states that are kept
    c.checkpoint.keep_best = 2  # best weights that are kept
    c.checkpoint.keep_every_steps = optional(int)  # keeps the first state of every this many steps for good
    return c
