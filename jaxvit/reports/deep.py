"""Looks into the models of a report: features of test images, layers side by side, filters, positions, biases."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.reports import figures, numbers, words
from jaxvit.reports.blocks import Block, Figure, Picture, Pictures, Text
from jaxvit.reports.pictures import prepared, to_png
from jaxvit.reports.runs import RunFiles

MOST = 1500  # test images for the scatter plots
LAYERS_OF = 256  # test images to compare layers on
MOST_LAYERS = 20
CELLS = 8  # maps are averaged down to this many cells per side before layers are compared
BATCH = 64
TILE = 24  # pixels of a small picture in a sheet, at least
MARKERS = "o^sDvPX*<>"


@dataclasses.dataclass(frozen=True)
class TestImages:
    """Test images of a run's data set: evenly spaced ones, with their labels and their index."""

    image: np.ndarray  # uint8 [n, h, w, c]
    label: np.ndarray
    index: np.ndarray
    train: Any = None  # the training split beside them, a `data.Split`,
    path: Path | None = None  # of the run in this directory

    @property
    def by_index(self) -> dict[int, np.ndarray]:
        """The images by their index."""
        return dict(zip(self.index.tolist(), self.image, strict=True))


def test_images(run: RunFiles) -> TestImages | str:
    """Reads the test split of a run's data set; a sentence that says why not where it cannot be read."""
    from jaxvit import config as config_lib
    from jaxvit import plugins
    from jaxvit.build import parts
    from jaxvit.workdir import run_files

    try:
        config = config_lib.from_mapping(run_files.read_json(run.path / "config.json"))
        plugins.use_recorded(config.imports, run.path)
        dataset = parts.load_data(config, class_names=run.class_names)
        split = dataset.test
        feed = parts.make_feed(config, split)
        if not _are_of_run(split, run):
            return "the current test images are not those of the run"
    except (UserError, OSError, ImportError, ValueError) as error:
        return (str(error).splitlines() or ["the data set cannot be read"])[0]
    chosen = np.unique(np.linspace(0, len(split) - 1, min(MOST, len(split))).astype(int))
    if run.index is not None and run.labels is not None and not run.several:  # the mistakes are what one wants to see
        wrong = run.index[numbers.confident_mistakes(numbers.softmax(run.logits), run.labels, 100)]  # type: ignore[arg-type]
        chosen = np.union1d(chosen, np.flatnonzero(np.isin(split.index, wrong)))
    images = [np.asarray(batch["image"]) for batch in feed.batches(chosen, min(BATCH, len(chosen)), pad=True)]
    found = np.concatenate(images)[: len(chosen)]
    return TestImages(found, split.labels[chosen], split.index[chosen], dataset.train, run.path)


def _are_of_run(split: Any, run: RunFiles) -> bool:
    """Whether the images that a run was tested on stand where they stood; a photo that came or went moves others."""
    if run.index is None:
        return True
    position = {int(index): i for i, index in enumerate(split.index)}
    places = [position.get(int(index), -1) for index in run.index]
    if -1 in places or not np.array_equal(split.labels[places], run.labels):  # type: ignore[arg-type]
        return False
    return run.names is None or np.array_equal(split.image_names(places), run.names)


def blocks(runs: Sequence[RunFiles], classifiers: dict[str, Any], images: TestImages | str) -> list[Block]:
    """All that can be shown of the runs whose checkpoints can be read."""
    from jaxvit import inference

    usable: list[tuple[RunFiles, Any]] = []
    out: list[Block] = []
    for run in runs:
        try:
            found = classifiers.get(run.label) or inference.from_run(run.path)
            if isinstance(found, UserError):
                raise found
            usable.append((run, found))
        except UserError as error:
            out.append(Text(f"{run.label}: its model cannot be read, because {str(error).splitlines()[0]}", "note"))
    if isinstance(images, str):
        out.append(Text(f"Without test images there are no features and no comparison of layers: {images}", "note"))
    else:
        for run, classifier in usable:  # a point has one colour, so one class
            out += [] if run.several else scatter(run, classifier, images)
        if usable:
            out += layer_similarity(usable, images)
    for run, classifier in usable:
        out += filters(run, classifier) + positions(run, classifier) + biases(run, classifier)
    return out


def _batches(classifier: Any, apply: Any, images: np.ndarray) -> Any:
    """What `apply(variables, images)` gives for all images, batches of one size put together."""
    import jax

    from jaxvit.inference import filled

    parts = []
    for i in range(0, len(images), BATCH):
        chunk = images[i : i + BATCH]
        x = prepared(classifier, filled(chunk, BATCH))[0]
        parts.append(jax.tree.map(lambda v, chunk=chunk: np.asarray(v)[: len(chunk)], apply(classifier.variables, x)))
    return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def features_of(classifier: Any, images: np.ndarray) -> np.ndarray:
    """What a classifier reads of images uint8 [n, h, w, c]: float32 [n, d]."""
    from jaxvit import explain

    return _batches(classifier, lambda variables, x: explain.features(classifier.model, variables, x), images)


def scatter(run: RunFiles, classifier: Any, images: TestImages) -> list[Block]:
    """Features before the classifier in two dimensions: PCA, and t-SNE (van der Maaten and Hinton, 2008)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = features_of(classifier, images.image)
    if len(features) < 10:
        return [Text(f"{run.label}: only {len(features)} test images, too few for a picture of their features.")]
    some = min(50, *features.shape)
    reduced = PCA(some, random_state=0).fit(features)
    x = reduced.transform(features)
    shares = reduced.explained_variance_ratio_
    near = TSNE(init="pca", perplexity=min(30, len(x) / 4), random_state=0).fit_transform(x)
    axes = (f"component 1 ({100 * shares[0]:.0f} % of the variance)", f"component 2 ({100 * shares[1]:.0f} %)")
    name = run.slug
    note = f"Features of {len(x):,} test images before the classifier, coloured by true class."
    return [
        Figure(
            f"pca_{name}", _points(run, x[:, :2], images.label, "PCA", axes), note, alt=f"PCA, run {run.label}. {note}"
        ),
        Figure(
            f"tsne_{name}",
            _points(run, near, images.label, "t-SNE", ("", "")),
            note + " Distances between groups are not meaningful.",
            alt=f"t-SNE, run {run.label}. {note}",
        ),
    ]


def _points(run: RunFiles, x: np.ndarray, labels: np.ndarray, what: str, axes: tuple[str, str]) -> str:
    k = len(run.class_names)

    def make(figure: Any) -> None:
        axis = figure.subplots()
        for c in range(k):
            of = labels == c
            colours = len(figures.COLOURS)
            look = {"color": figures.COLOURS[c % colours], "marker": MARKERS[c // colours % len(MARKERS)]}
            axis.scatter(*x[of].T, s=8, linewidths=0, alpha=0.85, rasterized=True, **look)
        if k <= 20:
            for c in range(k):
                if (labels == c).any():
                    centre = np.median(x[labels == c], axis=0)
                    box = {"boxstyle": "round,pad=0.15", "facecolor": "#ffffff", "alpha": 0.8, "edgecolor": "none"}
                    name = figures.shorten(run.class_names[c], 14)
                    axis.text(*centre, name, ha="center", va="center", fontsize=7.5, color="#000000", bbox=box)
        axis.set(xlabel=axes[0], ylabel=axes[1], title=f"{figures.shorten(run.label, 26)}: {what}")
        if not axes[0]:
            axis.set(xticks=[], yticks=[])
        axis.grid(False)

    return figures.draw(make, (figures.PANEL[0], 3.9))


def _chosen_layers(model: Any) -> list[str]:
    """Blocks rather than their parts: the names with the fewest slashes that are at least four."""
    from jaxvit import explain
    from jaxvit.models.registry import find_family

    names, family = explain.layers(model), find_family(model)
    nested = [p for p, extra in family.blocks if "/" in p.rstrip("/") and not extra] if family else []
    for depth in range(1 if nested else 0, 4):
        few = [name for name in names if name.count("/") <= depth]
        if len(few) >= 4:
            break
    for pattern in nested:  # blocks within stages, which repeat their last block
        few = [name for name in few if re.match(pattern, name) or not re.match(pattern.split("/")[0], name)]
    keep = np.unique(np.linspace(0, len(few) - 1, min(len(few), MOST_LAYERS)).astype(int))
    return [few[i] for i in keep]


def _layer_outputs(classifier: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Each chosen layer's output, [n, features], maps averaged to at most CELLS x CELLS cells."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from jaxvit.explain import taps

    model = taps.plain(classifier.model)
    names = _chosen_layers(model)

    def apply(variables: Any, x: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            y = call(*args, **kwargs)
            name = "/".join(context.module.path)
            if context.method_name == "__call__" and name in names:
                seen[name] = _cells(taps.to_map(model, y, x.shape[1:3]))
            return y

        with nn.intercept_methods(record):
            model.apply(variables, x)
        return {f"{i:03}": seen[name] for i, name in enumerate(names)}

    def _cells(y: Any) -> Any:
        b, h, w, c = y.shape
        if max(h, w) > CELLS:
            y = jax.image.resize(y, (b, min(h, CELLS), min(w, CELLS), c), "linear", antialias=True)
        return jnp.reshape(y, (b, -1))

    values = _batches(classifier, jax.jit(apply), images)
    return dict(zip(names, values.values(), strict=True))


def layer_similarity(usable: Sequence[tuple[RunFiles, Any]], images: TestImages) -> list[Block]:
    """Linear CKA between the layers of the first run and of each other one; of one run with itself."""
    some = images.image[np.unique(np.linspace(0, len(images.image) - 1, LAYERS_OF).astype(int))]
    (first, classifier), others = usable[0], list(usable[1:]) or [usable[0]]
    base = _layer_outputs(classifier, some)
    out: list[Block] = []
    for run, other in others:
        layers = base if run is first else _layer_outputs(other, some)
        values = np.array([[numbers.linear_cka(x, y) for y in layers.values()] for x in base.values()])
        svg = _heat(values, list(base), list(layers), first.label, run.label)
        caption = (
            f"Linear CKA (Kornblith et al., 2019) between layers over {len(some)} test images: 1 means the same "
            f"information. Maps are averaged to at most {CELLS}×{CELLS} cells."
        )
        name = f"{first.slug}_{run.slug}"
        alt = words.similarity(first.label, run.label, list(base), list(layers), values)
        out.append(Figure(f"cka_{name}", svg, caption, alt=alt))
    return out


def _heat(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], below: str, beside: str) -> str:
    def make(figure: Any) -> None:
        axis = figure.subplots()
        image = axis.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="none", aspect="auto")
        axis.set_xticks(range(len(columns)), [figures.shorten(c, 18) for c in columns], rotation=90, fontsize=6.5)
        axis.set_yticks(range(len(rows)), [figures.shorten(r, 18) for r in rows], fontsize=6.5)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set(xlabel=figures.shorten(beside, 40), ylabel=figures.shorten(below, 30), title="Linear CKA of layers")
        figure.colorbar(image, ax=axis, shrink=0.8).outline.set_visible(False)

    return figures.draw(make, (figures.PANEL[0] + 0.6, 4.4))


def _params(classifier: Any) -> dict[str, np.ndarray]:
    from flax.traverse_util import flatten_dict

    return {"/".join(k): np.asarray(v) for k, v in flatten_dict(classifier.variables["params"]).items()}


def _unit(values: np.ndarray) -> np.ndarray:
    """Each picture of [n, ...] stretched to 0-255."""
    axes = tuple(range(1, values.ndim))
    low, high = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    return np.round(255 * (values - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)


def _tiles(pictures: np.ndarray, across: int, gap: int = 2) -> np.ndarray:
    """Pictures [n, h, w, 3] in one [h, w, 4], `across` in a row, with clear lines between."""
    factor = max(1, -(-TILE // max(pictures.shape[1:3])))
    pictures = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    n, h, w, _ = pictures.shape
    down = -(-n // across)
    sheet = np.full((down * (h + gap) - gap, across * (w + gap) - gap, 4), (255, 255, 255, 0), np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // across * (h + gap), i % across * (w + gap)
        sheet[y : y + h, x : x + w, :3] = picture
        sheet[y : y + h, x : x + w, 3] = 255
    return sheet


def _coloured(values: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    return np.round(255 * colormaps["viridis"](values)[..., :3]).astype(np.uint8)


def filters(run: RunFiles, classifier: Any) -> list[Block]:
    """The first layer: principal components of patch filters (Dosovitskiy et al., 2021, figure 7), or all filters."""
    from jaxvit.models.layers import to_pair
    from jaxvit.models.names import module_path
    from jaxvit.models.registry import find_family

    params, family = _params(classifier), find_family(classifier.model)
    first = (
        [f"{module_path(name)}/kernel" for name in family.first_conv]
        if family
        else [n for n in params if n.endswith("kernel")]
    )
    kernels = {n: params[n] for n in first if n in params and params[n].ndim == 4}
    name = next((n for n, v in kernels.items() if v.shape[2] in (1, 3)), None)
    if name is None or max(params[name].shape[:2]) < 2:  # filters of one pixel have no picture
        return []
    kernel = params[name]
    h, w, c, n = kernel.shape
    if (h, w) == to_pair(getattr(classifier.model, "patch_size", 0)):
        flat = kernel.reshape(-1, n) - kernel.reshape(-1, n).mean(axis=1, keepdims=True)
        left, _, _ = np.linalg.svd(flat, full_matrices=False)
        shown = left.T.reshape(-1, h, w, c)[:28]
        what = f"principal components of the {n} patch filters, the {len(shown)} strongest"
    else:
        shown = kernel.transpose(3, 0, 1, 2)[:64]
        what = f"{len(shown)} of the {n} filters of {name.removesuffix('/kernel')}"
    shown = np.repeat(shown, 3, axis=-1) if c == 1 else shown
    sheet = _tiles(_unit(shown), 7 if len(shown) <= 28 else 8)
    slug = run.slug
    return [Pictures(f"filters_{slug}", [Picture(to_png(sheet, 340))], f"{run.label}: {what}", large=True)]


def positions(run: RunFiles, classifier: Any) -> list[Block]:
    """Cosine similarity of each position's embedding with all others, as a map of maps (figure 7 of the ViT paper)."""
    from jaxvit.explain.taps import grid
    from jaxvit.models.registry import find_family

    model, family = classifier.model, find_family(classifier.model)
    table = _params(classifier).get(family.position_table or "") if family else None
    if table is None or table.ndim != 3:
        return []
    gh, gw = grid(model, tuple(classifier.data_config["image_size"]))
    table = table[0, -gh * gw :]
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    rows, columns = (np.unique(np.linspace(0, side - 1, min(side, 7)).astype(int)) for side in (gh, gw))
    chosen = (rows[:, None] * gw + columns[None, :]).reshape(-1)
    maps = (unit[chosen] @ unit.T).reshape(-1, gh, gw)
    sheet = _tiles(_coloured((maps + 1) / 2), len(columns))
    slug = run.slug
    caption = (
        f"{run.label}: cosine similarity of position embeddings; each tile is one position against all, "
        "yellow is 1, dark is −1"
    )
    return [Pictures(f"positions_{slug}", [Picture(to_png(sheet, 340))], caption, large=True)]


def biases(run: RunFiles, classifier: Any) -> list[Block]:
    """Swin's relative position bias tables: a picture per block, a tile per head."""
    from jaxvit.explain.windows import block_windows
    from jaxvit.models.family import place
    from jaxvit.models.names import timm_name
    from jaxvit.models.registry import find_family

    family = find_family(classifier.model)
    if family is None or not family.window_tables:
        return []
    named = {n: timm_name(tuple(n.split("/"))) for n in _params(classifier)}
    tables = {n: v for n, v in _params(classifier).items() if re.search(family.window_tables, named[n])}
    places = block_windows(classifier.model, tuple(classifier.data_config["image_size"]))
    pictures = []
    for name, where in zip(sorted(tables, key=lambda name: place(family, name)), places, strict=True):
        table = tables[name]
        (wh, ww), heads = where.window, table.shape[1]
        sides = (2 * wh - 1, 2 * ww - 1)
        if sides[0] * sides[1] != len(table):
            side = round(len(table) ** 0.5)
            sides = (side, side)
        maps = table.T.reshape(heads, *sides)
        sheet = _tiles(_coloured(_unit(maps) / 255.0), min(heads, 6))
        block = name.rsplit("/", 2)[0]
        pictures.append(Picture(to_png(sheet), block, (f"{heads} heads",)))
    slug = run.slug
    caption = (
        f"{run.label}: relative position biases; the middle of a tile is the token's position, and yellow increases "
        "attention"
    )
    return [Pictures(f"biases_{slug}", pictures, caption, large=True)]
