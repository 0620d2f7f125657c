"""A ViT of 9.5 M parameters (4x4 patches, 12 blocks of width 256) from scratch on CIFAR-100.

    python main.py --config configs/scratch_vit_cifar.py --workdir runs/scratch_vit_cifar
    ... --config.data.name=npz:PATH      the same images as arrays

Hardware: one GPU. Cost: 0.63 GMACs an image, forward; 300 epochs.
Expect: the target is 77 %; a public plain run reaches about 70 %.
Measured: not yet (packet e of results/WANTED.md).
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 300
    config.batch_size = 256
    config.dtype = "bfloat16"

    config.model.name = "vit_tiny_patch16_224"
    config.model.patch_size = 4
    config.model.embed_dim = 256
    config.model.depth = 12
    config.model.num_heads = 4
    config.model.global_pool = "avg"
    config.model.class_token = False
    config.model.drop_path_rate = 0.1

    config.data.name = "cifar100"
    config.data.mean = (0.5071, 0.4865, 0.4409)
    config.data.std = (0.2673, 0.2564, 0.2762)
    config.augment.flip = True
    config.augment.crop_padding = 4
    config.augment.policy = "randaugment"
    config.augment.random_erasing_prob = 0.25
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.1
    config.optim.grad_clip_norm = 1.0
    config.optim.schedule.warmup_epochs = 20
    config.optim.schedule.min_learning_rate = 1e-5
    config.loss.label_smoothing = 0.1
    config.ema.decay = 0.9998
    config.ema.warmup = True
    return config
