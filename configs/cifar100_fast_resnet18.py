"""ResNet-18 with the CIFAR stem on CIFAR-100, as fast as possible; see cifar10_fast_resnet18.py.

    python main.py --config configs/cifar100_fast_resnet18.py --workdir runs/cifar100_fast

Expect: the target is 75 %, mean of five seeds.
Measured: not yet (packet h of results/WANTED.md).
"""

from configs import cifar10_fast_resnet18


def get_config():
    """Returns the config."""
    config = cifar10_fast_resnet18.get_config()
    config.num_epochs = 40
    config.eval_every_epochs = 40
    config.data.name = "cifar100"
    config.data.mean = (0.5071, 0.4865, 0.4409)
    config.data.std = (0.2673, 0.2564, 0.2762)
    return config
