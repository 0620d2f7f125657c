"""What to freeze in DeiT-Ti with a thousand images: part C of cifar10_transfer_learning, small enough for a CPU."""

from jaxvit.studies import Row, Study

FREEZE = {"last": "head_only", "none": "none", "early": "early", "middle": "middle"}

STUDY = Study(
    title="What to freeze in DeiT-Ti: CIFAR-10 at 64 pixels, few steps",
    source="none; part C of cifar10_transfer_learning with DeiT-Ti's ImageNet weights in the place of ResNet-18's.",
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
        Row(name=word, label=f"{word} frozen", words={"optim.freeze": freeze}, extra=True)
        for word, freeze in FREEZE.items()
    ],
    reading=(
        "About 950 training images and 58 steps at 64 px: what a CPU does in minutes. It orders the ways to freeze "
        "under these few steps, and says nothing of full fine-tuning.",
    ),
)
