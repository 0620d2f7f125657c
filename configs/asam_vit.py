"""The ViT of scratch_vit_cifar with ASAM around AdamW (Kwon et al. 2021).

    python main.py --config configs/asam_vit.py --workdir runs/asam_vit
    ... --config.optim.sam.every=2               every second step only: 1.5 times a plain step instead of twice
    ... --config.optim.sam.start_fraction=0.5    in the second half of the training only

Hardware: one GPU. Cost: a step costs twice that of scratch_vit_cifar; 150 epochs, so that both cost the same.
Expect: not measured yet. rho is a fifth of the published 0.5, which cost a small ViT on the digits
more than five points; on the same digits twice the epochs of plain AdamW were better than either (results/digits_sam).
In fine-tuning on 1,000 images ASAM was ahead of AdamW at equal epochs, and only SAM at equal time
(results/cifar10_finetuned_sam).
"""

from configs import scratch_vit_cifar


def get_config():
    """Returns the config."""
    config = scratch_vit_cifar.get_config()
    config.num_epochs = 150
    config.optim.sam.rho = 0.1
    config.optim.sam.adaptive = True
    config.optim.sam.eta = 0.01
    return config
