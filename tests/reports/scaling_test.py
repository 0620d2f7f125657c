"""The power law of accuracy: known parameters come back, intervals hold what they promise, nonsense is refused."""

import numpy as np
import pytest

from jaxvit.reports import scaling

SIZES = [67, 135, 269, 539, 1347]


def law(a, b, c, n):
    return 1 - (a * np.asarray(n, float) ** -b + c)


@pytest.mark.parametrize(("a", "b", "c"), [(1.5, 0.5, 0.02), (3.0, 0.35, 0.0), (20.0, 1.0, 0.1)])
def test_points_on_a_law_give_it_back(a, b, c):
    order = [3, 0, 4, 2, 1]  # of no matter
    sizes = [SIZES[i] for i in order]
    found = scaling.fit(sizes, [[float(law(a, b, c, n))] for n in sizes], 1000)
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), rel=1e-3, abs=1e-5)
    assert found.images.tolist() == SIZES
    for times in (2, 4, 10):
        assert float(found.accuracy(times * 1347)) == pytest.approx(float(law(a, b, c, times * 1347)), abs=1e-4)
        low, high = found.interval(times * 1347)
        assert low < found.accuracy(times * 1347) < high
    wanted = float(law(a, b, c, 4000))
    count, low, high = found.images_for(wanted)
    assert low < count < high and count == pytest.approx(4000, rel=0.01)
    if c:
        assert found.images_for(1 - c / 2)[0] == np.inf


def test_the_grid_of_the_bootstrap_finds_what_scipy_finds():
    """Two ways to the same least squares, also where c is at its bound."""
    rng = np.random.default_rng(3)
    x = np.array(SIZES) / SIZES[-1]
    bound = 0
    for _ in range(20):
        y = 0.04 * x**-0.5 + rng.normal(size=5) * 0.004
        sigma = rng.uniform(0.003, 0.01, 5)
        scipy, grid = scaling._least_squares(x, y, sigma), scaling._profile(x, y[None], sigma)[0]
        loss, on_grid = (np.sum(((a * x**-b + c - y) / sigma) ** 2) for a, b, c in (scipy, grid))
        further, on_grid_further = (a * 10**-b + c for a, b, c in (scipy, grid))
        assert loss <= on_grid + 1e-6 and on_grid < loss + 0.01
        assert on_grid_further == pytest.approx(further, abs=3e-4)
        bound += grid[2] == 0
    assert 0 < bound < 20


def test_the_interval_holds_the_truth_nine_times_in_ten():
    """Runs on the same 500 test images, three seeds that differ, ten times the images."""
    a, b, c, tests, repeats = 1.5, 0.5, 0.01, 500, 60
    inside, inside_count, widths = 0, 0, []
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        hard = rng.uniform(size=tests)  # what all runs agree on
        accuracies = []
        for n in SIZES:
            errors = [(1 - law(a, b, c, n)) * np.exp(0.08 * rng.normal()) for _ in range(3)]
            own = [np.where(rng.uniform(size=tests) < 0.7, hard, rng.uniform(size=tests)) for _ in errors]
            accuracies.append([float(np.mean(u >= e)) for u, e in zip(own, errors, strict=True)])
        found = scaling.fit(SIZES, accuracies, tests, seed=repeat, draws=200)
        low, high = found.interval(13470)
        inside += bool(low <= law(a, b, c, 13470) <= high)
        _, low, high = found.images_for(float(law(a, b, c, 4000)))
        inside_count += low <= 4000 <= high
        widths.append(found.interval(13470)[1] - found.interval(13470)[0])
    assert inside / repeats >= 0.8 and inside_count / repeats >= 0.8
    assert np.median(widths) < 0.06  # it says something, too


def test_fewer_test_images_and_seeds_that_differ_widen_the_interval():
    def width(deviation, tests):
        values = [[law(1.5, 0.5, 0.01, n) + d for d in (-deviation, 0, deviation)] for n in SIZES]
        low, high = scaling.fit(SIZES, values, tests).interval(5000)
        return high - low

    assert width(0.0, 4000) < width(0.0, 1000) and width(0.0, 4000) < width(0.02, 4000)


def test_one_seed_off_the_curve_widens_the_interval():
    on = [[float(law(1.5, 0.5, 0.01, n))] for n in SIZES]
    off = [[v[0] + d] for v, d in zip(on, (0.0, 0.04, -0.04, 0.03, 0.0), strict=True)]
    widths = [float(np.diff(scaling.fit(SIZES, values, 5000).interval(5000))[0]) for values in (on, off)]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize(
    ("sizes", "accuracies", "said"),
    [
        (SIZES[:3], [0.5, 0.6, 0.7], "3 different numbers of training images; the power law needs 4"),
        (SIZES, [1.0] * 5, "no errors to extrapolate"),
        (SIZES, [0.5, 0.51, 0.5, 0.49, 0.5], "does not fall with more images"),
        (SIZES, [0.9, 0.8, 0.7, 0.6, 0.5], "does not fall with more images"),
        (SIZES, [0.1, 0.9, 0.9, 0.9, 0.9], "falls faster than any power law"),
    ],
)
def test_points_that_bear_no_law_are_refused_in_a_line(sizes, accuracies, said):
    with pytest.raises(scaling.NoLaw, match=said) as error:
        scaling.fit(sizes, [[v] for v in accuracies], 1000)
    assert "\n" not in str(error.value)
