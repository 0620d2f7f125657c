"""How accuracy grows with the training images: a power law of the error, and what it says of more images.

The law is error(n) = a n^-b + c (Hestness et al., 2017; Rosenfeld et al., 2020): c is the error that stays.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxvit.errors import UserError

LEAST = 4  # different sizes: the law has three parameters
EXPONENTS = (0.02, 4.0)  # the bounds of b; published ones of images are 0.1 to 0.7
GRID = np.geomspace(*EXPONENTS, 500)  # the exponents of the bootstrap, 1 % apart
DRAWS = 1000
LEVEL = 0.90  # of the intervals
FURTHEST = 100.0  # times the largest size: no count of images is given beyond


class NoLaw(UserError):
    """The points do not bear a power law; the message says why, in a line."""


@dataclasses.dataclass(frozen=True)
class Law:
    """A fitted law with the fits of its bootstrap.

    Attributes:
      images: sizes of the training data, ascending, int [m].
      errors: mean error at each size, a share, [m].
      deviations: standard error of these means: of the seeds and of the test images, [m].
      a, b, c: the fitted parameters; error(n) = a n^-b + c.
      draws: (a, b, c) of each bootstrap sample, [draws, 3].
    """

    images: np.ndarray
    errors: np.ndarray
    deviations: np.ndarray
    a: float
    b: float
    c: float
    draws: np.ndarray

    def accuracy(self, images: np.ndarray | float) -> np.ndarray:
        """The accuracy that the law has at these numbers of images, of their shape."""
        return 1 - (self.a * np.asarray(images, float) ** -self.b + self.c)

    def interval(self, images: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The interval of `accuracy` at LEVEL, (low, high), each of the shape of `images`."""
        a, b, c = self.draws.T
        n = np.asarray(images, float)[..., None]
        low, high = np.percentile(1 - (a * n**-b + c), _percentiles(), axis=-1)
        return np.clip(low, 0, 1), np.clip(high, 0, 1)

    def images_for(self, accuracy: float) -> tuple[float, float, float]:
        """Training images needed for an accuracy: (by the law, low, high), infinite where it is never reached."""
        found = needed(np.array([[self.a, self.b, self.c]]), accuracy)[0]
        low, high = np.percentile(needed(self.draws, accuracy), _percentiles(), method="inverted_cdf")
        return float(found), float(low), float(high)


def fit(
    images: Sequence[int], accuracies: Sequence[Sequence[float]], test_images: int, *, seed: int = 0, draws: int = DRAWS
) -> Law:
    """Fits the law to the accuracies of several seeds at each of several sizes.

    Least squares by SciPy, weighted by the standard errors. These have two parts: the test images are a sample (by the
    binomial distribution; all seeds see the same ones), and seeds differ (by their own deviations, pooled over the
    sizes). The bootstrap draws both again around the fitted curve, and fits again. Where the points lie further from
    the curve than these parts explain, as with one seed they may, the errors are scaled up to that.

    Args:
      images: training images of each size, [m]; sizes may be in any order.
      accuracies: shares in [0, 1] for each size, one for each seed.
      test_images: images that each accuracy was measured on.
      seed: of the bootstrap.
      draws: samples of the bootstrap.

    Raises:
      NoLaw: fewer than LEAST different sizes, no errors, or errors that do not fall by any power of the images.
    """
    order = np.argsort(images, kind="stable")
    n = np.asarray(images, float)[order]
    if len(np.unique(n)) < len(n):
        raise ValueError("two groups of accuracies for one number of images")
    if len(n) < LEAST:
        raise NoLaw(f"{len(n)} different numbers of training images; the power law needs {LEAST} or more")
    runs = [1 - np.asarray(accuracies[i], float) for i in order]
    y = np.array([errors.mean() for errors in runs])
    if not y.any():
        raise NoLaw("there are no errors to extrapolate: all runs classify all test images correctly")
    share = (y * test_images + 0.5) / (test_images + 1)  # an error of 0 is not known exactly
    binomial = np.sqrt(share * (1 - share) / test_images)
    counts, residuals = np.array([len(errors) for errors in runs]), _residuals(runs, binomial)
    sigma = binomial * np.sqrt(1 + np.mean(residuals**2) / counts)
    x = n / n[-1]  # of the largest size, which keeps a in the size of the errors
    a, b, c = _least_squares(x, y, sigma)
    curve = a * x**-b + c
    _check(n, y, sigma, b, curve)
    rest = np.sqrt(np.sum(((y - curve) / sigma) ** 2) / (len(n) - 3))
    scale = max(1.0, float(rest))
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(draws, len(n)))
    for i, count in enumerate(counts):
        noise[:, i] += rng.choice(residuals, (draws, count)).mean(axis=1)
    fits = _profile(x, curve + scale * binomial * noise, sigma)
    fits[:, 0] *= n[-1] ** fits[:, 1]
    return Law(n.astype(int), y, scale * sigma, float(a * n[-1] ** b), float(b), float(c), fits)


def needed(parameters: np.ndarray, accuracy: float) -> np.ndarray:
    """Images for an accuracy by laws (a, b, c) [k, 3] -> [k]; infinite where c alone is more than the error."""
    a, b, c = parameters.T
    left = (1 - accuracy) - c
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(left > 0, (a / np.where(left > 0, left, 1.0)) ** (1 / b), np.inf)


def _percentiles() -> tuple[float, float]:
    return 50 * (1 - LEVEL), 50 * (1 + LEVEL)


def _residuals(runs: Sequence[np.ndarray], binomial: np.ndarray) -> np.ndarray:
    """Deviations of the seeds from the means of their sizes, in binomial deviations; [0] where sizes have one seed."""
    parts = [
        (errors - errors.mean()) / sd * np.sqrt(len(errors) / (len(errors) - 1))
        for errors, sd in zip(runs, binomial, strict=True)
        if len(errors) > 1
    ]
    return np.concatenate(parts) if parts else np.zeros(1)


def _least_squares(x: np.ndarray, y: np.ndarray, sigma: np.ndarray) -> tuple[float, float, float]:
    from scipy.optimize import curve_fit

    low, high = (0.0, EXPONENTS[0], 0.0), (1.0, EXPONENTS[1], 1.0)
    start = np.clip(_profile(x, y[None], sigma)[0], low, high)
    found, _ = curve_fit(
        lambda x, a, b, c: a * x**-b + c, x, y, p0=start, sigma=sigma, bounds=(low, high), xtol=1e-12, ftol=1e-12
    )
    return tuple(found)


def _profile(x: np.ndarray, y: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Least squares of many samples y [k, m] at once, b from GRID -> (a, b, c) [k, 3].

    For each b the best a and c are linear (Golub and Pereyra, 1973); a and c are at least 0.
    """
    weight = 1 / sigma**2
    power = x ** -GRID[:, None]  # [g, m]
    p, pp, w = power @ weight, power**2 @ weight, weight.sum()
    sy, py = y @ weight, (y * weight) @ power.T  # [k], [k, g]
    a = (w * py - p * sy[:, None]) / (w * pp - p**2)
    a = np.where(a > 0, a, 0.0)
    c = (sy[:, None] - a * p) / w
    a, c = np.where(c < 0, np.maximum(py / pp, 0), a), np.maximum(c, 0)
    loss = a**2 * pp + c**2 * w + 2 * a * c * p - 2 * a * py - 2 * c * sy[:, None]
    best, rows = loss.argmin(axis=1), np.arange(len(y))
    return np.stack([a[rows, best], GRID[best], c[rows, best]], axis=1)


def _check(n: np.ndarray, y: np.ndarray, sigma: np.ndarray, b: float, curve: np.ndarray) -> None:
    """Raises NoLaw where the fit means nothing."""
    fall = curve[0] - curve[-1]
    if fall <= 2 * np.hypot(sigma[0], sigma[-1]):
        raise NoLaw(
            f"the error does not fall with more images, beyond chance: {100 * y[0]:.1f} % at {n[0]:,.0f}, "
            f"{100 * y[-1]:.1f} % at {n[-1]:,.0f}"
        )
    if not EXPONENTS[0] * 1.01 < b < EXPONENTS[1] * 0.99:
        how = "slower" if b < 1 else "faster"
        raise NoLaw(f"the error falls {how} than any power law from b = {EXPONENTS[0]:g} to {EXPONENTS[1]:g}")
