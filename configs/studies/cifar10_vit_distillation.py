"""ViT-B and ViT-Ti on 1,000 images per class of CIFAR-10: from scratch, from ImageNet, distilled.

python main.py study cifar10_vit_distillation --workdir runs/distillation [--checkpoints DIR]
... --smoke      small models and few images: minutes on a CPU
"""

from jaxvit.studies import Row, Study

BASE = {"model.name": "vit_base_patch16_224", "model.image_size": 224}
TINY = {"model.name": "vit_tiny_patch16_224", "model.image_size": 224}
START = {
    "vit_b": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_ti": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
}
TUNE = {"optim.learning_rate": 1e-4}
SCRATCH = {"optim.learning_rate": 5e-4}
SOFT = {"distill.mode": "soft", "distill.alpha": 0.5, "distill.temperature": 3.0}
SMALL = {
    "model.name": "vit_tiny_patch16_224", "model.image_size": 32, "model.patch_size": 4, "model.embed_dim": 128,
    "model.depth": 6, "model.num_heads": 4, "optim.learning_rate": 1e-3,
}  # fmt: skip

# fmt: off
STUDY = Study(
    title="Distilling ViT-B into ViT-Ti on a fifth of CIFAR-10",
    source="a student report on 1,000 training images per class, 5 epochs; its rows are known, its figures are not.",
    words={
        "data.name": "cifar10",
        "data.per_class": 1000,
        "num_epochs": 5,
        "batch_size": 32,
        "optim.name": "adamw",
        "optim.weight_decay": 0.05,
        "optim.grad_clip_norm": 1.0,
        "optim.schedule.warmup_epochs": 0.5,
    },
    columns=("accuracy", "parameters", "macs", "images_per_second"),
    by_epoch=True,
    throughput=True,
    rows=[
        Row(name="vit_b_scratch", label="ViT-B, from scratch", words=BASE | SCRATCH),
        Row(name="vit_b", label="ViT-B, from ImageNet", words=BASE | TUNE | {"pretrained": START["vit_b"]},
            remark="The teacher of the distilled rows."),
        Row(name="vit_ti", label="ViT-Ti, from ImageNet", words=TINY | TUNE | {"pretrained": START["vit_ti"]}),
        Row(name="vit_ti_distilled", label="ViT-Ti, distilled", teacher="vit_b", words=TINY | SCRATCH | SOFT,
            remark="From scratch; half of the loss from the fine-tuned ViT-B, at temperature 3."),
        Row(name="vit_ti_scratch", label="ViT-Ti, from scratch", words=TINY | SCRATCH),
        Row(name="vit_ti_both", label="ViT-Ti, from ImageNet, distilled", teacher="vit_b", extra=True,
            words=TINY | TUNE | SOFT | {"pretrained": START["vit_ti"]},
            remark="The report does not say what its student started from; this is the other reading."),
        Row(name="deit_ti", label="DeiT-Ti, from ImageNet", extra=True, config="cifar10_deit_tiny",
            remark="The teacher of the small ViT, instead of ViT-B."),
        Row(name="small_distilled", label="ViT 6L-4H-128, distilled from DeiT-Ti", teacher="deit_ti", extra=True,
            words=SMALL | SOFT),
        Row(name="small_scratch", label="ViT 6L-4H-128, no teacher", words=SMALL, extra=True),
    ],
    reading=(
        "A tenth of the training split is held out first, for validation, and never trained on; 1,000 images per class "
        "are drawn from the rest. Test images per second are for the best checkpoint in batches of 32, with the images "
        "on the device already.",
        "Learning rates are ours: 1e-4 from ImageNet, 5e-4 from scratch. Without augmentation the teacher runs once.",
    ),
)
