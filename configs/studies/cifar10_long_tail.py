"""Long-tailed CIFAR-10 (100:1): a plain loss against balanced sampling and against logit adjustment.

    python main.py study cifar10_long_tail --workdir runs/long_tail [--data npz:DATA/cifar10]

DeiT-Ti, pretrained on ImageNet, at 64 pixels with its first eight blocks frozen: minutes a run on one CPU core. The
exponential profile of Cui et al. (2019) over 1,000 images of the first class: 1,000 to 10. Validation and test images
are balanced. Measured: results/imbalance.
"""

from jaxvit.studies import Row, Study

STUDY = Study(
    title="Long-tailed CIFAR-10, 100:1",
    source="none: a comparison of our own",
    words={
        "data.name": "cifar10",
        "data.image_size": 64,
        "data.per_class": 1000,
        "data.imbalance": 100.0,
        "data.val_fraction": 0.02,
        "data.test_limit": 5000,
        "model.name": "deit_tiny_patch16_224",
        "pretrained": "deit_tiny_patch16_224.fb_in1k",
        "num_epochs": 6,
        "batch_size": 64,
        "optim.name": "adamw",
        "optim.learning_rate": 5e-4,
        "optim.weight_decay": 0.05,
        "optim.layer_decay": 0.75,
        "optim.grad_clip_norm": 1.0,
        "optim.freeze": "last_4_blocks",
        "optim.schedule.warmup_epochs": 1,
        "augment.flip": True,
        "augment.crop_padding": 4,
        "parallel.num_devices": 1,
    },
    columns=("balanced_accuracy", "macro_f1", "seconds"),
    seeds=(0, 1, 2),
    rows=[
        Row(name="plain", label="plain cross-entropy"),
        Row(name="sampling", label="balanced sampling", words={"data.sampling": "balanced"}),
        Row(name="adjusted", label="logit adjustment, tau 1", words={"loss.logit_adjustment": 1.0}),
    ],
    reading=(
        "The test images are balanced, so balanced accuracy is accuracy; nothing was tuned for any of the rows.",
        "The seeds draw different training images (1,000 to 10 of a class) as well as different orders.",
    ),
)
