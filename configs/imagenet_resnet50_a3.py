"""ResNet-50 on ImageNet-1k, procedure A3, 100 epochs at 160 pixels (Wightman et al. 2021, "ResNet strikes back").

    python main.py --config configs/imagenet_resnet50_a3.py --workdir runs/imagenet_resnet50_a3
    ... --config.data.name=folder:PATH      train/ and val/ with a folder per class
    python main.py eval --workdir runs/imagenet_resnet50_a3 --image-size 160      at the training size

Hardware: 4 GPUs or TPU chips. Cost: 25.6 M parameters, 2.1 GMACs an image; 100 epochs of 1.28 M images.
Expect: 78.1 % top-1 in the paper: trained at 160 pixels and tested at 224, as here. Not measured here.
Differs from the paper as imagenet_resnet50_a1 does.
"""

from configs import imagenet_resnet50_a2


def get_config():
    """Returns the config."""
    config = imagenet_resnet50_a2.get_config()
    config.num_epochs = 100
    config.model.drop_path_rate = 0.0
    config.data.image_size = 224
    config.data.train_sizes = ((0, 160),)
    config.augment.randaug_magnitude = 6.0
    config.augment.repeated = 1
    config.optim.learning_rate = 8e-3
    return config
