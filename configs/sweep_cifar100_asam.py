"""Search the rate, radius and schedule of ASAM for ViT-B/16 on CIFAR-100, by the protocol of the study cifar100_asam.

    python main.py sweep --config configs/sweep_cifar100_asam.py --trials 20 --workdir runs/sweep_asam
    ... --config.pretrained=FILE.safetensors     weights from a file instead of the hub

Cost: 17.6 GMACs an image, twice for ASAM; 20 trials of at most 5 epochs, meant for a GPU. Expect: not measured yet.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 5
    config.batch_size = 32

    config.model.name = "vit_base_patch16_224"
    config.pretrained = "vit_base_patch16_224.augreg_in21k"

    config.data.name = "cifar100"
    config.augment.flip = True

    config.optim.name = "sgd"
    config.optim.learning_rate = 1e-2
    config.optim.momentum = 0.9
    config.optim.schedule.name = "step"
    config.optim.schedule.step_size = 100
    config.optim.schedule.unit = "steps"
    config.optim.schedule.gamma = 0.95
    config.optim.sam.rho = 0.5
    config.optim.sam.adaptive = True

    config.sweep.ranges = (
        ("optim.learning_rate", "log", 1e-3, 3e-2),
        ("optim.momentum", "choice", 0.8, 0.9, 0.95),
        ("optim.sam.rho", "log", 0.05, 2.0),
        ("optim.schedule.gamma", "uniform", 0.9, 0.99),
    )
    return config
