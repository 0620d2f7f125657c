"""Six backbones on CIFAR-100 under one protocol: k nearest neighbours, a linear probe, fine-tuning.

python main.py study cifar100_backbones --workdir runs/backbones [--data npz:PATH] [--checkpoints DIR]
... --smoke      small models and few images: a minute or two on a CPU
"""

from jaxvit.studies import Row, Study

BATCH, NEIGHBOURS = 256, 20
RATE = {"probe": 1e-3, "finetuned": 5e-4}  # of a method for 256 images, and in proportion for other batches

BACKBONES = {  # name -> its label, its weights, the options that belong to the model
    "resnet50": ("ResNet-50", "resnet50.a1_in1k", {}),
    "deit_s": ("DeiT-S", "deit_small_patch16_224.fb_in1k", {}),
    "swin_t": ("Swin-T", "swin_tiny_patch4_window7_224.ms_in1k", {}),
    "swinv2_t": ("Swin V2-T", "swinv2_tiny_window8_256.ms_in1k", {"model.window_size": 7}),
    "convnext_t": ("ConvNeXt-T", "convnext_tiny.fb_in1k", {}),
    "dinov3_s": ("DINOv3 ViT-S", "vit_small_patch16_dinov3.lvd1689m", {"model.global_pool": "token"}),
}
METHODS = {  # name -> its part of the report, its options
    "probe": ("Linear probe", {"optim.freeze": "head_only", "optim.weight_decay": 0.0}),
    "finetuned": ("Fine-tuned", {"optim.layer_decay": 0.75, "optim.weight_decay": 0.05}),
}
REMARKS = {
    "swinv2_t": "Pretrained at 256 pixels with windows of 8. Windows of 7 divide the maps of 224 pixels; the position "
    "bias is a function of the distance, so it is defined for them too.",
    "dinov3_s": "Pretrained without labels on 1.7 billion images, distilled from a ViT-7B; the others have seen "
    "ImageNet-1k with labels. Its features are those of the class token.",
}


def row(method, name):
    """One backbone by one method; neighbours are those of the features that the probe reads."""
    (part, options), (label, weights, own) = METHODS[method], BACKBONES[name]
    words = {"model.name": weights.partition(".")[0], "pretrained": weights} | own | options
    return Row(
        name=f"{name}_{method}", label=f"{label}, {part.lower()}", subject=label, part=part,
        words=words | {"optim.learning_rate": RATE[method] * BATCH / 256},
        neighbours=NEIGHBOURS if method == "probe" else None, remark=REMARKS.get(name, "") if method == "probe" else "",
    )  # fmt: skip


STUDY = Study(
    title="Six backbones on CIFAR-100: neighbours, probe, fine-tuning",
    source="no report; the rows are ours.",
    words={
        "data.name": "cifar100", "model.image_size": 224, "num_epochs": 20, "batch_size": BATCH,
        "augment.flip": True, "augment.random_resized_crop": (0.5, 1.0), "loss.label_smoothing": 0.1,
        "optim.name": "adamw", "optim.grad_clip_norm": 1.0, "optim.schedule.warmup_epochs": 1,
    },
    columns=("accuracy", "knn", "parameters", "macs", "seconds_per_epoch"),
    pictures=("resnet50_finetuned", "swinv2_t_finetuned", "convnext_t_finetuned", "dinov3_s_finetuned"),
    rows=[row(method, name) for method in METHODS for name in BACKBONES],
    reading=(
        "All rows see the same images, enlarged to 224 pixels, in the same order, for 20 epochs with the same crops, "
        "flips and label smoothing. A method has one rate for all backbones, in proportion to the batch: AdamW with "
        "1e-3 for a probe, 5e-4 with a layer decay of 0.75 for fine-tuning, for 256 images; cosine, one epoch of "
        "warm-up. Nothing was tuned for any backbone.",
        "Neighbours need no training: a test image gets the class of most of its 20 nearest training images, by "
        "Euclidean distance of standardised features. They are measured on the run of the probe, whose backbone is "
        "frozen, and on the training images without those held out.",
        "The backbones differ in parameters, in cost per image and in what they were pretrained on, as the tables "
        "show. A tenth of the training images chooses the checkpoint; the test split chooses nothing.",
    ),
)  # fmt: skip
