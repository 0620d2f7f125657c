"""How many images do I need? A small ViT on five shares of the digits; the report fits a power law and extrapolates.

    python main.py study how_many_images --workdir runs/how_many_images [--data npz:PATH]

Cost: 15 runs of 5 s each; 7 minutes on a shared two-core machine, most of it starting and compiling.
Expect: 85 % of the test scans right with 73 images, 96.6 % with 1,212; ten times as many would give 95 to 99 %.

Every row takes about the same number of steps, so fewer images do not mean less training. For your own data copy this
file, name your config in `config=`, and keep at least four shares over a factor of ten or more.
"""

from jaxvit.studies import Row, Study

EPOCHS = 20  # with all images


def share(percent):
    """A row: this share of the training images, for the same number of steps."""
    words = {"data.fraction": percent / 100, "num_epochs": round(EPOCHS * 100 / percent), "batch_size": 16}
    return Row(name=f"images_{percent}", label=f"ViT, {percent} %", words=words)


STUDY = Study(
    title="How many images do I need? (digits)",
    source="none: a comparison of our own",
    config="digits_vit",
    words={"model.depth": 2, "model.embed_dim": 48, "optim.schedule.warmup_epochs": 1, "parallel.num_devices": 1},
    columns=("accuracy", "seconds"),
    seeds=(0, 1, 2),
    rows=[share(percent) for percent in (6, 12, 25, 50, 100)],
    reading=(
        "Images are drawn by class, and larger shares contain the smaller ones; validation and test images are the "
        "same in all rows. Nothing was tuned for any of the shares.",
    ),
)
