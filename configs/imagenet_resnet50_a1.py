"""ResNet-50 on ImageNet-1k, procedure A1, 600 epochs (Wightman et al. 2021, "ResNet strikes back", table 2).

    python main.py --config configs/imagenet_resnet50_a1.py --workdir runs/imagenet_resnet50_a1
    ... --config.data.name=folder:PATH      train/ and val/ with a folder per class

Hardware: 8 GPUs or TPU chips. Cost: 25.6 M parameters, 4.1 GMACs an image; 600 epochs of 1.28 M images.
Expect: 80.4 % top-1 on the validation images in the paper. Not measured here.
Differs from the paper: optax's LAMB scales biases and norms by their trust ratio too.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 600
    config.batch_size = 2048
    config.dtype = "bfloat16"

    config.model.name = "resnet50"
    config.model.drop_path_rate = 0.05

    config.data.name = "tfds:imagenet2012"
    config.data.val_fraction = 0.0  # the validation images are the test
    config.data.crop_pct = 0.95
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.augment.train_interpolation = "random"
    config.augment.policy = "randaugment"
    config.augment.randaug_magnitude = 7.0
    config.augment.mixup_alpha = 0.2
    config.augment.cutmix_alpha = 1.0
    config.augment.repeated = 3

    config.optim.name = "lamb"
    config.optim.learning_rate = 5e-3
    config.optim.weight_decay = 0.01
    config.optim.grad_clip_norm = 1.0  # what timm's Lamb does by default
    config.optim.schedule.warmup_epochs = 5
    config.optim.schedule.min_learning_rate = 1e-6
    config.loss.name = "bce"
    config.loss.bce_target_thresh = 0.2  # both classes of a mixed image count as present
    config.loss.label_smoothing = 0.1
    return config
