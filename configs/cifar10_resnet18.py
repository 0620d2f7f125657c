"""ResNet-18 with the CIFAR stem, from scratch on CIFAR-10.

    python main.py --config configs/cifar10_resnet18.py --workdir runs/cifar10_resnet18
    ... --config.data.name=npz:PATH      the same images as arrays

Cost: 0.56 GMACs an image; meant for a GPU (a CPU core trains about ten images a second).
Expect: not measured yet on the full data set; see results/.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 30
    config.batch_size = 128

    config.model.name = "resnet18"
    config.model.stem = "cifar"

    config.data.name = "cifar10"
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.augment.flip = True
    config.augment.crop_padding = 4

    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.schedule.warmup_epochs = 2
    return config
