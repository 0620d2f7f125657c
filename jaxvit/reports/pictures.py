"""The pictures of a report: test images with what was said of them, heat over the sample, augmented images."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvit import plugins
from jaxvit.errors import UserError
from jaxvit.reports import numbers
from jaxvit.reports.blocks import Block, Picture, Pictures, Table, Text
from jaxvit.reports.runs import RunFiles, defaults

SIDE = 128  # pixels to which small images are enlarged
SHOWN = 8  # images of the fixed sample
DRAWS = 7
NAMED = "An image is named by its file, or by the split or file that stores it and its position there, from 0."
NUMBERED = "The number is the position, from 0, in the split that stores the image."


def to_png(image: np.ndarray, side: int = SIDE) -> bytes:
    """A PNG of uint8 [h, w, c] or [h, w]; small images are enlarged by a whole number, large ones reduced."""
    from PIL import Image

    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    picture = Image.fromarray(np.ascontiguousarray(image))
    longest = max(picture.size)
    if longest > 2 * side:
        picture.thumbnail((2 * side, 2 * side))
    elif longest < side:
        factor = -(-side // longest)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def sample_images(run: RunFiles, more: dict[int, np.ndarray] | None = None) -> dict[int, np.ndarray]:
    """Images by their index in the test split: those of samples.npz, and `more`."""
    own = {} if run.samples is None else dict(zip(run.samples["index"].tolist(), run.samples["image"], strict=True))
    return own | (more or {})


def mistakes(run: RunFiles, probabilities: np.ndarray, images: dict[int, np.ndarray]) -> list[Block]:
    """The most confident mistakes: a table of all, pictures of those whose image is stored."""
    assert run.labels is not None and run.index is not None
    where = numbers.confident_mistakes(probabilities, run.labels)
    if not len(where):
        return [Text(f"{run.label}: no mistakes among {len(run.labels):,} test images.")]
    facts = [
        (int(run.index[i]), int(run.predictions[i]), float(probabilities[i].max()), int(run.labels[i])) for i in where
    ]
    names = run.class_names
    rows = [[run.image_name(k), names[said], f"{100 * p:.1f} %", names[true]] for k, said, p, true in facts]
    shown = [
        Picture(to_png(images[k]), f"{names[said]} ({100 * p:.0f} %)", (f"true: {names[true]}", run.image_name(k)))
        for k, said, p, true in facts
        if k in images
    ]
    slug, raw = run.slug, [[k, run.image_name(k), names[s], p, names[t]] for k, s, p, t in facts]
    table = Table(
        ["image", "said", "probability", "true"], rows, left=2,
        folded=f"{run.label}: the {len(rows)} most confident mistakes by name" if len(shown) == len(rows) else "",
        caption=f"{run.label}: confident mistakes. {NAMED if run.names is not None else NUMBERED}",
        csv=(f"mistakes_{slug}.csv", ["index", "image", "said", "probability", "true"], raw),
    )  # fmt: skip
    pictures = [Pictures(f"mistakes_{slug}", shown, f"{run.label}: the most confident mistakes")] if shown else []
    return [*pictures, table]


def pairs(run: RunFiles, counts: np.ndarray, images: dict[int, np.ndarray]) -> list[Block]:
    """The most confused pairs by name, with images of their mistakes as far as they are stored."""
    assert run.labels is not None and run.index is not None
    found = numbers.confused_pairs(counts)
    if not found:
        return []
    names, sizes = run.class_names, counts.sum(axis=1)
    rows, shown = [], []
    for a, b, forth, back in found:
        share = (forth + back) / max(int(sizes[a] + sizes[b]), 1)
        rows.append([f"{names[a]} / {names[b]}", str(forth), str(back), f"{100 * share:.1f} %"])
        for true, said in ((a, b), (b, a)):
            hits = np.flatnonzero((run.labels == true) & (run.predictions == said))
            there = [int(run.index[i]) for i in hits if int(run.index[i]) in images][:2]
            shown += [
                Picture(to_png(images[k]), names[true], (f"taken for {names[said]}", run.image_name(k))) for k in there
            ]
    raw = [[names[a], names[b], forth, back] for a, b, forth, back in found]
    table = Table(
        ["pair", "1st as 2nd", "2nd as 1st", "of both"], rows,
        group="pairs", title=f"{run.label}: most confused pairs",
        csv=(f"confused_pairs_{run.slug}.csv", ["first", "second", "first_as_second", "second_as_first"], raw),
    )  # fmt: skip
    if shown:
        return [
            table,
            Pictures(f"pairs_{run.slug}", shown[:16], f"{run.label}: images of these pairs that were confused"),
        ]
    one_of_each = [_example(run, images, k) for pair in found[:4] for k in pair[:2]]
    one_of_each = [p for p in one_of_each if p is not None]
    return (
        [table, Pictures(f"pairs_{run.slug}", one_of_each, f"{run.label}: what these classes look like")]
        if one_of_each
        else [table]
    )


def _example(run: RunFiles, images: dict[int, np.ndarray], label: int) -> Picture | None:
    assert run.labels is not None and run.index is not None
    there = [int(i) for i in run.index[run.labels == label] if int(i) in images]
    return Picture(to_png(images[there[0]]), run.class_names[label], (run.image_name(there[0]),)) if there else None


def heat(runs: Sequence[RunFiles], classifiers: dict[str, Any]) -> list[Block]:
    """Grad-CAM of each run's prediction over the fixed sample; a line for each run that has no map."""
    first = next((run for run in runs if run.samples is not None), None)
    if first is None or first.samples is None:
        return [Text("No samples.npz, so there are no images to show.", "note")]
    samples = first.fixed_samples
    chosen = np.unique(np.linspace(0, len(samples["image"]) - 1, SHOWN).astype(int))
    images, labels = samples["image"][chosen], samples["label"][chosen]
    columns, blocks = [], []
    for run in runs:
        try:
            classifier = classifiers[run.label]
            if isinstance(classifier, UserError):
                raise classifier
            shown = heat_maps(classifier, run.class_names, images, labels)
            columns.append((run.label, [overlay for overlay, _ in shown]))
        except UserError as error:
            blocks.append(Text(f"{run.label}: no maps, because {str(error).splitlines()[0]}", "note"))
    if not columns:
        return blocks
    index, cells = samples["index"][chosen], []
    true = [true_name(label, first.class_names) for label in labels]
    for i, image in enumerate(images):
        cells.append(Picture(to_png(image), "", (f"true: {true[i]}", first.image_name(int(index[i])))))
        cells += [pictures[i] for _, pictures in columns]
    caption = (
        "Grad-CAM (Selvaraju et al., 2017) for the class that the model predicts, at the default layer of its family: "
        "bright where the evidence for it is. Images are the fixed sample of the test split; ✗ marks a wrong answer."
    )
    heads = ["image, true class", *(label for label, _ in columns)]
    across = len(heads)
    if len(columns) == 1:  # image and map side by side, as many pairs in a row as there is room for
        pairs_of_two = [
            Picture(_beside(cells[2 * i].png, cells[2 * i + 1].png), true[i], cells[2 * i + 1].lines)
            for i in range(len(images))
        ]
        return [*blocks, Pictures("cam", pairs_of_two, caption)]
    return [*blocks, Pictures("cam", cells, caption, heads, across)]


def true_name(label: Any, class_names: Sequence[str]) -> str:
    """The class of an image; of 0 and 1 [k] its classes."""
    if not np.ndim(label):
        return class_names[int(label)]
    return ", ".join(class_names[int(k)] for k in np.flatnonzero(label)) or "none"


def _beside(left: bytes, right: bytes) -> bytes:
    from PIL import Image

    a, b = (Image.open(io.BytesIO(png)).convert("RGB") for png in (left, right))
    a = a.resize(b.size, Image.Resampling.NEAREST)
    both = Image.new("RGB", (a.width, a.height * 2))
    both.paste(a, (0, 0))
    both.paste(b, (0, a.height))
    buffer = io.BytesIO()
    both.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def prepared(classifier: Any, images: np.ndarray) -> tuple[Any, np.ndarray]:
    """Images uint8 [n, h, w, c] as a classifier takes them: (normalised, the same in [0, 1] before it, RGB)."""
    import jax.numpy as jnp

    from jaxvit.build import parts
    from jaxvit.explain.overlay import to_display

    words = classifier.data_config
    as_float = parts.make_to_float(words["in_channels"])(jnp.asarray(images))
    size = tuple(words["image_size"])
    normalised = parts.make_normalise(size, words["interpolation"], words["mean"], words["std"])(as_float)
    return normalised, to_display(normalised, words["mean"], words["std"])


def heat_maps(
    classifier: Any, class_names: Sequence[str], images: np.ndarray, labels: np.ndarray
) -> list[tuple[Picture, Picture]]:
    """(overlay, heat) of each of the images uint8 [n, h, w, c], for the class that the model says, named beneath."""
    import jax

    from jaxvit import explain
    from jaxvit.explain import overlay

    normalised, display = prepared(classifier, images)
    logits = jax.jit(classifier.model.apply)(classifier.variables, normalised)
    probabilities = np.asarray(classifier.to_probabilities(logits), np.float64)
    maps = explain.grad_cam(classifier.model, classifier.variables, normalised, probabilities.argmax(-1))
    display, maps = overlay.enlarge(display, maps)
    out = []
    for image, map_, p, label in zip(display, maps, probabilities, labels, strict=True):
        said = int(p.argmax())
        right = label[said] if np.ndim(label) else said == label
        line = f"{'' if right else '✗ '}{class_names[said]} ({100 * p[said]:.0f} %)"
        heat = np.round(255 * overlay.colour(map_)).astype(np.uint8)
        out.append((Picture(to_png(overlay.overlay(image, map_)), "", (line,)), Picture(to_png(heat), "", (line,))))
    return out


def augments(run: RunFiles) -> bool:
    """Whether the run's training images are changed at all."""
    usual = defaults()
    return any(word.startswith("augment.") and value != usual.get(word) for word, value in run.config.items())


def augmented(run: RunFiles) -> list[Block]:
    """The fixed sample as training sees it, by the run's own options; fixed draws."""
    import jax

    from jaxvit.data import augment

    if run.samples is None:
        return [Text(f"{run.label}: no samples.npz, so there are no augmented images to show.", "note")]
    words = {w.removeprefix("augment."): v for w, v in run.config.items() if w.startswith("augment.")}
    own = {w.removeprefix("options."): words.pop(w) for w in list(words) if w.startswith("options.")}
    try:
        plugins.use_recorded(run.config.get("imports") or (), run.path)
        operation = augment.make_augment({**words, "options": own})
    except UserError as error:
        said = str(error).splitlines()[0]
        return [Text(f"{run.label}: its augmented images cannot be shown, because {said}", "note")]
    images = run.fixed_samples["image"]
    chosen = np.unique(np.linspace(0, len(images) - 1, 5).astype(int))
    cells = augment.picture_grid(operation, jax.random.key(0), images[chosen], DRAWS)
    pictures = [Picture(to_png(cell)) for row in cells for cell in row]
    heads = ["image", *(f"draw {i + 1}" for i in range(DRAWS))]
    caption = f"{run.label}: test images as the training step would change them; images are mixed with each other."
    return [Pictures(f"augmentations_{run.slug}", pictures, caption, heads, 1 + DRAWS)]
