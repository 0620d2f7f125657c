"""Fine-tune ViT-S/16 (22 M parameters), pretrained on ImageNet-21k, on CIFAR-100 or your own data at 224 pixels.

    python main.py --config configs/finetune_vit.py --workdir runs/finetune_vit
    ... --config.data.name=folder:PATH           photos, one subfolder per class
    ... --config.pretrained=FILE.safetensors     weights from a file instead of the hub
    ... --config.optim.sam.rho=0.05              SAM, for few images and many epochs: results/cifar10_finetuned_sam

Hardware: one GPU. Cost: 4.6 GMACs an image, forward; 5 epochs.
Expect: not measured at this size. DeiT-Ti at 96 pixels on one CPU core, 10,000 test images each: 76.3 % on
CIFAR-100 after 4 epochs, 93 minutes; 89.3 % on CIFAR-10 with 9,000 images, 15 minutes (results/recipes).
"""

from jaxvit.config.default import default


def get_config():
    """Returns the config."""
    config = default()
    config.num_epochs = 5
    config.batch_size = 128
    config.dtype = "bfloat16"

    config.model.name = "vit_small_patch16_224"
    config.model.drop_path_rate = 0.1
    config.pretrained = "vit_small_patch16_224.augreg_in21k_ft_in1k"

    config.data.name = "cifar100"
    config.augment.flip = True
    config.augment.random_resized_crop = (0.5, 1.0)

    config.optim.name = "adamw"
    config.optim.learning_rate = 5e-4  # of the head; a block has 0.75 of what the next one has
    config.optim.layer_decay = 0.75
    config.optim.weight_decay = 0.05
    config.optim.grad_clip_norm = 1.0
    config.optim.schedule.warmup_epochs = 0.5
    config.loss.label_smoothing = 0.1
    return config
