"""The maps of real weights on real photos point at the object asked for; maps equal those of the package grad-cam."""

import contextlib
import csv
import os
from pathlib import Path

import numpy as np
import pytest

from jaxvit import data, explain, models, pretrained
from jaxvit.explain import faithfulness

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("JAXVIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
NAME = "deit_tiny_patch16_224.fb_in1k"


@pytest.mark.skipif(not DATA.exists(), reason="the real weights and photos (../shared/data) are not here")
def test_of_two_photos_side_by_side_the_map_lies_on_the_one_asked_for():
    model, variables = pretrained.load_pretrained(NAME, str(DATA / "weights" / "deit_tiny_patch16_224.safetensors"))
    with open(DATA / "photos" / "labels.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows])
    photos = [data.open_image(DATA / "photos" / row["file"]).convert("RGB") for row in rows]
    config = models.data_config(NAME)
    pairs = [(i, (i + 1) % len(rows)) for i in range(len(rows))]
    both = np.stack([faithfulness.side_by_side(photos[a], photos[b], (224, 224)) for a, b in pairs])
    images = ((both / 255 - config["mean"]) / config["std"]).astype(np.float32)
    right = []
    for side, half in enumerate(("left", "right")):
        maps = explain.grad_cam(model, variables, images, labels[[pair[side] for pair in pairs]])
        right += list(faithfulness.share_on(maps, half) > 0.5)
    assert np.mean(right) >= 0.95


@pytest.mark.torch
@pytest.mark.parametrize("method, peer", [("gradcam", "GradCAM"), ("hirescam", "HiResCAM"), ("layercam", "LayerCAM")])
@pytest.mark.parametrize("name", ("vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224"))
def test_maps_equal_those_of_the_package_grad_cam(name, method, peer):
    torch = pytest.importorskip("torch")
    with contextlib.suppress(ImportError):
        import torchvision_cpu  # noqa: F401  # where only a CPU build of torch is installed
    pytest.importorskip("pytorch_grad_cam")
    import pytorch_grad_cam
    import timm
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    fields = {
        "vit_tiny_patch16_224": {"depth": 2, "embed_dim": 48},
        "resnet18": {"layers": (1, 1, 1, 1)},
        "swin_tiny_patch4_window7_224": {"depths": (1, 1), "num_heads": (2, 4), "embed_dim": 16, "window_size": 4},
    }[name]
    sizes = {} if name == "resnet18" else {"image_size": 64}
    torch.manual_seed(0)
    peer_sizes = {} if name == "resnet18" else {"img_size": 64}
    theirs = timm.create_model(name, num_classes=7, **fields, **peer_sizes).eval()
    for p in theirs.parameters():  # zero biases and tiny weights would leave nothing to see
        p.data = p.data + 0.05 * torch.randn_like(p)
    model = models.create_model(name, num_classes=7, **fields, **sizes)
    variables = pretrained.convert(model, {k: v.numpy() for k, v in theirs.state_dict().items()})
    layer = {"v": lambda: theirs.blocks[-1].norm1, "r": lambda: theirs.layer4, "s": lambda: theirs.norm}[name[0]]()
    reshape = {
        "v": lambda x: x[:, 1:].reshape(len(x), 4, 4, -1).permute(0, 3, 1, 2),
        "r": None,
        "s": lambda x: x.permute(0, 3, 1, 2),
    }[name[0]]
    images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype(np.float32)
    classes, compared = [0, 3, 6, 2], 0
    with getattr(pytorch_grad_cam, peer)(theirs, [layer], reshape_transform=reshape) as cam:
        expected = cam(torch.tensor(images).permute(0, 3, 1, 2), [ClassifierOutputTarget(k) for k in classes])
    found = np.asarray(explain.grad_cam(model, variables, images, np.array(classes), method))
    for a, b in zip(found, expected, strict=True):
        if b.max() == 0:
            assert a.max() == 0
            continue
        compared += 1
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9999
    assert compared
