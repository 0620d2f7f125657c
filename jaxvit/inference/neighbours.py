"""What features are good for: nearest images, k nearest neighbours and a linear probe."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.runtime import escape

ROWS = 8192  # of the bank that are compared at once
SIDE = 128  # pixels of an image in the picture
GAP = 8
LINES = 3  # of text under an image


def nearest(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of `bank` [n, d] that are nearest to each query [q, d], and their cosine similarity.

    Both are [q, min(k, n)], the nearest first; of equal ones the first row comes first. The bank is read in pieces,
    so it may be memory-mapped.
    """
    unit = _unit(queries)
    best = np.zeros((len(unit), 0), np.float64)
    rows = np.zeros((len(unit), 0), np.int64)
    for start in range(0, len(bank), ROWS):
        piece = _unit(bank[start : start + ROWS])
        best = np.concatenate([best, unit @ piece.T], axis=1)
        rows = np.concatenate([rows, np.tile(np.arange(start, start + len(piece)), (len(unit), 1))], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    return rows, best


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def knn(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int) -> np.ndarray:
    """Returns labels [m] of `test` [m, d] by the k nearest of `train` [n, d], standardised (scikit-learn).

    Raises:
      UserError: k is more than the training images.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if k > len(train):
        raise UserError(f"--knn {k} asks for more neighbours than there are training images, {len(train)}")
    return _predict(KNeighborsClassifier(k), train, labels, test)


def probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Returns labels [m] of `test` [m, d] by logistic regression on `train` [n, d], standardised (scikit-learn).

    Raises:
      UserError: all training images are of one class.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        raise UserError("--probe needs training images of two classes or more")
    return _predict(LogisticRegression(max_iter=1000), train, labels, test)


def _predict(estimator: Any, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a thousand steps are near enough
        return make_pipeline(StandardScaler(), estimator).fit(train, labels).predict(test)


def picture(rows: Sequence[Sequence[tuple[Any, Sequence[str]]]]) -> bytes:
    """A PNG with a row for each query: (image, lines of text under it) from left to right, the query first.

    Images are uint8 arrays [h, w, c] or of Pillow.
    """
    from PIL import Image, ImageDraw

    width, height = SIDE + GAP, SIDE + 12 * LINES + GAP
    sheet = Image.new("RGB", (max(map(len, rows)) * width + GAP, len(rows) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (image, lines) in enumerate(row):
            left, top = GAP + x * width, GAP + y * height
            tile = _tile(image)
            sheet.paste(tile, (left + (SIDE - tile.width) // 2, top + (SIDE - tile.height) // 2))
            for line, text in enumerate(lines[:LINES]):
                text = escape.picture(text, SIDE // 6).replace("…", "~").encode("latin-1", "replace").decode("latin-1")
                draw.text((left, top + SIDE + 12 * line), text, fill="black")
        if len(row) > 1:  # a line between the query and what was found
            x = GAP + width - GAP // 2
            draw.line((x, GAP + y * height, x, GAP + y * height + SIDE), fill="#b00000")
    buffer = io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _tile(image: Any) -> Any:
    """The image in RGB, fitted into a square of SIDE pixels."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    image = image.convert("RGB")
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC)
