"""Fine-tune DeiT-Ti (5.5 M parameters), pretrained on ImageNet, on CIFAR-10 at 224 pixels.

    python main.py --config configs/cifar10_deit_tiny.py --workdir runs/cifar10_deit_tiny
    ... --config.pretrained=FILE.safetensors     weights from a file instead of the hub
    ... --config.data.name=npz:PATH              the same images as arrays

Cost: 1.25 GMACs an image; meant for a GPU. On a CPU, --config.data.image_size=64 costs 0.09.
Expect: the target is 97 % at 224 pixels. 200 steps at 64 pixels reach 60 %, and 27 % from scratch
(results/cifar10_deit_tiny_cpu).
Measured: not yet (packet c1 of results/WANTED.md).
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 5
    config.batch_size = 64

    config.model.name = "deit_tiny_patch16_224"
    config.model.drop_path_rate = 0.05
    config.pretrained = "deit_tiny_patch16_224.fb_in1k"

    config.data.name = "cifar10"
    config.augment.flip = True
    config.augment.crop_padding = 4  # of 32 pixels: images are enlarged to 224 after it

    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-4
    config.optim.weight_decay = 0.05
    config.optim.grad_clip_norm = 1.0
    config.optim.schedule.warmup_epochs = 0.5
    config.loss.label_smoothing = 0.1
    return config
