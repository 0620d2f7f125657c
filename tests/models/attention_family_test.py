"""A family of tokens and one of windows that no module of the package knows: fine-tuning, heat maps, rollout."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit import explain, models, optim, pretrained, tree
from jaxvit.bench import report as bench_report
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.family import Family
from jaxvit.models.windows import relative_position_index
from jaxvit.ops.window_attention import window_partition, window_reverse
from jaxvit.pretrained import adapt, draw, identify, rules
from jaxvit.runtime import sharding


def attend(module, x, num_heads, bias=None):
    """Attention of each head by the formula, [b, ..., n, d] -> [b, ..., n, d]; its weights are sown."""
    qkv = nn.Dense(3 * x.shape[-1], name="ask")(x).reshape(*x.shape[:-1], 3, num_heads, -1)
    q, k, v = (qkv[..., i, :, :] for i in range(3))
    logits = jnp.einsum("...qhd,...khd->...hqk", q, k) / np.sqrt(q.shape[-1])
    weights = jax.nn.softmax(logits if bias is None else logits + bias)
    module.sow("intermediates", "attn_weights", weights)
    return nn.Dense(x.shape[-1], name="tell")(jnp.einsum("...hqk,...khd->...qhd", weights, v).reshape(x.shape))


class Room(nn.Module):
    """A block of attention alone."""

    num_heads: int

    @nn.compact
    def __call__(self, x):
        return x + attend(self, nn.LayerNorm(name="calm")(x), self.num_heads)


class Floor(nn.Module):
    """A stage of such blocks."""

    depth: int
    num_heads: int

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = Room(self.num_heads, name=f"rooms_{i}")(x)
        return x


class Tokens(nn.Module):
    """Patches behind two further tokens, of which the classifier reads the second: images [b, h, w, c] -> logits."""

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 32
    in_channels: int = 3
    patch_size: int = 8
    width: int = 16
    depths: tuple[int, ...] = (1, 2)
    num_heads: int = 2
    global_pool: str = "token"
    drop_rate: float = 0.0
    dtype: object = None
    remat: bool = False
    num_prefix_tokens = 2
    no_embed_class = True  # the table has rows for patches alone

    @property
    def grid_size(self):
        h, w = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return h // self.patch_size, w // self.patch_size

    @nn.compact
    def __call__(self, images, *, train=False):
        p, (gh, gw) = self.patch_size, self.grid_size
        x = nn.Conv(self.width, (p, p), p, name="cut")(images).reshape(len(images), gh * gw, self.width)
        x = x + self.param("places", nn.initializers.normal(0.02), (1, gh * gw, self.width))
        guides = self.param("guides", nn.initializers.normal(0.02), (1, 2, self.width))
        x = jnp.concatenate([jnp.broadcast_to(guides, (len(x), 2, self.width)), x], axis=1)
        for i, depth in enumerate(self.depths):
            x = Floor(depth, self.num_heads, name=f"floors_{i}")(x)
        x = nn.Dense(self.width, name="gather")(x[:, 2:].mean(1)) if self.global_pool == "gather" else x[:, 1]
        return nn.Dense(self.num_classes, name="answer")(x) if self.num_classes else x


class Pane(nn.Module):
    """Attention within windows of a map [b, h, w, d], every second block shifted; nothing is masked."""

    num_heads: int
    window: tuple[int, int]
    shift: int

    @nn.compact
    def __call__(self, x):
        _, h, w, _ = x.shape
        n = self.window[0] * self.window[1]
        table = self.param("compass", nn.initializers.zeros, ((2 * self.window[0] - 1) ** 2, self.num_heads))
        bias = table[relative_position_index(self.window).reshape(-1)].reshape(n, n, -1).transpose(2, 0, 1)
        x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
        y = attend(self, window_partition(x, self.window), self.num_heads, bias[None, None])
        return jnp.roll(x + window_reverse(y, self.window, (h, w)), (self.shift, self.shift), (1, 2))


class Windows(nn.Module):
    """Two blocks of windows on one map of patches: images [b, h, w, c] -> logits."""

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 32
    in_channels: int = 3
    patch_size: int = 4
    width: int = 16
    depths: tuple[int, ...] = (2,)
    num_heads: int = 2
    window_size: int = 4
    dtype: object = None
    remat: bool = False

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(self.width, (self.patch_size,) * 2, self.patch_size, name="glass")(images)
        for i in range(self.depths[0]):
            window = (self.window_size,) * 2
            x = Pane(self.num_heads, window, i % 2 * (self.window_size // 2), name=f"sides_0_panes_{i}")(x)
        x = jnp.mean(x, (1, 2))
        return nn.Dense(self.num_classes, name="answer")(x) if self.num_classes else x


TOKENS = Family(
    name="toy_tokens",
    model=Tokens,
    variants={
        "toy_tokens": {},
        "toy_tokens_gather": {"global_pool": "gather"},
        "toy_tokens_linear": {},
        "toy_tokens_tall": {"depths": (1, 3)},
    },
    depth_field="depths",
    small=lambda fields: {"width": 8},
    stem=r"cut/|places|guides",
    blocks=((r"floors_(\d+)/rooms_(\d+)/", ()),),
    stages=True,
    sharding=((r"ask/kernel$", ("fsdp", "tensor")), (r"tell/kernel$", ("tensor", "fsdp"))),
    mark=r"^floors\.0\.rooms\.0\.calm\.weight$",
    first_conv=("cut",),
    classifiers={"answer": None},
    fits=lambda tensors, fields: (fields["global_pool"] == "gather") == ("gather.weight" in tensors),
    position_table="places",
    optional=((r"_gather$", "gather"),),
    resampling=((r"_linear$", "bilinear"),),
    takes_image_size=True,
    default_layer="floors_1",
    attention="tokens",
    attention_runs=lambda model, train: "dropped" if train and model.drop_rate else "formula",
    tokens_read=lambda model: slice(1, 2),
)
WINDOWS = Family(
    name="toy_windows",
    model=Windows,
    variants={"toy_windows": {}},
    depth_field="depths",
    small=lambda fields: {"width": 8},
    stem=r"glass/",
    blocks=((r"sides_(\d+)_panes_(\d+)/", ()),),
    mark=r"^sides_0_panes\.0\.compass$",
    first_conv=("glass",),
    classifiers={"answer": None},
    window_tables=r"^sides_(\d+)_panes\.\d+\.compass$",
    takes_image_size=True,
    attention="windows",
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "toy_tokens", TOKENS)
    monkeypatch.setitem(registry.FAMILIES, "toy_windows", WINDOWS)


def loaded(name="toy_tokens", **fields):
    """A model and weights of realistic scale, as a file of it would hold them."""
    model = models.create_model(name, **{"num_classes": 5, **fields})
    tensors = draw.state_dict({rule.name: rule.shape for rule in rules.rules_of(model)})
    return model, tensors


def pictures(count=2, size=32):
    return draw.images("toy", count, size, size)


def test_its_blocks_have_stages_layers_and_places():
    model, _ = loaded("toy_tokens_tall")
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    mask = tree.named_leaves(optim.freeze_mask(params, "early"))  # both floors, whatever their depth
    assert {path.split("/")[0] for path, trains in mask.items() if trains} == {"cut", "places", "guides", "answer"}
    assert optim.layer_ids(params)["floors_0/rooms_0/ask/kernel"] == 1
    assert optim.layer_ids(params)["floors_1/rooms_2/tell/kernel"] == 4
    mesh = sharding.make_mesh(8, fsdp=2, tensor=2)
    places = sharding.state_shardings(params, mesh, registry.sharding_rules(tree.named_leaves(params)))
    assert {p.split("/")[-2] for p, s in tree.named_leaves(places).items() if "tensor" in s.spec} <= {"ask", "tell"}


@pytest.mark.parametrize(
    ("name", "method"), [("toy_tokens", ("cubic", True)), ("toy_tokens_linear", ("linear", False))]
)
def test_its_position_table_is_resampled_for_other_images(tmp_path, name, method):
    _, theirs = loaded(name)
    save_file(theirs, tmp_path / "model.safetensors")
    ours = pretrained.load(name, tmp_path / "model.safetensors", image_size=(48, 32), num_classes=3)
    assert ours.model.grid_size == (6, 4)
    expected = jax.image.resize(theirs["places"].reshape(4, 4, 16), (6, 4, 16), method[0], antialias=method[1])
    np.testing.assert_allclose(ours.variables["params"]["places"][0], expected.reshape(24, 16), atol=1e-5)
    assert ours.model.apply(ours.variables, jnp.ones((1, 48, 32, 3))).shape == (1, 3)


def test_a_module_that_a_pool_leaves_out_is_not_loaded(tmp_path):
    _, theirs = loaded("toy_tokens_gather")
    save_file(theirs, tmp_path / "model.safetensors")
    assert identify.identify(theirs) == ["toy_tokens_gather"]
    assert identify.identify(loaded("toy_tokens_tall")[1]) == ["toy_tokens_tall"]
    ours = pretrained.load("toy_tokens_gather", tmp_path / "model.safetensors", global_pool="token")
    assert "gather" not in ours.variables["params"]
    assert ours.notes == ("global_pool='token': gather is not loaded",)


def test_rollout_follows_attention_to_the_token_that_the_classifier_reads():
    model, theirs = loaded()
    variables, images = pretrained.convert(model, theirs), pictures()
    joint = np.eye(18)
    for weights in explain.attention_weights(model, variables, images):
        joint = (np.asarray(weights, np.float64).mean(1) + np.eye(18)) / 2 @ joint
    expected = joint[:, 1, 2:].reshape(2, 4, 4)
    expected = (expected - expected.min((1, 2), keepdims=True)) / np.ptp(expected, (1, 2), keepdims=True)
    found = np.asarray(explain.attention_rollout(model, variables, images))
    centres = found[:, 4::8, 4::8]  # of patches of eight pixels; between them the map is interpolated
    assert np.corrcoef(centres.ravel(), expected.ravel())[0, 1] > 0.99
    assert len(explain.attention_distance(model, variables, images)) == 3
    assert explain.default_layer(model) == "floors_1"
    assert "floors_0/rooms_0" in explain.layers(model)
    assert np.asarray(explain.grad_cam(model, variables, images, 1)).shape == (2, 32, 32)


def test_the_bench_says_which_attention_runs():
    model, _ = loaded(drop_rate=0.1)
    assert bench_report.implementation(model, train=True) == {"attention": "dropped"}
    assert bench_report.implementation(model, train=False) == {"attention": "formula"}
    assert bench_report.implementation(loaded("toy_windows")[0], train=False) == {}


def test_windows_of_any_family_are_laid_on_the_image():
    model, theirs = loaded("toy_windows")
    theirs = {name: np.zeros_like(t) if "ask" in name or "compass" in name else t for name, t in theirs.items()}
    variables, images = pretrained.convert(model, theirs), pictures()
    y, x = (a.reshape(-1) * 4.0 for a in np.mgrid[:4, :4])
    mean = np.hypot(y[:, None] - y, x[:, None] - x).mean()  # of all pairs in a window, which get the same attention
    for heads in explain.attention_distance(model, variables, images):
        np.testing.assert_allclose(heads, [mean, mean], rtol=1e-5)
    assert np.asarray(explain.attention_maps(model, variables, images)).shape == (2, 2, 32, 32)
    with pytest.raises(UserError, match=r"Windows has no such attention; expected .*Tokens"):
        explain.attention_rollout(model, variables, images)


def test_its_window_tables_are_resized(tmp_path):
    _, theirs = loaded("toy_windows")
    theirs["sides_0_panes.1.compass"] = np.full((49, 2), 0.5, np.float32)
    save_file(theirs, tmp_path / "model.safetensors")
    ours = pretrained.load("toy_windows", tmp_path / "model.safetensors", window_size=2, image_size=16)
    assert ours.notes == ("window_size: relative position tables resized in stage 0: 4x4 to 2x2",)
    assert adapt.stage_windows_of(ours.model) == [(2, 2)]
    first, second = (ours.variables["params"][f"sides_0_panes_{i}"]["compass"] for i in (0, 1))
    np.testing.assert_allclose(second, np.full((9, 2), 0.5), rtol=1e-6)
    np.testing.assert_allclose(first[4], theirs["sides_0_panes.0.compass"][24], rtol=1e-5)  # a token's own place
