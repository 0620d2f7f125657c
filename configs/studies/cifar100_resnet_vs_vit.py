"""ResNet-18 against ViTs of growing size, from scratch on CIFAR-100 at 32 pixels.

python main.py study cifar100_resnet_vs_vit --workdir runs/cifar100_resnet_vs_vit
... --smoke      small models and few images: minutes on a CPU
"""

from jaxvit.studies import Row, Study


def vit(depth, heads, width, **published):
    """A published ViT with this many blocks and heads, and patches of 4x4 pixels."""
    words = {"model.depth": depth, "model.num_heads": heads, "model.embed_dim": width}
    return Row(
        name=f"vit_{depth}l_{heads}h_{width}", label=f"ViT {depth}L-{heads}H-{width}", config="cifar10_vit",
        words=words | {"model.image_size": 32, "optim.schedule.warmup_epochs": 10}, published=published,
    )  # fmt: skip


STUDY = Study(
    title="ResNet-18 against ViT on CIFAR-100",
    source="a student report, from scratch on CIFAR-100 at 32 px; L = blocks, H = heads, last number = width.",
    config="cifar100_resnet18",
    words={
        "data.name": "cifar100",
        "data.mean": (0.5071, 0.4865, 0.4409),
        "data.std": (0.2673, 0.2564, 0.2762),
        "num_epochs": 200,
    },
    columns=("accuracy", "parameters", "macs", "seconds_per_epoch"),
    rows=[
        Row(
            name="resnet18",
            label="ResNet-18",
            published={"accuracy": 77.3, "parameters": 11.2, "macs": 558, "seconds_per_epoch": 21},
            remark="3x3 stem without a pool. The published 558 MFLOPs are its multiply-accumulates: 1 MAC is 2 FLOPs.",
        ),
        vit(2, 2, 128, accuracy=72.1, parameters=3.5, macs=330, seconds_per_epoch=19),
        vit(4, 4, 256, accuracy=76.0, parameters=10.8, macs=910, seconds_per_epoch=32),
        vit(6, 8, 384, accuracy=77.1, parameters=27.2, macs=2340, seconds_per_epoch=58),
        vit(8, 8, 512, accuracy=77.4, parameters=44.1, macs=4200, seconds_per_epoch=84),
        Row(
            name="vit_11m",
            label="ViT 12L-4H-256, ours",
            config="scratch_vit_cifar",
            words={"num_epochs": 300},
            extra=True,
            remark="Our own ViT with less than 11 M parameters, narrow and deep, with RandAugment, erasing, mixup, "
            "CutMix and averaged weights, for 300 epochs of batch 256.",
        ),
    ],
    reading=(
        "The published sizes do not follow from the published shapes: with an MLP ratio of 4 a block has 12 width² "
        "weights, so 2 blocks of width 128 have 0.4 M parameters, not the published 3.5 M. The table "
        '"What the rows cost" counts what the shapes really have. We run the shapes as they are named, with 4x4 '
        "patches; a ViT of the published size would be another model.",
        "The report does not state its recipe in full. Ours: 200 epochs of batch 128, crops and flips; ResNet-18 with "
        "SGD (0.1, Nesterov 0.9, decay 5e-4), the ViTs with AdamW (1e-3, decay 0.05, label smoothing 0.1), both "
        "cosine. A tenth of the training images is held out to choose the checkpoint; the test split chooses nothing.",
        "Seconds per epoch depend on the machine: the published ones are from an unnamed GPU, ours from the one below.",
    ),
)
