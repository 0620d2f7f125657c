"""Search learning rate, weight decay and augmentation of a 9.5 M parameter ViT from scratch on CIFAR-100.

    python main.py sweep --config configs/sweep_cifar100_vit.py --trials 40 --workdir runs/sweep_vit

Hardware: one GPU. Cost: 40 trials of at most 60 epochs. Expect: not measured yet. Then try the
best values in scratch_vit_cifar at its full length.
"""

from configs import scratch_vit_cifar


def get_config():
    """Returns the config."""
    config = scratch_vit_cifar.get_config()
    config.num_epochs = 60
    config.optim.schedule.warmup_epochs = 5
    config.ema.decay = 0.0  # its horizon is longer than the trials
    config.sweep.startup_trials = 8
    config.sweep.startup_epochs = 10
    config.sweep.ranges = (
        ("optim.learning_rate", "log", 2e-4, 3e-3),
        ("optim.weight_decay", "log", 0.01, 0.5),
        ("augment.policy", "choice", None, "randaugment", "trivialaugment", "autoaugment_cifar10"),
        ("augment.mix_prob", "choice", 0.0, 0.5, 1.0),
        ("model.drop_path_rate", "uniform", 0.0, 0.2),
    )
    return config
