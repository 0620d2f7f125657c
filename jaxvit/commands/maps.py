"""The methods of the command `explain`: what each makes of a batch, what it says beside its pictures, what it costs."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxvit.errors import UserError, suggest

ROLLOUT, HEADS, PCA = "attention_rollout", "attention_heads", "pca"
STEPS, SMOOTH, SAMPLES = 32, 16, 512  # passes where --passes is not given


class Made(NamedTuple):
    """What a method makes of a batch of b images."""

    maps: Any  # [b, h, w] in [0, 1]; of heads [b, heads, h, w], of layers' features [b, mh, mw, c]
    notes: list[str] | None = None  # a line or more for each image


class Method(NamedTuple):
    """A choice of --method; the function takes (classifier, images, classes, options, progress in passes)."""

    make: Callable[[Any, np.ndarray, np.ndarray, Any, Callable[[int], None]], Made]
    passes: Callable[[Any, tuple[int, int]], int] = lambda args, size: 0  # of each image; 0 where it tells no progress
    layer: bool = False  # the words that it has a meaning for
    class_name: bool = True
    number: bool = False  # --passes
    block: bool = False
    alone: bool = False  # image by image: a batch need not be filled up
    scores: bool = True


def _cam(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    from jaxvit import explain

    maps = explain.grad_cam(classifier.model, classifier.variables, images, index, args.method, args.layer)
    return Made(np.asarray(maps))


def _integrated(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    from jaxvit import explain
    from jaxvit.explain import pixels

    model, variables, steps = classifier.model, classifier.variables, args.passes or STEPS
    found = explain.integrated_gradients(model, variables, images, index, steps=steps, progress=progress)
    sums = zip(*explain.completeness(model, variables, images, found, index), strict=True)
    notes = [f"sum {float(total):.2f}, logit's rise {float(rise):.2f}" for total, rise in sums]
    return Made(np.asarray(pixels.brightness(found)), notes)


def _smooth(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    import jax

    from jaxvit import explain
    from jaxvit.explain import pixels

    samples, key = args.passes or SMOOTH, jax.random.key(args.seed)
    found = explain.smooth_grad(
        classifier.model, classifier.variables, images, index, samples=samples, key=key, progress=progress
    )
    return Made(np.asarray(pixels.brightness(found)))


def _occlusion(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    from jaxvit import explain
    from jaxvit.explain import perturbation

    falls = explain.occlusion(classifier.model, classifier.variables, images, index, progress=progress)
    notes = [f"logit falls by {most:.2f} at most" for most in falls.max((1, 2))]
    return Made(perturbation.evidence(falls), notes)


def _windows(args: Any, size: tuple[int, int]) -> int:
    from jaxvit.explain import perturbation

    return len(perturbation.occlusion_windows(size))


def _lime(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    from jaxvit import explain
    from jaxvit.explain import perturbation

    found = explain.lime(
        classifier.model, classifier.variables, images, index,
        samples=args.passes or SAMPLES, seed=args.seed, progress=progress,
    )  # fmt: skip
    return Made(perturbation.evidence(found.maps), [f"R² of the linear model {fit:.2f}" for fit in found.fit])


def _rollout(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    from jaxvit import explain

    return Made(np.asarray(explain.attention_rollout(classifier.model, classifier.variables, images)))


def _heads(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    from jaxvit import explain

    block = -1 if args.block is None else args.block
    return Made(np.asarray(explain.attention_maps(classifier.model, classifier.variables, images, block)))


def _features(classifier: Any, images: np.ndarray, index: np.ndarray, args: Any, progress: Any) -> Made:
    from jaxvit import explain

    return Made(np.asarray(explain.layer_maps(classifier.model, classifier.variables, images, args.layer)))


_CAM = Method(_cam, layer=True)
METHODS: dict[str, Method] = {
    "gradcam": _CAM,
    "gradcam++": _CAM,
    "hirescam": _CAM,
    "layercam": _CAM,
    "eigencam": _CAM,
    "integrated_gradients": Method(_integrated, lambda args, size: args.passes or STEPS, number=True),
    "smoothgrad": Method(_smooth, lambda args, size: args.passes or SMOOTH, number=True),
    "occlusion": Method(_occlusion, _windows, alone=True),
    "lime": Method(_lime, lambda args, size: args.passes or SAMPLES, number=True, alone=True),
    ROLLOUT: Method(_rollout, class_name=False),
    HEADS: Method(_heads, class_name=False, block=True, scores=False),
    PCA: Method(_features, layer=True, class_name=False, scores=False),
}


def check(args: argparse.Namespace) -> Method:
    """Returns the method. Raises UserError where there is none, or where an option means nothing to it."""
    method = METHODS.get(args.method)
    if method is None:
        raise UserError(f"no method {args.method!r}; expected {', '.join(METHODS)}.{suggest(args.method, METHODS)}")
    if (args.layer and not method.layer) or (args.class_name is not None and not method.class_name):
        missing = [word for word, has in (("layer", method.layer), ("class", method.class_name)) if not has]
        options = " and ".join(f"--{word}" for word in missing)
        raise UserError(f"{args.method} has {' and '.join(f'no {word}' for word in missing)}; leave out {options}")
    for option, given, word in (
        ("--passes", args.passes is not None, "number"),
        ("--block", args.block is not None, "block"),
        ("--scores", args.scores, "scores"),
    ):
        if given and not getattr(method, word):
            having = ", ".join(name for name, other in METHODS.items() if getattr(other, word))
            raise UserError(f"{option} has no effect on {args.method}; it is for {having}")
    if args.fit == "all" and args.method != PCA:
        raise UserError(f"--fit has no effect on {args.method}; it is for {PCA}")
    return method


def check_classes(classifier: Any, args: argparse.Namespace) -> None:
    """Raises UserError where a model of features alone is asked for what needs a class."""
    if classifier.model.num_classes or args.layers:
        return
    without = [name for name, method in METHODS.items() if not method.class_name]
    if args.method not in without or args.scores:
        word = "--scores" if args.method in without else args.method
        raise UserError(
            f"{classifier.name} has no classifier, only features, and {word} needs a class; "
            f"expected --method {', '.join(without)} without --scores"
        )


def component_planes(model: Any, maps: np.ndarray, size: Any, *, together: bool) -> tuple[np.ndarray, list[str]]:
    """Maps of a layer [b, mh, mw, c] -> red, green and blue planes [b, 3, h, w] in [0, 1], and a line for each."""
    from jaxvit.explain import components

    found = components.principal_components(maps, together=together)
    pictures = components.component_pictures(model, found, size, together=together)
    lines = ["variance " + ", ".join(f"{share:.0%}" for share in shares) for shares in found.shares]
    return pictures.transpose(0, 3, 1, 2), lines


def score_notes(classifier: Any, images: np.ndarray, maps: Any, index: np.ndarray, seed: int) -> list[str]:
    """Lines with the deletion and insertion areas of each map, and those of a random order."""
    from jaxvit import explain

    found = explain.scores(
        classifier.model, classifier.variables, images, maps, index, several=classifier.several, seed=seed
    )
    return [
        f"deletion {deleted:.2f} (random {by_chance:.2f})\ninsertion {inserted:.2f} (random {gained:.2f})"
        for deleted, inserted, by_chance, gained in zip(*found, strict=True)
    ]
