"""Fine-tune Swin-T (28 M parameters), pretrained on ImageNet, on CIFAR-100 or your own data at 224 pixels.

    python main.py --config configs/finetune_swin.py --workdir runs/finetune_swin
    ... --config.data.name=folder:PATH           photos, one subfolder per class
    ... --config.pretrained=FILE.safetensors     weights from a file instead of the hub

Hardware: one GPU. Cost: 4.5 GMACs an image, forward; 5 epochs.
Expect: not measured yet.
"""

from configs import finetune_vit


def get_config():
    """Returns the config."""
    config = finetune_vit.get_config()
    config.model.name = "swin_tiny_patch4_window7_224"
    config.model.drop_path_rate = 0.2  # the rate of its pretraining
    config.pretrained = "swin_tiny_patch4_window7_224.ms_in1k"

    config.optim.learning_rate = 3e-4
    config.optim.layer_decay = 0.8
    return config
