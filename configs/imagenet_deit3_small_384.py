"""ViT-S of DeiT III fine-tuned at 384 pixels, 20 epochs (Touvron et al. 2022, "DeiT III: Revenge of the ViT").

    python main.py --config configs/imagenet_deit3_small_384.py --workdir runs/imagenet_deit3_small_384
    ... --config.pretrained=runs/imagenet_deit3_small       from a run of your own instead of the published weights
    ... --config.data.name=folder:PATH                      train/ and val/ with a folder per class

Hardware: 8 GPUs or TPU chips. Cost: 22.2 M parameters, 15.5 GMACs an image; 20 epochs of 1.28 M images.
Expect: 83.4 % top-1 in the authors' table, from 81.4 % at 224 pixels. Not measured here.
Values are those of the authors' command for fine-tuning ViT-S at 384 pixels (README_revenge.md). The lowest rate of
their schedule is its peak, so it is constant after the warm-up; there is no stochastic depth.
"""

from configs import imagenet_deit_small


def get_config():
    """Returns the config."""
    config = imagenet_deit_small.get_config()
    config.num_epochs = 20
    config.batch_size = 512
    config.pretrained = "deit3_small_patch16_224.fb_in1k"

    config.model.name = "deit3_small_patch16_224"
    config.model.drop_path_rate = 0.0

    config.data.image_size = 384  # the table of positions is resampled to 24x24
    config.data.crop_pct = 1.0
    config.augment.random_erasing_prob = 0.0
    config.augment.repeated = 1

    config.optim.learning_rate = 1e-5
    config.optim.weight_decay = 0.1
    return config
