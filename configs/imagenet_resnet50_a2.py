"""ResNet-50 on ImageNet-1k, procedure A2, 300 epochs (Wightman et al. 2021, "ResNet strikes back", table 2).

    python main.py --config configs/imagenet_resnet50_a2.py --workdir runs/imagenet_resnet50_a2
    ... --config.data.name=folder:PATH      train/ and val/ with a folder per class

Hardware: 8 GPUs or TPU chips. Cost: half of imagenet_resnet50_a1.
Expect: 79.8 % top-1 on the validation images in the paper. Not measured here.
Differs from the paper as imagenet_resnet50_a1 does.
"""

from configs import imagenet_resnet50_a1


def get_config():
    """Returns the config."""
    config = imagenet_resnet50_a1.get_config()
    config.num_epochs = 300
    config.augment.mixup_alpha = 0.1
    config.optim.weight_decay = 0.02
    config.loss.label_smoothing = 0.0
    return config
