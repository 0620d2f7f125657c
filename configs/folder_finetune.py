"""Fine-tune a pretrained ViT on a folder of photos, one subfolder per class.

    python main.py --config configs/folder_finetune.py --workdir runs/mine --config.data.name=folder:photos
    ... --config.pretrained=FILE.safetensors     weights from a file (of --config.model.name) instead of the hub

Cost: 4.6 GMACs an image. Expect: depends on the photos; the learning rate suits a few hundred to a few thousand.
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 10
    config.batch_size = 32

    config.model.name = "vit_small_patch16_224"
    config.model.drop_path_rate = 0.1
    config.pretrained = "vit_small_patch16_224.augreg_in21k_ft_in1k"

    config.data.name = "folder:photos"
    config.augment.flip = True
    config.augment.crop_padding = 16

    config.optim.name = "adamw"
    config.optim.learning_rate = 5e-5
    config.optim.weight_decay = 0.05
    config.optim.grad_clip_norm = 1.0
    config.optim.schedule.warmup_epochs = 1
    config.loss.label_smoothing = 0.1
    return config
