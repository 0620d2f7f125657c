"""What helps a small ViT on CIFAR-100: distillation, soft or hard, and MAE pretraining on the training images.

python main.py study cifar100_small_vits --workdir runs/cifar100_small_vits [--data npz:PATH]
... --smoke      small models and few images: minutes on a CPU
"""

from jaxvit.studies import Row, Study

STUDY = Study(
    title="A small ViT on CIFAR-100: from scratch, distilled, pretrained",
    source="no report; the rows are ours.",
    words={"data.name": "cifar100", "data.val_fraction": 0.02, "eval_every_epochs": 10},
    columns=("accuracy", "parameters", "macs", "seconds_per_epoch"),
    rows=[
        Row(name="resnet18", label="ResNet-18", config="scratch_cnn_cifar", remark="The teacher; 200 epochs."),
        Row(name="vit", label="ViT, from scratch", config="scratch_vit_cifar", remark="300 epochs."),
        Row(
            name="vit_taught_soft",
            label="ViT, soft distillation",
            config="cifar100_vit_taught",
            teacher="resnet18",
            remark="Half of the loss from the teacher's probabilities at temperature 3; 300 epochs.",
        ),
        Row(
            name="vit_taught_hard",
            label="ViT, hard distillation",
            config="cifar100_vit_taught",
            teacher="resnet18",
            words={"distill.mode": "hard"},
            remark="Half of the loss from the teacher's first choice; 300 epochs.",
        ),
        Row(
            name="vit_mae",
            label="ViT, MAE pretraining",
            config="cifar100_vit_mae",
            remark="200 epochs without labels, in which the encoder sees a quarter of the patches, then 200 with "
            "labels. Its seconds per epoch are those of the second phase; pretrain/summary.json has the first's.",
        ),
    ],
    reading=(
        "All ViTs are the same: 12 blocks of width 256, 4 heads, patches of 4x4 pixels, the mean over tokens; "
        "RandAugment, erasing, mixup, CutMix, averaged weights. jaxvit's ViT has no convolutional stem, so no row "
        "tests one.",
        "A fiftieth of the training images is held out to choose the checkpoint. Neither it nor the test split is seen "
        "in pretraining, and the teacher is trained on the same images as its pupils.",
    ),
)
