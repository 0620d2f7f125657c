"""A plain ViT-S/16 on ImageNet-1k, 90 epochs (Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k").

    python main.py --config configs/imagenet_vit_small_90ep.py --workdir runs/imagenet_vit_small_90ep
    ... --config.data.name=folder:PATH      train/ and val/ with a folder per class

Hardware: 8 GPUs or TPU chips. Cost: 22 M parameters, 4.6 GMACs an image; 90 epochs of 1.28 M images.
Expect: 76.5 % top-1 on the validation images in the paper (big_vision). Not measured here.
Values are those of big_vision's vit_s16_i1k.py. Differs from it: the head is one linear layer (76.7 % in the paper's
table, against 76.5 % with a hidden layer); RandAugment(2, 10) is timm's, whose operations at 10 are not quite the same.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 90
    config.batch_size = 1024
    config.dtype = "bfloat16"

    config.model.name = "vit_small_patch16_224"
    config.model.global_pool = "avg"
    config.model.class_token = False
    config.model.pos_embed = "sincos2d"  # learned ones cost 1.5 % at 90 epochs (table 1)
    config.optim.freeze = "^pos_embed$"

    config.data.name = "tfds:imagenet2012"
    config.data.val_fraction = 0.01  # big_vision's "minival"; the validation images are the test
    config.data.crop_pct = 0.875
    config.augment.flip = True
    config.augment.random_resized_crop = (0.05, 1.0)  # Inception's crop
    config.augment.train_interpolation = "bilinear"
    config.augment.policy = "randaugment"
    config.augment.randaug_magnitude = 10.0
    config.augment.mixup_alpha = 0.2

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.1  # big_vision's 1e-4 is not multiplied by the learning rate
    config.optim.grad_clip_norm = 1.0
    config.optim.mu_dtype = "bfloat16"
    config.optim.schedule.warmup_epochs = 8  # 10,000 steps
    return config
