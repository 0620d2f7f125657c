"""A small ViT (2.7 M parameters, 4x4 patches) from scratch on CIFAR-10.

    python main.py --config configs/cifar10_vit.py --workdir runs/cifar10_vit
    ... --config.data.name=npz:PATH      the same images as arrays

Cost: 0.18 GMACs an image. Expect: not measured yet on the full data set; see results/.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 30
    config.batch_size = 128

    config.model.name = "vit_tiny_patch16_224"
    config.model.patch_size = 4
    config.model.depth = 6
    config.model.global_pool = "avg"
    config.model.class_token = False
    config.model.drop_path_rate = 0.1

    config.data.name = "cifar10"
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.augment.flip = True
    config.augment.crop_padding = 4

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.grad_clip_norm = 1.0
    config.optim.schedule.warmup_epochs = 3
    config.loss.label_smoothing = 0.1
    return config
