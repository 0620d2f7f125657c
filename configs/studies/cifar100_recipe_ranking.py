"""Which parts of the long ResNet-18 recipe help? A ranking on a CPU: a tenth of CIFAR-100, a small network.

    python main.py study cifar100_recipe_ranking --workdir runs/recipe_ranking [--data npz:PATH]

Cost: 24 runs of 150,000 images each, 26 MMACs an image, forward; 10 minutes a run on one CPU core.
Expect: 12.7 % for the recipe, 22.4 % without its three parts (results/recipe_ranking).

A row changes one part of `configs/scratch_cnn_cifar.py`. Thirty epochs of 5,000 images are 1,170 steps, a 65th of the
recipe's. A part that helps here should be tried first at full size; this does not prove that it helps there.
"""

from jaxvit.studies import Row, Study

STUDY = Study(
    title="Parts of a from-scratch recipe, ranked at small scale (CIFAR-100, a ResNet of 0.33 M parameters)",
    source="none: a comparison of our own",
    config="scratch_cnn_cifar",
    words={
        "num_epochs": 30,
        "eval_every_epochs": 30,
        "dtype": "float32",
        "model.layers": (1, 1, 1, 1),
        "model.channels": (16, 32, 64, 128),
        "data.per_class": 50,
        "data.val_fraction": 0.02,
        "optim.schedule.warmup_epochs": 2,
        "parallel.num_devices": 1,
    },
    columns=("accuracy",),
    seeds=(0, 1, 2),
    rows=[
        Row(name="recipe", label="the recipe: TrivialAugment, CutMix 1.0, smoothing 0.1"),
        Row(name="cutmix_02", label="CutMix 0.2", words={"augment.cutmix_alpha": 0.2}),
        Row(name="no_cutmix", label="no CutMix", words={"augment.cutmix_alpha": 0.0}),
        Row(name="no_policy", label="no TrivialAugment", words={"augment.policy": None}),
        Row(name="no_smoothing", label="no label smoothing", words={"loss.label_smoothing": 0.0}),
        Row(name="ema", label="average of the weights (0.995)", words={"ema.decay": 0.995}),
        Row(name="sam_half", label="SAM (rho 0.1) in the last half",
            words={"optim.sam.rho": 0.1, "optim.sam.start_fraction": 0.5}),
        Row(name="plain", label="none of the three: flip and padded crop",
            words={"augment.cutmix_alpha": 0.0, "augment.policy": None, "loss.label_smoothing": 0.0}),
    ],
    reading=(
        "All rows use the same images, order, initial weights and number of steps. SAM's steps in the second half "
        "take two gradients each. Nothing was tuned for any row.",
        "A test of 10,000 images has a standard error of about 0.4 points at these accuracies; differences below the "
        "spread of the seeds mean nothing.",
    ),
)  # fmt: skip
