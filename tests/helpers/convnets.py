"""Helpers of the tests of convolutional networks: cheap variables, and comparison with timm and torchvision."""

import functools

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

AXES = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}  # torch puts the output channels first, Flax last


def images_of(h=16, w=16, batch=3, channels=3):
    return np.random.default_rng(0).normal(size=(batch, h, w, channels)).astype(np.float32)


def draw(module, *args):
    """Variables of realistic scale, without the cost of `init` (which also zeroes the residual branches)."""
    rng = np.random.default_rng(1)

    def leaf(path, x):
        name = path[-1].key
        noise = rng.normal(size=x.shape) / np.sqrt(max(np.prod(x.shape[:-1]), 1))
        return np.float32({"scale": 1 + 0.1 * noise, "var": 1 + 0.1 * np.abs(noise)}.get(name, noise))

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(module.init, jax.random.key(0), *args))


def apply(module, variables, *args, **kwargs):
    return jax.jit(functools.partial(module.apply, **kwargs))(variables, *args)


def visit(model, images, see):
    """Calls see(module, output shape) for every direct submodule while the model is traced."""

    def record(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name == "__call__" and len(context.module.path) == 1:
            see(context.module, y.shape)
        return y

    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), images)


def outputs_of(model, images):
    """Shapes of what each direct submodule returns, by name."""
    shapes = {}
    visit(model, images, lambda module, shape: shapes.update({module.path[0]: shape}))
    return shapes


def randomise(model):
    """Draws every tensor of a torch model at a realistic scale."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for name, x in model.state_dict().items():  # not the fixed filters of the blur
        noise = torch.randn(x.shape, generator=generator)
        with torch.no_grad():
            if name.endswith("running_var"):
                x.copy_(0.5 + noise.abs())
            elif x.ndim == 1:
                x.copy_(0.1 * noise + name.endswith("weight"))
            elif x.ndim > 1:
                x.copy_(noise / np.sqrt(np.prod(x.shape[1:])))
    return model


def to_variables(model):
    """The generic renaming: a number joins the name before it, weights become kernels or scales."""
    variables = {}
    for name, x in model.state_dict().items():
        path = []
        for part in name.split("."):
            path = [*path[:-1], f"{path[-1]}_{part}"] if part.isdigit() else [*path, part]
        leaf = path.pop()
        if leaf.startswith("running_"):
            variables["batch_stats", *path, leaf.removeprefix("running_")] = x.numpy().copy()
        elif leaf == "weight":
            kernel = x.numpy().transpose(AXES.get(x.ndim)).copy()
            variables["params", *path, "scale" if x.ndim == 1 else "kernel"] = kernel
        elif leaf != "num_batches_tracked":
            variables["params", *path, leaf] = x.numpy().copy()
    return flax.traverse_util.unflatten_dict(variables)


def assert_parity(model, reference, *, size=(64, 64), train=False):
    """Asserts equal variables (names and shapes) and logits of a Flax model and a torch model."""
    import torch

    variables = to_variables(randomise(reference.train(train)))
    images = np.random.default_rng(0).normal(size=(3, *size, 3)).astype(np.float32)

    def shapes(tree):
        return {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(tree)}

    expected = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(images))
    assert shapes(variables) == shapes(expected)
    with torch.no_grad():
        want = reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    mutable = ["batch_stats"] if train else False
    got = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=mutable))(variables, images)
    got = np.asarray(got[0] if train else got)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * max(1.0, np.abs(want).max()))
    np.testing.assert_array_equal(got.argmax(-1), want.argmax(-1))
