"""Images that occur twice: exactly, by a hash of their pixels, and nearly, by small descriptors of what they show."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxvit.data.images import DECODE_ERRORS, in_threads
from jaxvit.data.splits import Split
from jaxvit.runtime.console import bar

NEAR = 0.9  # least cosine of two descriptors
EMBEDDED = 0.95  # least cosine of two features of a model
SIDE, GRID = 32, 8  # pixels that an image is reduced to, and cells of them that are described
BLOCK = 256  # images that are compared at once with all others
FAINT = 0.05  # length of a descriptor under which an image is blank
PAIRS = (("test", "train"), ("val", "train"), ("test", "val"))  # each image of the first against all of the second
SAME = ("train", "train")  # images with different labels


@dataclasses.dataclass(frozen=True)
class Double:
    """Two images that show the same: image `i` of split `a` and image `j` of split `b`."""

    kind: str  # "exact": the same pixels; "near": by their descriptors; "embedding": by features of a model
    similarity: float  # a cosine; 1 of the same pixels
    a: str
    i: int
    b: str
    j: int


@functools.cache
def _projection() -> np.ndarray:
    """[192, 192]: a cosine transform of 8x8 cells in opponent colours, whitened for photographs, without brightness.

    The spectrum of photographs falls as 1 / frequency, and their colours vary 3 and 5 times less than their light:
    weights that undo both let every coefficient count alike. So two skies, or two faces on white, are not the same.
    """
    k, x = np.arange(GRID)[:, None], np.arange(GRID)[None, :]
    cosine = np.cos(np.pi * (x + 0.5) * k / GRID) * np.sqrt(2 / GRID)
    cosine[0] /= math.sqrt(2)
    opponent = np.array([[1, 1, 1], [3, 0, -3], [-2.5, 5, -2.5]])
    frequency = np.hypot(k, x)
    frequency[0, 0] = 0.6
    weights = np.repeat(frequency[..., None], 3, axis=-1)
    weights[0, 0, 0] = 0.0
    full = np.einsum("uy,vx,oc,uvo->yxcuvo", cosine, cosine, opponent, weights)
    return full.reshape(3 * GRID * GRID, -1).astype(np.float32)


def describe(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns (hashes of the pixels [n], bytes of 16; descriptors float32 [n, 192] of length 1, or 0 of blank images).

    A descriptor does not change with brightness and contrast, and little with size, format and compression. An image
    that cannot be read has an empty hash and a zero descriptor.
    """
    hashes = np.full(len(split), b"", "S32")
    cells = np.zeros((len(split), 3 * GRID * GRID), np.float32)

    def visit(i: int) -> None:
        try:
            pixels = np.asarray(split.images[i] if split.images is not None else split.read(i))
        except DECODE_ERRORS:
            return
        pixels = np.ascontiguousarray(pixels)
        digest = hashlib.blake2b(str(pixels.shape).encode() + pixels.tobytes(), digest_size=16)
        hashes[i] = digest.hexdigest().encode()
        grey = pixels.ndim == 2 or pixels.shape[-1] == 1
        image = Image.fromarray(pixels.reshape(pixels.shape[:2]) if grey else pixels).convert("RGB")
        small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255
        step = SIDE // GRID
        cells[i] = small.reshape(GRID, step, GRID, step, 3).mean(axis=(1, 3)).ravel()

    in_threads(visit, len(split), f"hashing {split.name} images", show_from=5_000)
    return hashes, _unit(cells @ _projection(), least=FAINT)


def _unit(vectors: np.ndarray, least: float = 1e-6) -> np.ndarray:
    """Vectors [n, d] of length 1; those shorter than `least` become zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > least, vectors / np.maximum(length, least), 0).astype(np.float32)


@jax.jit
def _best(queries: Any, known: Any, query_labels: Any, labels: Any) -> tuple[Any, Any]:
    """(greatest cosine [b], its position [b]) among those of other labels; label -1 of a query counts all."""
    cosines = jnp.matmul(queries, known.T, precision="highest")
    cosines = jnp.where(query_labels[:, None] == labels[None, :], -1.0, cosines)
    at = jnp.argmax(cosines, axis=-1)
    return jnp.take_along_axis(cosines, at[:, None], axis=-1)[:, 0], at


def nearest(queries: np.ndarray, known: np.ndarray, labels: np.ndarray | None = None, title: str = "") -> Any:
    """Returns (cosine [n], position [n]) of the nearest of `known` [m, d] to each of `queries` [n, d], in blocks.

    With `labels` [n], of queries and known alike, only images of other labels count, and so never the image itself.
    """
    n = len(queries)
    own = np.full(n, -1, np.int32) if labels is None else labels.astype(np.int32)
    others = jnp.asarray(np.zeros(len(known), np.int32) if labels is None else labels.astype(np.int32))
    on_device = jnp.asarray(known)
    cosines, positions = np.zeros(n, np.float32), np.zeros(n, np.int64)
    size = min(BLOCK, n)
    with bar(title, n) as meter:
        for start in range(0, n, size):
            start = min(start, n - size)  # the last block overlaps: one shape compiles one program
            at = slice(start, start + size)
            cosines[at], positions[at] = map(np.asarray, _best(queries[at], on_device, own[at], others))
            meter.advance(size)
    return cosines, positions


def find(splits: Mapping[str, Split], features: Mapping[str, np.ndarray] | None = None) -> list[Double]:
    """Returns the doubles between "train", "val" and "test", and within "train" those of unlike labels.

    Each image is listed once for each pair of splits, with its nearest other: exact ones first, then the most similar.

    Args:
      splits: by name; those that are missing or empty are left out.
      features: float [n, d] by the same names, of a pretrained model; `EMBEDDED` is the least cosine after the mean of
        the training images is taken off.
    """
    splits = {name: split for name, split in splits.items() if len(split)}
    described = {name: describe(split) for name, split in splits.items()}
    looks = [("near", NEAR, {name: vectors for name, (_, vectors) in described.items()})]
    if features is not None:
        mean = features["train"].mean(axis=0)
        looks.append(("embedding", EMBEDDED, {name: _unit(features[name] - mean) for name in splits}))
    found: dict[tuple[str, int, str, int], Double] = {}
    for a, b in (*PAIRS, SAME):
        if a not in splits or b not in splits:
            continue
        labels = _codes(splits[a].labels) if a == b else None
        doubles = _exact(a, described[a][0], b, described[b][0], labels)
        seen = {double.i for double in doubles}
        for kind, least, vectors in looks:
            if labels is not None and len(np.unique(labels)) < 2:
                continue
            title = f"comparing {a} with {b}" if a != b else f"comparing {a} images with different labels"
            cosines, positions = nearest(vectors[a], vectors[b], labels, title)
            hits = [int(i) for i in np.flatnonzero(cosines >= least) if int(i) not in seen]
            doubles += [Double(kind, float(cosines[i]), a, i, b, int(positions[i])) for i in hits]
            seen.update(hits)
        for double in doubles:
            key = (a, double.i, b, double.j)
            if a == b and double.j < double.i:
                key = (a, double.j, b, double.i)
                double = dataclasses.replace(double, i=double.j, j=double.i)
            found.setdefault(key, double)
    order = {pair: rank for rank, pair in enumerate((*PAIRS, SAME))}
    return sorted(found.values(), key=lambda d: (order[d.a, d.b], d.kind != "exact", -d.similarity, d.i, d.j))


def _codes(labels: np.ndarray) -> np.ndarray:
    """A number for each label, or each set of labels, int [n]."""
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)


def _exact(a: str, ours: np.ndarray, b: str, theirs: np.ndarray, labels: np.ndarray | None) -> list[Double]:
    """Pairs of the same pixels: each of `ours` with the first of `theirs`, or the first of another label."""
    first: dict[bytes, list[int]] = {}
    for j, digest in enumerate(theirs):
        if digest:
            first.setdefault(digest, []).append(j)
    out = []
    for i, digest in enumerate(ours):
        places: Sequence[int] = first.get(digest, [])
        at = next((j for j in places if labels is None or labels[i] != labels[j]), None)
        if at is not None:
            out.append(Double("exact", 1.0, a, i, b, at))
    return out
