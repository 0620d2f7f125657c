"""Transfer to CIFAR-10: pretrained or not at 10/20/50 % of the data, ResNet-18 against VGG16, what to freeze.

python main.py study cifar10_transfer_learning --workdir runs/transfer [--checkpoints DIR]
... --smoke      small models and few images: minutes on a CPU
"""

from jaxvit.studies import Row, Study

FREEZE = {"none": "none", "early": "early", "middle": "middle", "last": "head_only"}  # the report's words -> ours
A, B, C = "A: with weights and without", "B: two families", "C: what is frozen"
START = {"alexnet": "alexnet.tv_in1k", "resnet18": "resnet18.tv_in1k", "vgg16": "vgg16.tv_in1k"}


def model(name, percent, **words):
    """The options of a model at a share of the training images."""
    return {"model.name": name, "model.image_size": 224, "data.fraction": percent / 100} | words


def alexnet(percent, pretrained, scratch):
    """Part A at one share of the data: with weights and without."""
    start = {"pretrained": START["alexnet"]}
    yield Row(name=f"alexnet_{percent}", label=f"A: AlexNet, ImageNet, {percent} %",
              words=model("alexnet", percent) | start, published={"accuracy": pretrained}, part=A)  # fmt: skip
    yield Row(name=f"alexnet_{percent}_scratch", label=f"A: AlexNet, scratch, {percent} %",
              words=model("alexnet", percent), published={"accuracy": scratch}, part=A)  # fmt: skip


def resnet(word, accuracy):
    """Part C: which part of ResNet-18 is frozen, by the report's word."""
    words = model("resnet18", 50) | {"pretrained": START["resnet18"], "optim.freeze": FREEZE[word]}
    return Row(name=f"resnet18_freeze_{word}", label=f"C: ResNet-18, {word} frozen", words=words,
               published={"accuracy": accuracy}, part=C,
               remark="The same run as in part B." if word == "none" else "")  # fmt: skip


def deit(percent, freeze="none"):
    """Our extra rows: DeiT-Ti instead of ResNet-18."""
    name = f"deit_ti_{percent}" + ("" if freeze == "none" else f"_freeze_{freeze}")
    words = {"data.fraction": percent / 100, "optim.freeze": FREEZE[freeze], "optim.name": "adamw"}
    return Row(name=name, label=f"DeiT-Ti, {percent} %, {freeze} frozen", config="cifar10_deit_tiny", words=words,
               extra=True, part="DeiT-Ti")  # fmt: skip


STUDY = Study(
    title="Transfer learning on CIFAR-10",
    source="a student report: batch 64, 10 epochs.",
    words={"data.name": "cifar10", "num_epochs": 10, "batch_size": 64, "augment.flip": True, "optim.name": "adam",
           "optim.learning_rate": 1e-4},
    columns=("accuracy", "parameters", "seconds_per_epoch"),
    rows=[
        *alexnet(10, 82.99, 12.89), *alexnet(20, 87.18, 37.41), *alexnet(50, 89.68, 51.06),
        Row(name="resnet18_50", label="B: ResNet-18, ImageNet, 50 %", part=B,
            words=model("resnet18", 50) | {"pretrained": START["resnet18"]},
            published={"accuracy": 94.30, "parameters": 11.7, "seconds_per_epoch": 33},
            remark="The published parameters include the ImageNet classifier; ours has 10 classes."),
        Row(name="vgg16_50", label="B: VGG16, ImageNet, 50 %", part=B,
            words=model("vgg16", 50) | {"pretrained": START["vgg16"]},
            published={"accuracy": 92.59, "parameters": 138, "seconds_per_epoch": 505},
            remark="The published parameters include the ImageNet classifier; ours has 10 classes."),
        resnet("none", 94.60), resnet("early", 93.58), resnet("middle", 93.50), resnet("last", 79.87),
        *(deit(percent) for percent in (10, 20, 50, 100)), *(deit(50, word) for word in ("early", "middle", "last")),
    ],
    reading=(
        'Part C uses the words of the report. In optim.freeze they are: none; early, stages 1 and 2 of 4 '
        "frozen, the stem trains; middle, stages 2 and 3 frozen; last = head_only, all but the last layer frozen. "
        'In the report "last" is 15 points below the others, as a linear classifier on frozen features is.',
        "A tenth of all training images is held out first, to choose the checkpoint; the share is drawn by class from "
        "the rest, and all rows with the same share and seed see the same images. The report does not state the share "
        "of part C; we take the 50 % of part B.",
        "Optimiser and rate are not stated. Ours are Adam and 1e-4 in all rows, flips, images enlarged to 224 px; so "
        "the rows from scratch share the rate of the fine-tuned ones. VGG16's 505 s are due to its 138 M parameters.",
    ),
)  # fmt: skip
