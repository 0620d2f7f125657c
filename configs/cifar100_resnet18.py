"""ResNet-18 with the CIFAR stem, from scratch on CIFAR-100.

    python main.py --config configs/cifar100_resnet18.py --workdir runs/cifar100_resnet18

Cost: 0.56 GMACs an image; meant for a GPU. Expect: not measured yet; a public PyTorch run of 200 epochs reaches
75.6 % (weiaicunzai/pytorch-cifar100).
"""

from configs import cifar10_resnet18


def get_config():
    """Returns the config."""
    config = cifar10_resnet18.get_config()
    config.data.name = "cifar100"
    config.data.mean = (0.5071, 0.4865, 0.4409)
    config.data.std = (0.2673, 0.2564, 0.2762)
    return config
