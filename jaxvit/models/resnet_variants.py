"""timm's 81 entry points of `resnet.py` (1.0.31): name -> fields of `ResNet` that differ; and the family's record.

The image size is that of the entry's default weights. Sources: ResNet (He et al., 2016); c, d, s, t stems (He et al.,
2019, "Bag of tricks"); wide (Zagoruyko and Komodakis, 2016); ResNeXt (Xie et al., 2017); SE and SENet-154 (Hu et
al., 2018); ECA (Wang et al., 2020); blur (Zhang, 2019) and its averaging variant `aa`; group norm (Wu and He, 2018);
RS (Bello et al., 2021); pruned (Aflalo et al., 2020).
"""

from typing import Any

from jaxvit.models.conv_checks import check_resnet
from jaxvit.models.conv_layers import ANTI_ALIAS, NORMS
from jaxvit.models.family import Family, Fields, Tap, Tensors
from jaxvit.models.hf_model import Config, HfModel, wholes
from jaxvit.models.layers import REMAT_CHOICES
from jaxvit.models.layouts import Layout, Table
from jaxvit.models.resnet import ATTENTIONS, BLOCKS, STEMS, ResNet
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.pooling import GLOBAL_POOLS

# Blocks per stage.
_10 = {"block": "basic", "layers": (1, 1, 1, 1)}
_14 = {"layers": (1, 1, 1, 1)}
_18 = {"block": "basic", "layers": (2, 2, 2, 2)}
_26 = {"layers": (2, 2, 2, 2)}
_34 = {"block": "basic", "layers": (3, 4, 6, 3)}
_50 = {"layers": (3, 4, 6, 3)}
_101 = {"layers": (3, 4, 23, 3)}
_152 = {"layers": (3, 8, 36, 3)}
_200 = {"layers": (3, 24, 36, 3)}
_269 = {"layers": (3, 30, 48, 8)}

# Stems, and the averaged shortcut that goes with two of them.
_C = {"stem_type": "deep", "stem_width": 32}
_D = {**_C, "avg_down": True}
_S = {"stem_type": "deep", "stem_width": 64}
_T = {"stem_type": "deep_tiered", "stem_width": 32, "avg_down": True}

# Groups of the 3x3 convolution.
_32X4 = {"cardinality": 32, "base_width": 4}
_32X8 = {"cardinality": 32, "base_width": 8}
_64X4 = {"cardinality": 64, "base_width": 4}

_SE = {"attn_layer": "se"}
_ECA = {"attn_layer": "eca"}
_AA = {"aa_layer": "avg"}
_BLUR = {"aa_layer": "blur"}
_RS = {**_D, **_SE, "replace_stem_pool": True, "rd_ratio": 0.25}


def _px(image_size: int) -> dict[str, int]:
    return {"image_size": image_size}


# fmt: off
# Per stage: its width, then (conv1, conv2) of each bottleneck.
_PRUNED_50 = (
    (19, ((47, 18), (52, 22), (64, 35))),
    (171, ((85, 37), (107, 80), (120, 85), (125, 87))),
    (818, ((198, 126), (255, 232), (256, 233), (253, 235), (256, 225), (256, 239))),
    (2022, ((492, 237), (512, 500), (512, 490))),
)
_PRUNED_101 = (
    (26, ((45, 25), (53, 20), (60, 27))),
    (142, ((81, 24), (93, 49), (102, 54), (122, 78))),
    (278, ((101, 25), (239, 160), (234, 156), (250, 176), (253, 191), (251, 175), (230, 128), (244, 154),
        (244, 159), (238, 97), (244, 149), (253, 181), (245, 119), (255, 216), (256, 201), (253, 149),
        (254, 141), (256, 190), (256, 217), (255, 156), (256, 155), (256, 232), (256, 214))),
    (2042, ((499, 289), (512, 512), (512, 502))),
)

VARIANTS: dict[str, dict[str, Any]] = {
    "resnet10t": {**_10, **_T, **_px(176)},
    "resnet14t": {**_14, **_T, **_px(176)},
    "resnet18": {**_18},
    "resnet18d": {**_18, **_D},
    "resnet26": {**_26},
    "resnet26d": {**_26, **_D},
    "resnet26t": {**_26, **_T, **_px(256)},
    "resnet34": {**_34},
    "resnet34d": {**_34, **_D},
    "resnet50": {**_50},
    "resnet50_gn": {**_50, "norm_layer": "groupnorm"},
    "resnet50c": {**_50, **_C},
    "resnet50d": {**_50, **_D},
    "resnet50s": {**_50, **_S},
    "resnet50t": {**_50, **_T},
    "resnet101": {**_101},
    "resnet101c": {**_101, **_C},
    "resnet101d": {**_101, **_D, **_px(256)},
    "resnet101s": {**_101, **_S},
    "resnet152": {**_152},
    "resnet152c": {**_152, **_C},
    "resnet152d": {**_152, **_D, **_px(256)},
    "resnet152s": {**_152, **_S},
    "resnet200": {**_200},
    "resnet200d": {**_200, **_D, **_px(256)},
    "wide_resnet50_2": {**_50, "base_width": 128},
    "wide_resnet101_2": {**_101, "base_width": 128},
    "resnext50_32x4d": {**_50, **_32X4},
    "resnext50d_32x4d": {**_50, **_D, **_32X4},
    "resnext101_32x4d": {**_101, **_32X4},
    "resnext101_32x8d": {**_101, **_32X8},
    "resnext101_32x16d": {**_101, "cardinality": 32, "base_width": 16},
    "resnext101_32x32d": {**_101, "cardinality": 32, "base_width": 32},
    "resnext101_64x4d": {**_101, **_64X4},
    "seresnet18": {**_18, **_SE},
    "seresnet34": {**_34, **_SE},
    "seresnet50": {**_50, **_SE},
    "seresnet50t": {**_50, **_T, **_SE},
    "seresnet101": {**_101, **_SE},
    "seresnet152": {**_152, **_SE},
    "seresnet152d": {**_152, **_D, **_SE, **_px(256)},
    "seresnet200d": {**_200, **_D, **_SE, **_px(256)},
    "seresnet269d": {**_269, **_D, **_SE, **_px(256)},
    "seresnext26d_32x4d": {**_26, **_D, **_32X4, **_SE},
    "seresnext26t_32x4d": {**_26, **_T, **_32X4, **_SE},
    "seresnext50_32x4d": {**_50, **_32X4, **_SE},
    "seresnext101_32x4d": {**_101, **_32X4, **_SE},
    "seresnext101_32x8d": {**_101, **_32X8, **_SE},
    "seresnext101d_32x8d": {**_101, **_D, **_32X8, **_SE},
    "seresnext101_64x4d": {**_101, **_64X4, **_SE},
    "senet154": {**_152, **_S, **_64X4, **_SE, "down_kernel_size": 3, "block_reduce_first": 2},
    "ecaresnet26t": {**_26, **_T, **_ECA, **_px(256)},
    "ecaresnet50d": {**_50, **_D, **_ECA},
    "ecaresnet50d_pruned": {**_50, **_D, **_ECA, "pruned": _PRUNED_50},
    "ecaresnet50t": {**_50, **_T, **_ECA, **_px(256)},
    "ecaresnet101d": {**_101, **_D, **_ECA},
    "ecaresnet101d_pruned": {**_101, **_D, **_ECA, "pruned": _PRUNED_101},
    "ecaresnet200d": {**_200, **_D, **_ECA, **_px(256)},
    "ecaresnet269d": {**_269, **_D, **_ECA, **_px(320)},
    "ecaresnetlight": {"layers": (1, 1, 11, 3), "avg_down": True, **_ECA},
    "ecaresnext26t_32x4d": {**_26, **_T, **_32X4, **_ECA},
    "ecaresnext50t_32x4d": {**_50, **_T, **_32X4, **_ECA},
    "resnetblur18": {**_18, **_BLUR},
    "resnetblur50": {**_50, **_BLUR},
    "resnetblur50d": {**_50, **_D, **_BLUR},
    "resnetblur101d": {**_101, **_D, **_BLUR},
    "resnetaa34d": {**_34, **_D, **_AA},
    "resnetaa50": {**_50, **_AA},
    "resnetaa50d": {**_50, **_D, **_AA},
    "resnetaa101d": {**_101, **_D, **_AA},
    "seresnetaa50d": {**_50, **_D, **_AA, **_SE},
    "seresnextaa101d_32x8d": {**_101, **_D, **_32X8, **_AA, **_SE, **_px(288)},
    "seresnextaa201d_32x8d": {
        "layers": (3, 24, 36, 4), **_S, "avg_down": True, **_32X8, **_AA, **_SE, **_px(384),
    },
    "resnetrs50": {**_50, **_RS, **_px(160)},
    "resnetrs101": {**_101, **_RS, **_px(192)},
    "resnetrs152": {**_152, **_RS, **_px(256)},
    "resnetrs200": {**_200, **_RS, **_px(256)},
    "resnetrs270": {"layers": (4, 29, 53, 4), **_RS, **_px(256)},
    "resnetrs350": {"layers": (4, 36, 72, 4), **_RS, **_px(288)},
    "resnetrs420": {"layers": (4, 44, 87, 4), **_RS, **_px(320)},
    "test_resnet": {
        "block": ("basic", "basic", "bottleneck", "basic"), "layers": (1, 1, 1, 1), "channels": (32, 48, 48, 96),
        "stem_type": "deep", "stem_width": 16, "avg_down": True, **_px(160),
    },
}
# fmt: on


# Transformers' names.
HF_RESNET: Table = (
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    *((rf"^encoder\.stages\.{i}\.layers\.", f"layer{i + 1}.") for i in range(4)),
    (r"^classifier\.1\.", "fc."),
)


def _fits(tensors: Tensors, fields: Fields) -> bool:
    """Whether a file shows a variant's kind of blocks, of attention and of stem."""
    block = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
    attn = "eca" if "layer1.0.se.conv.weight" in tensors else "se" if "layer1.0.se.fc1.weight" in tensors else None
    stem = "conv1.0.weight" in tensors or fields["stem_type"] == ""
    return stem and (fields["block"], fields["attn_layer"]) == (block, attn)


def _taps(model: ResNet) -> tuple[Tap, ...]:
    """The stem before its pooling, and the output of every stage."""
    whole = model.stem == "cifar"  # the stem keeps the resolution
    stem = Tap("act1", model.stem_widths()[model.stem_type][1], 1 if whole else 2, "bn1", model.act)
    return stem, *(
        Tap(
            f"layer{i + 1}",
            model.block_widths(i, depth - 1)[-1],
            (1 if whole else 4) * 2**i,
            f"layer{i + 1}_{depth - 1}",
        )
        for i, depth in enumerate(model.layers)
    )


def _transformers(config: Config) -> dict[str, Any]:
    block = config.get("layer_type", "bottleneck")
    widths = wholes(config, "hidden_sizes", [256, 512, 1024, 2048])
    widths = [width // 4 if block == "bottleneck" else width for width in widths]
    return {"block": block, "layers": config.get("depths", [3, 4, 6, 3]), "channels": widths}


FAMILY = Family(
    name="resnet",
    model=ResNet,
    variants=VARIANTS,
    timm_modules=("resnet",),
    choices={
        "act_layer": tuple(ACTIVATIONS),
        "global_pool": tuple(GLOBAL_POOLS),
        "remat": REMAT_CHOICES,
        "block": tuple(BLOCKS),
        "stem": tuple(STEMS),
        "stem_type": ("", "deep", "deep_tiered"),
        "norm_layer": tuple(NORMS),
        "aa_layer": (None, *ANTI_ALIAS),
        "attn_layer": tuple(ATTENTIONS),
    },
    check=check_resnet,
    depth_field="layers",
    small=lambda fields: {"image_size": 16, "stem": "cifar", "channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)},
    stem=r"conv1|bn1|maxpool",  # resnetrs halves by a convolution named maxpool_0
    blocks=((r"layer(\d+)_(\d+)/", ()),),
    stages=True,
    mark=r"^layer1\.0\.conv1\.weight$",
    first_conv=("conv1", "conv1.0"),
    classifiers={"fc": "head_hidden"},
    buffers=(r"\.num_batches_tracked$",),
    layouts=(Layout(r"embedder\.embedder\.convolution\.weight$", HF_RESNET, transformers=True),),
    fits=_fits,
    cifar_stem=("conv1", "maxpool"),
    taps=_taps,
    branch_ends=r"bn3\.weight$",
    transformers={"resnet": HfModel("resnet50", _transformers, image_size=None)},
    transformers_only={"downsample_in_bottleneck": False, "downsample_in_first_stage": False, "hidden_act": "relu"},
    timm_args=(
        "layers",
        "global_pool",
        "stem_type",
        "stem_width",
        "replace_stem_pool",
        "channels",
        "cardinality",
        "base_width",
        "block_reduce_first",
        "down_kernel_size",
        "avg_down",
        "act_layer",
        "aa_layer",
    ),  # fmt: skip
)
