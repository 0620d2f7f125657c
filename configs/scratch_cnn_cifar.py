"""ResNet-18 with the CIFAR stem (11.2 M parameters) from scratch on CIFAR-100, the long recipe.

    python main.py --config configs/scratch_cnn_cifar.py --workdir runs/scratch_cnn_cifar
    ... --config.data.name=npz:PATH      the same images as arrays

Hardware: one GPU. Cost: 0.56 GMACs an image, forward; 200 epochs.
Expect: the target is 79.5 %; a public PyTorch run without CutMix reaches 75.6 %.
Measured: not yet (packet b of results/WANTED.md).
"""

from configs import cifar100_resnet18


def get_config():
    """Returns the config."""
    config = cifar100_resnet18.get_config()
    config.num_epochs = 200
    config.dtype = "bfloat16"
    config.augment.policy = "trivialaugment"
    config.augment.cutmix_alpha = 1.0
    config.augment.mix_prob = 0.5
    config.optim.schedule.warmup_epochs = 5
    config.loss.label_smoothing = 0.1
    return config
