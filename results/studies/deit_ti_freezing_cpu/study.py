"""What to freeze in DeiT-Ti with a few images: part C of cifar10_transfer_learning, small enough for a CPU."""

from jaxvit.studies import Row, Study

FROZEN = {  # value of optim.freeze: what the table calls it
    "none": "nothing",
    "middle": "the middle blocks",
    "early": "the early blocks",
    "head_only": "all but the classifier",
}

STUDY = Study(
    title="What to freeze in DeiT-Ti: CIFAR-10 at 64 pixels, few steps",
    source="none; part C of cifar10_transfer_learning with DeiT-Ti's ImageNet weights instead of ResNet-18's.",
    config="cifar10_deit_tiny",
    words={
        "data.image_size": 64,
        "data.fraction": 0.1,
        "data.val_fraction": 0.05,
        "num_epochs": 2,
        "batch_size": 32,
        "optim.learning_rate": 3e-4,
        "optim.schedule.warmup_epochs": 0.1,
    },
    rows=[
        Row(name=freeze, label=f"{label} frozen", words={"optim.freeze": freeze}, extra=True)
        for freeze, label in FROZEN.items()
    ],
    reading=(
        "4,750 training images and 296 steps at 64 px: what a CPU does in minutes. It orders the ways to freeze for "
        "so short a training and says nothing about a longer one.",
    ),
)
