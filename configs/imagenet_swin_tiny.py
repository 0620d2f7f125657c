"""Swin-T on ImageNet-1k, 300 epochs (Liu et al. 2021, "Swin Transformer", section 4.1 and appendix A2.1).

    python main.py --config configs/imagenet_swin_tiny.py --workdir runs/imagenet_swin_tiny
    ... --config.data.name=folder:PATH      train/ and val/ with a folder per class

Hardware: 8 GPUs or TPU chips. Cost: 28.3 M parameters, 4.5 GMACs an image; 300 epochs of 1.28 M images.
Expect: 81.3 % top-1 on the validation images in the paper. Not measured here.
Gradients are clipped to a norm of 5, as in the authors' code; the paper has 1.
"""

from configs import imagenet_deit_small


def get_config():
    """Returns the config."""
    config = imagenet_deit_small.get_config()
    config.model.name = "swin_tiny_patch4_window7_224"
    config.model.drop_path_rate = 0.2
    config.augment.repeated = 1  # the paper found no gain, nor of an average of the weights
    config.optim.grad_clip_norm = 5.0
    config.optim.schedule.warmup_epochs = 20
    return config
