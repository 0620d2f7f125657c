"""Ten whole training steps in float64 against timm's networks, with the published updates written out in PyTorch.

In float32 a ViT agrees to 1e-5 as well; a ResNet with BatchNorm drifts by more than that from itself.
"""

import contextlib

import jax
import numpy as np
import pytest

from jaxvit import pretrained, tree
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz

pytestmark = [pytest.mark.torch, pytest.mark.slow]  # compiles three unrolled steps

VIT = (
    {"name": "deit3_small_patch16_224", "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
    {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
)
RESNET = ({"name": "resnet10t", "channels": (8, 8, 16, 16)}, {"channels": (8, 8, 16, 16)})
GRID = {"patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 2, "drop_path_rate": 0.0}
SWIN = ({"name": "swin_tiny_patch4_window7_224", **GRID}, {"img_size": 8, **GRID})
VGG = (
    {"name": "vgg11_bn", "cfg": (8, "M", 16, "M"), "mlp_ratio": 1 / 64},
    {"cfg": (8, "M", 16, "M"), "mlp_ratio": 1 / 64},
)
CASES = {
    "asam of the whole batch, accumulated and clipped": (
        VIT,
        {"name": "adamw", "weight_decay": 0.05, "accum_steps": 2, "grad_clip_norm": 0.5, "learning_rate": 1e-3},
        {"rho": 0.5, "adaptive": True},
    ),
    "gsam of each half, in every second step": (
        VIT,
        {"name": "sgd", "weight_decay": 1e-3, "learning_rate": 0.1},
        {"rho": 0.1, "method": "gsam", "m": 8, "every": 2},
    ),
    "asam of what is not frozen": (
        RESNET,
        {"name": "sgd", "weight_decay": 1e-3, "learning_rate": 0.1, "freeze": "early"},
        {"rho": 0.5, "adaptive": True, "start_fraction": 0.2},
    ),
    "asam of shifted windows, each quarter its own": (
        SWIN,
        {"name": "adamw", "weight_decay": 0.05, "grad_clip_norm": 1.0, "learning_rate": 1e-3},
        {"rho": 0.5, "adaptive": True, "m": 4},
    ),
    "sam of convolutions and linear layers": (
        VGG,
        {"name": "sgd", "weight_decay": 1e-3, "learning_rate": 0.02},
        {"rho": 0.05},
    ),
}
STEPS, BATCH = 10, 16


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_are_those_of_float64(name, tmp_path):
    pytest.importorskip("torch")
    with contextlib.suppress(ImportError):  # where only a CPU build of torch is installed
        import torchvision_cpu  # noqa: F401
    pytest.importorskip("timm")
    with jax.enable_x64(True):
        compare(*CASES[name], tmp_path)


def compare(models, optimizer, sam, tmp_path):
    """Takes the steps here and there."""
    import timm
    import torch

    ours, theirs = models
    data = write_npz(tmp_path / "data", num_train=STEPS * BATCH)
    words = {f"optim__{word}": value for word, value in optimizer.items()}
    words |= {f"optim__sam__{word}": value for word, value in sam.items()}
    words |= {"model": ours, "augment__flip": False, "augment__crop_padding": 0, "data__val_fraction": 0.0}
    run, state = prepare(
        tiny_config(data, **words, optim__schedule__name="constant", num_epochs=1, dtype="float64"), tmp_path
    )

    def exported(params):
        stats = {"batch_stats": state.batch_stats} if state.batch_stats else {}
        return pretrained.export(run.blueprint.model, {"params": params, **stats})

    if "cfg" in theirs:  # create_model has its own list of layers
        net = timm.models.vgg.VGG(num_classes=3, norm_layer=torch.nn.BatchNorm2d, **theirs).double()
    else:
        net = timm.create_model(ours["name"], num_classes=3, **theirs).double()
    weights = {key: torch.tensor(np.asarray(value, np.float64)) for key, value in exported(state.params).items()}
    net.load_state_dict(weights, strict=False)
    on = tree.named_leaves(run.phase.trainable)
    marks = exported(tree.map_with_path(lambda path, w: np.full(w.shape, on[path], np.float32), state.params))
    trains = {key for key, _ in net.named_parameters() if marks[key].all()}
    batches = list(run.feeds["train"].batches(np.arange(STEPS * BATCH), BATCH))
    mean, std = (np.asarray(v, np.float32) for v in (run.blueprint.config.data.mean, run.blueprint.config.data.std))
    images = [(np.asarray(b["image"], np.float64) / 255 - mean) / std for b in batches]
    pairs = [
        (torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(np.asarray(b["label"], np.int64)))
        for x, b in zip(images, batches, strict=True)
    ]
    take_in_torch(net, trains, pairs, optimizer, sam)
    for index, batch in enumerate(batches):
        state, _ = run.take_step(index, state, batch)
    run.checkpoints.close()
    found = exported(state.params)
    for key, wanted in net.named_parameters():
        np.testing.assert_allclose(found[key], wanted.detach().numpy(), atol=1e-7, err_msg=key)
    assert max(np.abs(found[key] - weights[key].numpy()).max() for key in trains) > 1e-3
    for key, wanted in net.named_buffers():
        if key.endswith(("running_mean", "running_var")):  # of the clean pass alone
            np.testing.assert_allclose(found[key], wanted.numpy(), atol=1e-7, err_msg=key)


def take_in_torch(net, trains, pairs, optimizer, sam):
    """SGD with momentum or AdamW around SAM, ASAM (Kwon et al. 2021, algorithm 1) or GSAM (Zhuang et al. 2022)."""
    import torch

    w = {key: p for key, p in net.named_parameters() if key in trains}
    kernels = {key for key, p in w.items() if p.ndim > 1 and key.endswith("weight")}
    t = lambda: {k: p.abs() + 0.01 if sam.get("adaptive") and k.endswith("weight") else 1.0 for k, p in w.items()}  # noqa: E731
    outer = BATCH // sam.get("m", BATCH)
    inner = optimizer.get("accum_steps", 1)

    def gradient(x, y, clean):
        net.train()
        for key, module in net.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train(f"{key}.weight" in trains)
                module.momentum = 0.1 if clean else 0.0
        total = dict.fromkeys(w, 0.0)
        for i in range(inner):
            loss = torch.nn.functional.cross_entropy(net(x[i::inner]), y[i::inner])
            grads = torch.autograd.grad(loss, list(w.values()), allow_unused=True)
            total = {k: total[k] + (0.0 if g is None else g / inner) for k, g in zip(w, grads, strict=True)}
        return total

    def norm(tensors):
        return torch.sqrt(sum((v**2).sum() for v in tensors.values()))

    def sharp(x, y):
        g = gradient(x, y, True)
        scale = t()
        length = norm({k: scale[k] * g[k] for k in w})
        up = {k: sam["rho"] * scale[k] ** 2 * g[k] / length for k in w}
        with torch.no_grad():
            before = {k: p.clone() for k, p in w.items()}
            for k, p in w.items():
                p.add_(up[k].detach())
        s = gradient(x, y, False)
        with torch.no_grad():
            for k, p in w.items():
                p.copy_(before[k])
        if sam.get("method") == "gsam":
            part = sum((g[k] * s[k]).sum() for k in w) / norm(s) ** 2
            s = {k: s[k] - 0.4 * (g[k] - part * s[k]) for k in w}
        return s

    m, v = ({k: torch.zeros_like(p) for k, p in w.items()} for _ in range(2))
    rate = float(np.float32(optimizer["learning_rate"]))  # a schedule gives float32
    decay = optimizer["weight_decay"]
    for step, (x, y) in enumerate(pairs):
        on = step % sam.get("every", 1) == 0 and step >= sam.get("start_fraction", 0) * len(pairs)
        parts = [sharp(x[i::outer], y[i::outer]) for i in range(outer)] if on else [gradient(x, y, True)]
        g = {k: sum(part[k] for part in parts) / len(parts) for k in w}
        if "grad_clip_norm" in optimizer:
            factor = min(1.0, optimizer["grad_clip_norm"] / float(norm(g)))
            g = {k: factor * value for k, value in g.items()}
        with torch.no_grad():
            for k, p in w.items():
                wd = decay if k in kernels else 0.0
                if optimizer["name"] == "sgd":
                    m[k] = 0.9 * m[k] + g[k] + wd * p
                    p.sub_(rate * m[k])
                else:
                    m[k], v[k] = 0.9 * m[k] + 0.1 * g[k], 0.999 * v[k] + 0.001 * g[k] ** 2
                    root = torch.sqrt(v[k] / (1 - 0.999 ** (step + 1)))
                    p.sub_(rate * (m[k] / (1 - 0.9 ** (step + 1)) / (root + 1e-8) + wd * p))
