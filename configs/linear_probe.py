"""A linear classifier on the frozen features of DeiT-Ti (5.5 M parameters, ImageNet), on CIFAR-100 at 224 pixels.

    python main.py --config configs/linear_probe.py --workdir runs/linear_probe
    ... --config.pretrained=FILE.safetensors      weights from a file instead of the hub
    ... --config.model.head_hidden_size=512 --config.model.drop_rate=0.2      a hidden layer, "enhanced head"

Hardware: one GPU, or a patient CPU. Cost: 1.25 GMACs an image, forward only; 10 epochs.
Expect: not measured at this size. On 500 CIFAR-10 images at 96 pixels, a hundred steps on a CPU:
41.7 % on 2,000 test images (results/recipes).
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 10
    config.batch_size = 128

    config.model.name = "deit_tiny_patch16_224"
    config.pretrained = "deit_tiny_patch16_224.fb_in1k"
    config.optim.freeze = "head_only"

    config.data.name = "cifar100"
    config.augment.flip = True

    config.optim.name = "adamw"
    config.optim.learning_rate = 3e-3
    config.optim.weight_decay = 0.0
    return config
