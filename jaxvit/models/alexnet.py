"""AlexNet in its one-tower form (Krizhevsky, 2014, "One weird trick"), laid out as torchvision has it."""

import functools

import flax.linen as nn
import jax

from jaxvit.models.conv_layers import FeatureMap, check_images, conv, linear, torch_bias
from jaxvit.models.family import Family, Tap
from jaxvit.models.layers import Array, Dtype, Size, torch_uniform
from jaxvit.ops.pooling import adaptive_avg_pool, max_pool
from jaxvit.precision import at_least_float32

# index in torchvision's `features`, channels, kernel size, stride, padding, whether a 3x3 max-pool follows
CONVOLUTIONS = (
    (0, 64, 11, 4, 2, True),
    (3, 192, 5, 1, 2, True),
    (6, 384, 3, 1, 1, False),
    (8, 256, 3, 1, 1, False),
    (10, 256, 3, 1, 1, True),
)


class AlexNet(nn.Module):
    """images [b, h, w, in_channels], 63 pixels at least -> float32 logits [b, num_classes].

    With num_classes=0 the result is the last hidden layer, [b, head_hidden_size]. The 6x6 map is flattened channel
    by channel, in torchvision's order, so that the kernel of `classifier_1` is the plain transpose of its weight.
    """

    num_classes: int = 1000
    in_channels: int = 3
    image_size: Size = 224
    head_hidden_size: int = 4096
    drop_rate: float = 0.5
    dtype: Dtype = None
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        check_images(images, in_channels=self.in_channels, least=63, family="AlexNet")
        x = images
        for entry in CONVOLUTIONS:
            run = functools.partial(AlexNet._convolution, entry=entry)
            x = nn.remat(run)(self, x) if self.remat else run(self, x)
        x = FeatureMap(name="features")(x)
        x = adaptive_avg_pool(x, 6, 6).transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # [b, c * 6 * 6]
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        x = jax.nn.relu(linear(x, self.head_hidden_size, name="classifier_1", dtype=self.dtype))
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        x = jax.nn.relu(linear(x, self.head_hidden_size, name="classifier_4", dtype=self.dtype))
        if self.num_classes:
            x = linear(x, self.num_classes, name="classifier_6", dtype=self.dtype)
        return at_least_float32(x)

    def _convolution(self, x: Array, *, entry: tuple[int, int, int, int, int, bool]) -> Array:
        index, features, size, stride, padding, pool = entry
        fan_in = size * size * x.shape[-1]
        x = conv(
            features,
            size,
            name=f"features_{index}",
            stride=stride,
            padding=padding,
            use_bias=True,
            kernel_init=torch_uniform,
            bias_init=torch_bias(fan_in),
            dtype=self.dtype,
        )(x)
        x = jax.nn.relu(x)
        return max_pool(x, 3, 2) if pool else x


# The map before every max-pool, and the last one; modules are torchvision's.
TAPS = (
    Tap("features.1", 64, 4, "features_0", jax.nn.relu),
    Tap("features.4", 192, 8, "features_3", jax.nn.relu),
    Tap("features.11", 256, 16, "features_10", jax.nn.relu),
    Tap("features.12", 256, 32, "features"),
)

FAMILY = Family(
    name="alexnet",
    model=AlexNet,
    variants={"alexnet": {}},
    small=lambda fields: {"image_size": 64, "head_hidden_size": 32},
    stem=r"features_0/",
    blocks=((r"features_(\d+)/", ()),),
    mark=r"^classifier\.1\.weight$",
    first_conv=("features.0",),
    classifiers={"classifier.6": None},
    taps=lambda model: TAPS,
)
