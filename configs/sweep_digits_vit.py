"""Search learning rate, weight decay and augmentation of the small ViT on the digits.

    python main.py sweep --config configs/sweep_digits_vit.py --trials 20 --workdir runs/sweep_digits

Cost: 20 trials of at most 20 epochs, five minutes on two CPU cores. Expect: 99.3 % on the validation images without
padding, at any rate from 2e-4 to 1e-3 (results/sweep_digits).
"""

from configs import digits_vit


def get_config():
    """Returns the config."""
    config = digits_vit.get_config()
    config.num_epochs = 20
    config.sweep.ranges = (
        ("optim.learning_rate", "log", 1e-4, 1e-2),
        ("optim.weight_decay", "log", 1e-3, 0.3),
        ("augment.crop_padding", "int", 0, 2),
    )
    return config
