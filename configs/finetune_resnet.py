"""Fine-tune ResNet-18 (11 M parameters), pretrained on ImageNet, on CIFAR-100 or your own data at 224 pixels.

    python main.py --config configs/finetune_resnet.py --workdir runs/finetune_resnet
    ... --config.data.name=folder:PATH           photos, one subfolder per class
    ... --config.pretrained=FILE.safetensors     weights from a file instead of the hub
    ... --config.optim.freeze=early              freezes stages 1 and 2; the stem trains

Hardware: one GPU. Cost: 1.8 GMACs an image, forward; 10 epochs.
Expect: not measured yet.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 10
    config.batch_size = 128
    config.dtype = "bfloat16"

    config.model.name = "resnet18"
    config.pretrained = "resnet18.tv_in1k"

    config.data.name = "cifar100"
    config.augment.flip = True
    config.augment.random_resized_crop = (0.5, 1.0)

    config.optim.name = "sgd"
    config.optim.learning_rate = 0.02
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 1e-4
    config.optim.schedule.warmup_epochs = 1
    config.loss.label_smoothing = 0.1
    return config
