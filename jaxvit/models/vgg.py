"""VGG (Simonyan and Zisserman, 2015), with the fully connected layers as convolutions, as timm has it."""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxvit.models.conv_checks import check_vgg
from jaxvit.models.conv_layers import NORMS, FeatureMap, check_images, conv, pick
from jaxvit.models.family import Family, Fields, Tap, Tensors
from jaxvit.models.layers import Array, Dtype, Size
from jaxvit.models.layouts import Layout, Table
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.pooling import GLOBAL_POOLS, adaptive_avg_pool, max_pool
from jaxvit.precision import at_least_float32

# Output channels of the 3x3 convolutions in order; "M" is a 2x2 max-pool. Table 1 of the paper: A, B, D, E.
_11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
_13 = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
_16 = (64, 64, "M", 128, 128, "M") + (256,) * 3 + ("M",) + (512,) * 3 + ("M",) + (512,) * 3 + ("M",)
_19 = (64, 64, "M", 128, 128, "M") + (256,) * 4 + ("M",) + (512,) * 4 + ("M",) + (512,) * 4 + ("M",)
_BN = {"norm_layer": "batchnorm"}

VARIANTS: dict[str, dict[str, Any]] = {
    "vgg11": {"cfg": _11},
    "vgg11_bn": {"cfg": _11, **_BN},
    "vgg13": {"cfg": _13},
    "vgg13_bn": {"cfg": _13, **_BN},
    "vgg16": {"cfg": _16},
    "vgg16_bn": {"cfg": _16, **_BN},
    "vgg19": {"cfg": _19},
    "vgg19_bn": {"cfg": _19, **_BN},
}


class ConvMlp(nn.Module):
    """The two hidden fully connected layers as convolutions: [b, h, w, c] -> [b, max(h - 6, 1), max(w - 6, 1), d].

    A map smaller than 7x7 is first enlarged to 7x7 by adaptive averaging.
    """

    hidden_dim: int
    features: int
    act_layer: str = "relu"
    drop_rate: float = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        act = pick(ACTIVATIONS, "act_layer", self.act_layer)
        x = adaptive_avg_pool(x, max(7, x.shape[1]), max(7, x.shape[2]))
        x = act(conv(self.hidden_dim, 7, name="fc1", padding=0, use_bias=True, dtype=self.dtype)(x))
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        return act(conv(self.features, 1, name="fc2", use_bias=True, dtype=self.dtype)(x))


class ClassifierHead(nn.Module):
    """Global pool, dropout, linear layer: [b, h, w, c] -> [b, num_classes], or [b, c] when it is 0."""

    num_classes: int
    global_pool: str = "avg"
    drop_rate: float = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        x = pick(GLOBAL_POOLS, "global_pool", self.global_pool)(x)
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        if self.num_classes == 0:
            return x
        init = nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=init, name="fc")(x)


class VGG(nn.Module):
    """images [b, h, w, in_channels] -> float32 logits [b, num_classes], or pooled features when it is 0.

    `cfg` lists the convolutions' channels and "M" for each max-pool; `norm_layer` is None or "batchnorm".
    """

    cfg: tuple[int | str, ...] = _16
    num_classes: int = 1000
    in_channels: int = 3
    image_size: Size = 224
    norm_layer: str | None = None
    act_layer: str = "relu"
    global_pool: str = "avg"
    head_hidden_size: int = 4096
    mlp_ratio: float = 1.0
    drop_rate: float = 0.0
    dtype: Dtype = None
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        check_images(images, in_channels=self.in_channels, least=2 ** self.cfg.count("M"), family="VGG")
        x = images
        for start, stage in self._stages():
            run = functools.partial(VGG._run_stage, start=start, stage=stage, train=train)
            x = nn.remat(run)(self, x) if self.remat else run(self, x)
        x = FeatureMap(name="features")(x)
        mlp = ConvMlp(
            hidden_dim=int(self.head_hidden_size * self.mlp_ratio),
            features=self.head_hidden_size,
            act_layer=self.act_layer,
            drop_rate=self.drop_rate,
            dtype=self.dtype,
            name="pre_logits",
        )
        head = ClassifierHead(
            num_classes=self.num_classes,
            global_pool=self.global_pool,
            drop_rate=self.drop_rate,
            dtype=self.dtype,
            name="head",
        )
        return at_least_float32(head(mlp(x, train=train), train=train))

    def _stages(self) -> list[tuple[int, list[int | str]]]:
        """Splits `cfg` after each max-pool: (index in timm's `features` of the first layer, entries)."""
        stages, index, start, stage = [], 0, 0, []
        for entry in self.cfg:
            stage.append(entry)
            index += 1 if entry == "M" else self._slots
            if entry == "M":
                stages.append((start, stage))
                start, stage = index, []
        return [*stages, (start, stage)] if stage else stages

    @property
    def _slots(self) -> int:
        """Places that timm's `features` gives to a convolution with its norm and activation."""
        return 2 if self.norm_layer is None else 3

    def _run_stage(self, x: Array, *, start: int, stage: list[int | str], train: bool) -> Array:
        act, index = pick(ACTIVATIONS, "act_layer", self.act_layer), start
        for entry in stage:
            if entry == "M":
                x = max_pool(x, 2, 2)
                continue
            x = conv(int(entry), 3, name=f"features_{index}", use_bias=True, dtype=self.dtype)(x)
            if self.norm_layer is not None:
                norm = pick(NORMS, "norm_layer", self.norm_layer)
                x = norm(name=f"features_{index + 1}", train=train, dtype=self.dtype)(x)
            x, index = act(x), index + self._slots
        return x


# torchvision's hidden layers are dense; timm's are convolutions (reshaped below).
TORCHVISION_VGG: Table = (
    (r"^classifier\.0\.", "pre_logits.fc1."),
    (r"^classifier\.3\.", "pre_logits.fc2."),
    (r"^classifier\.6\.", "head.fc."),
)


def _as_convolutions(tensors: dict[str, Any]) -> dict[str, Any]:
    first, second = (tensors.get(f"pre_logits.{name}.weight") for name in ("fc1", "fc2"))
    if first is not None and first.ndim == 2 and first.shape[1] % 49 == 0:
        tensors["pre_logits.fc1.weight"] = first.reshape(first.shape[0], -1, 7, 7)
    if second is not None and second.ndim == 2:
        tensors["pre_logits.fc2.weight"] = second[:, :, None, None]
    return tensors


def _fits(tensors: Tensors, fields: Fields) -> bool:
    """Whether the widths and norms of a file are those of a variant."""
    found = {name: re.match(r"features\.(\d+)\.", name) for name, tensor in tensors.items() if tensor.ndim == 4}
    kernels = {int(match[1]): tensors[name] for name, match in found.items() if match}
    norm_layer = "batchnorm" if "features.1.running_var" in tensors else None
    widths = tuple(entry for entry in fields["cfg"] if entry != "M")
    return (tuple(kernels[i].shape[0] for i in sorted(kernels)), norm_layer) == (widths, fields["norm_layer"])


def _taps(model: VGG) -> tuple[Tap, ...]:
    """The map before every max-pool, and the last one."""
    act, norm = pick(ACTIVATIONS, "act_layer", model.act_layer), int(model.norm_layer is not None)
    taps, index, channels, stride = [], -1, model.in_channels, 1  # of the layer before
    path, then = "", act
    for entry in model.cfg:
        if entry == "M":
            taps += [Tap(f"features.{index}", channels, stride, path, then)] if path else []
            index, stride, then = index + 1, 2 * stride, functools.partial(_pooled, then=then)
        else:
            path, then, index, channels = f"features_{index + 1 + norm}", act, index + 2 + norm, int(entry)
    return *taps, Tap(f"features.{index}", channels, stride, "features")


def _pooled(x: Array, *, then: Callable[[Array], Array]) -> Array:
    return max_pool(then(x), 2, 2)


FAMILY = Family(
    name="vgg",
    model=VGG,
    variants=VARIANTS,
    timm_modules=("vgg",),
    choices={
        "act_layer": tuple(ACTIVATIONS), "global_pool": tuple(GLOBAL_POOLS), "norm_layer": (None, *NORMS),
    },
    check=check_vgg,
    small=lambda fields: {
        "image_size": 32, "head_hidden_size": 32, "cfg": (8, "M", 8, "M", 16, "M", 16, 16, "M", 16, 16, "M"),
    },
    stem=r"features_0/",
    blocks=((r"features_(\d+)/", ()),),
    sharding=((r"\bpre_logits/fc1/bias$", ("tensor",)),),
    mark=r"^pre_logits\.fc1\.weight$",
    first_conv=("features.0",),
    classifiers={"head.fc": None},
    buffers=(r"\.num_batches_tracked$",),
    layouts=(Layout(r"^classifier\.[036]\.", TORCHVISION_VGG, _as_convolutions),),
    fits=_fits,
    taps=_taps,
    timm_args=("act_layer", "global_pool", "mlp_ratio"),
)  # fmt: skip
