"""What lifts a small ViT on CIFAR-100: a teacher, soft or hard, and MAE pretraining on the training images.

python main.py study cifar100_small_vits --workdir runs/cifar100_small_vits [--data npz:PATH]
... --smoke      small models and few images: minutes on a CPU
"""

from jaxvit.studies import Row, Study

STUDY = Study(
    title="A small ViT on CIFAR-100: from scratch, taught, pretrained",
    source="no report; the rows are ours.",
    words={"data.name": "cifar100", "data.val_fraction": 0.02, "eval_every_epochs": 10},
    columns=("accuracy", "parameters", "macs", "seconds_per_epoch"),
    rows=[
        Row(name="resnet18", label="ResNet-18", config="scratch_cnn_cifar", remark="The teacher; 200 epochs."),
        Row(name="vit", label="ViT, from scratch", config="scratch_vit_cifar", remark="300 epochs."),
        Row(
            name="vit_taught_soft",
            label="ViT, taught, soft",
            config="cifar100_vit_taught",
            teacher="resnet18",
            remark="Half of the loss from the teacher's probabilities at temperature 3; 300 epochs.",
        ),
        Row(
            name="vit_taught_hard",
            label="ViT, taught, hard",
            config="cifar100_vit_taught",
            teacher="resnet18",
            words={"distill.mode": "hard"},
            remark="Half of the loss from the teacher's first choice; 300 epochs.",
        ),
        Row(
            name="vit_mae",
            label="ViT, MAE first",
            config="cifar100_vit_mae",
            remark="200 epochs without labels, in which the encoder sees a quarter of the patches, then 200 with "
            "them. Its seconds per epoch are of the second phase; pretrain/summary.json has those of the first.",
        ),
    ],
    reading=(
        "All ViTs are the same: 12 blocks of width 256, 4 heads, patches of 4x4 pixels, the mean over tokens; "
        "RandAugment, erasing, mixup, CutMix, averaged weights. The model has no convolutional stem, so there is no "
        "such row.",
        "A fiftieth of the training images is held out to choose the checkpoint. Neither it nor the test split is seen "
        "in pretraining, and the teacher is trained on the same images as its pupils.",
    ),
)
