"""Search learning rate, weight decay and augmentation of ResNet-18 from scratch on CIFAR-100.

    python main.py sweep --config configs/sweep_cifar100_resnet18.py --trials 40 --workdir runs/sweep_resnet18

Hardware: one GPU. Cost: 40 trials of at most 30 epochs. Expect: not measured yet. Then try the
best values in scratch_cnn_cifar at its full length.
"""

from configs import scratch_cnn_cifar


def get_config():
    """Returns the config."""
    config = scratch_cnn_cifar.get_config()
    config.num_epochs = 30
    config.optim.schedule.warmup_epochs = 2
    config.sweep.startup_trials = 8
    config.sweep.startup_epochs = 5
    config.sweep.ranges = (
        ("optim.learning_rate", "log", 0.01, 0.5),
        ("optim.weight_decay", "log", 1e-4, 5e-3),
        ("augment.policy", "choice", None, "randaugment", "trivialaugment", "autoaugment_cifar10"),
        ("augment.mix_prob", "choice", 0.0, 0.5, 1.0),
        ("augment.random_erasing_prob", "choice", 0.0, 0.25),
    )
    return config
