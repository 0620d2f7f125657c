"""Sizes, shifts and relative positions of windows."""

import pytest

from jaxvit.errors import UserError
from jaxvit.models import swin


def test_relative_position_index_depends_on_the_offset_alone():
    wh, ww = 2, 3
    index = swin.relative_position_index((wh, ww))
    offsets = {}
    for q in range(wh * ww):
        for k in range(wh * ww):
            offset = (q // ww - k // ww, q % ww - k % ww)
            offsets.setdefault(offset, set()).add(int(index[q, k]))
    assert all(len(rows) == 1 for rows in offsets.values())
    rows = sorted(row for rows in offsets.values() for row in rows)
    assert rows == list(range((2 * wh - 1) * (2 * ww - 1)))
    assert index[0, 0] == (wh - 1) * (2 * ww - 1) + ww - 1  # the offset 0 lies in the middle of the table


@pytest.mark.parametrize(
    ("map_size", "window", "expected"),
    [
        ((8, 8), (4, 4), ((4, 4), (2, 2))),
        ((8, 8), (7, 7), ((7, 7), (3, 3))),
        ((7, 7), (7, 7), ((7, 7), (0, 0))),
        ((3, 9), (7, 7), ((3, 7), (0, 3))),
        ((1, 1), (4, 4), ((1, 1), (0, 0))),
    ],
)
def test_windows_are_clamped_to_small_maps(map_size, window, expected):
    assert swin.clamp_window(map_size, window, shifted=True) == expected
    assert swin.clamp_window(map_size, window, shifted=False) == (expected[0], (0, 0))


def test_window_size_forms():
    assert swin.stage_windows(7, 2) == ((7, 7), (7, 7))
    assert swin.stage_windows((4, 6), 3) == ((4, 6),) * 3
    assert swin.stage_windows((7, 14, (2, 3)), 3) == ((7, 7), (14, 14), (2, 3))
    with pytest.raises(UserError, match="each of the 4 stages"):
        swin.stage_windows((7, 7, 7), 4)
