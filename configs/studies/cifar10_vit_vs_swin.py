"""ViT-B/16 against Swin-B, fine-tuned on CIFAR-10 at 224 pixels.

python main.py study cifar10_vit_vs_swin --workdir runs/vit_vs_swin [--checkpoints DIR]
... --smoke      small models and few images: minutes on a CPU
"""

from jaxvit.studies import Row, Study

STUDY = Study(
    title="ViT-B/16 against Swin-B on CIFAR-10",
    source="a student report: 224 px, batch 32, at most 50 epochs with early stopping; time is for the whole training.",
    words={
        "data.name": "cifar10",
        "data.mean": (0.4914, 0.4822, 0.4465),
        "data.std": (0.2470, 0.2435, 0.2616),
        "num_epochs": 50,
        "batch_size": 32,
        "optim.name": "adamw",
        "optim.grad_clip_norm": 1.0,
        "early_stopping.patience": 5,
        "early_stopping.min_delta": 0.001,
    },
    columns=("accuracy", "best_epoch", "seconds"),
    pictures=("vit", "swin"),
    rows=[
        Row(
            name="vit",
            label="ViT-B/16",
            words={
                "model.name": "vit_base_patch16_224",
                "pretrained": "vit_base_patch16_224.augreg_in21k",
                "optim.learning_rate": 5e-5,
                "optim.weight_decay": 0.01,
                "optim.schedule.name": "cosine",
            },
            published={"accuracy": 96.14, "best_epoch": 3, "seconds": 1853},
            remark="AdamW 5e-5, decay 0.01, cosine, cross-entropy, no augmentation.",
        ),
        Row(
            name="swin",
            label="Swin-B",
            words={
                "model.name": "swin_base_patch4_window7_224",
                "pretrained": "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
                "model.drop_rate": 0.2,
                "optim.learning_rate": 1e-4,
                "optim.weight_decay": 0.001,
                "optim.schedule.name": "plateau",
                "optim.schedule.metric": "loss",
                "optim.schedule.factor": 0.5,
                "optim.schedule.patience": 2,
                "loss.label_smoothing": 0.1,
                "augment.flip": True,
                "augment.color_jitter": (0.2, 0.2, 0.2, 0.1),
                "augment.affine_degrees": 10.0,
                "augment.affine_translate": 0.1,
                "augment.affine_scale": (0.9, 1.1),
            },
            published={"accuracy": 98.59, "best_epoch": 26, "seconds": 8712},
            remark="AdamW 1e-4, decay 0.001, plateau, label smoothing 0.1, flip, colour jitter, affine, dropout 0.2 "
            "before the classifier.",
        ),
    ],
    reading=(
        "The report's \"validation\" split is CIFAR-10's test split: it chose the epoch on the images on which it then "
        "reports the accuracy, which flatters both rows. Ours holds out a tenth of the training images, chooses the "
        "epoch on them, and uses the test split once, at the end.",
        "The two rows differ in much more than the model: learning rate, decay, schedule, label smoothing, "
        "augmentation and dropout. A difference between them is one of recipes as well as of models.",
        "The report does not state the weights (ImageNet-21k here for both), the strength of jitter (0.2, hue 0.1) "
        "and affine (10 degrees, a tenth of the side, 0.9 to 1.1), and the plateau (half the rate after two "
        "epochs without a lower validation loss).",
    ),
)
