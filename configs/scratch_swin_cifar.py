"""A Swin of three stages (2x2 patches, windows of 4x4) from scratch on CIFAR-100, with the recipe of scratch_vit_cifar.

    python main.py --config configs/scratch_swin_cifar.py --workdir runs/scratch_swin_cifar
    ... --config.data.name=npz:PATH      the same images as arrays

Hardware: one GPU. Cost: 10.4 M parameters, 0.35 GMACs an image, forward; 300 epochs.
Expect: not measured. The shape is Swin-T's without one stage, so that 32 pixels fill its windows; the recipe is the
ViT's, not tuned for Swin.
"""

from configs import scratch_vit_cifar


def get_config():
    """Returns the config."""
    config = scratch_vit_cifar.get_config()
    with config.unlocked():
        for field in ("depth", "embed_dim", "num_heads", "global_pool", "class_token"):  # of the ViT
            del config.model[field]
    config.model.name = "swin_tiny_patch4_window7_224"
    config.model.patch_size = 2  # 16x16 tokens, then 8x8 and 4x4
    config.model.window_size = 4
    config.model.embed_dim = 96
    config.model.depths = (2, 6, 4)
    config.model.num_heads = (3, 6, 12)
    config.model.drop_path_rate = 0.2
    return config
