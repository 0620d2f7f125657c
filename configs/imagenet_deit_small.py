"""DeiT-S on ImageNet-1k, 300 epochs (Touvron et al. 2021, "Training data-efficient image transformers", table 9).

    python main.py --config configs/imagenet_deit_small.py --workdir runs/imagenet_deit_small
    ... --config.data.name=folder:PATH      train/ and val/ with a folder per class
    python main.py plan --config configs/imagenet_deit_small.py --topology v5e:4x4

Hardware: 8 GPUs or TPU chips. Cost: 22.1 M parameters, 4.6 GMACs an image; 300 epochs of 1.28 M images.
Expect: 79.8 % top-1 on the validation images in the paper. Not measured here.
No difference from the paper is known; its exponential average was not used for the published figure.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 300
    config.batch_size = 1024
    config.dtype = "bfloat16"

    config.model.name = "deit_small_patch16_224"
    config.model.drop_path_rate = 0.1

    config.data.name = "tfds:imagenet2012"
    config.data.val_fraction = 0.0  # the validation images are the test
    config.data.crop_pct = 0.875
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.augment.train_interpolation = "bicubic"
    config.augment.policy = "randaugment"  # rand-m9-mstd0.5-inc1
    config.augment.random_erasing_prob = 0.25
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.augment.repeated = 3

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-3  # 5e-4 for each 512 images
    config.optim.weight_decay = 0.05
    config.optim.schedule.warmup_epochs = 5
    config.optim.schedule.min_learning_rate = 1e-5
    config.loss.label_smoothing = 0.1
    return config
