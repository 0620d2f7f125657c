"""The line of something that runs."""

import pytest

from jaxvit.runtime import meter


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    return now


def epoch(clock):
    bar = meter.Bar("epoch 3/90", 12_800, step=128, after=87 * 12_800)
    clock[0] = 40.0  # the first step, compiled
    bar.leave_out(40.0, 128)
    bar.advance(128, "loss 2.310  accuracy 12.1%")
    clock[0] = 50.0  # ten seconds for the next 25 steps: 320 images a second
    bar.advance(25 * 128, "loss 2.250  accuracy 14.2%")
    return bar


def test_a_log_line_says_epoch_step_loss_rate_and_when_it_ends(clock):
    assert epoch(clock).log_line().split("  ") == [
        "epoch 3/90", "step 26/100", "loss 2.250", "accuracy 14.2%", "320 images/s", "29.6 s left (run: 58 min 30 s)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (120, {"epoch 3/90", "26/100", "loss", "accuracy", "images/s", "0:30", "run 58:30", "━"}),
        (80, {"epoch 3/90", "26/100", "loss", "images/s", "0:30", "run 58:30", "━"}),
        (60, {"epoch 3/90", "26/100", "loss", "0:30", "━"}),
        (32, {"epoch 3/90", "26/100", "0:30"}),
        (8, {"epoch 3"}),
    ],
)
def test_a_narrow_terminal_leaves_out_what_says_least(clock, width, shown):
    line = epoch(clock).line(width)
    words = ("epoch 3/90", "26/100", "loss", "accuracy", "images/s", "0:30", "run 58:30", "━")
    assert len(line) <= width
    assert {word for word in words if word in line} == {word for word in shown if word in words}
    assert shown <= {word for word in (*words, "epoch 3") if word in line}


def test_no_width_is_exceeded(clock):
    for width in range(1, 200):
        assert len(epoch(clock).line(width)) <= width
        assert len(meter.Wait("compiling the training step").line(width)) <= width


def test_a_full_bar_is_full_and_an_empty_one_empty(clock):
    bar = meter.Bar("x", 10)
    assert "━" not in bar.line(60) and "─" * 24 in bar.line(60)
    clock[0] = 1.0
    bar.advance(12)  # padded
    assert "─" not in bar.line(60) and "#" * 24 in bar.line(60, full="#", empty="-")
    assert meter.Bar("nothing to do", 0).log_line() == "nothing to do  0/0"


def test_bytes_of_a_file_of_known_and_of_unknown_length(clock):
    known, unknown = meter.Bar("downloading x", 170_000_000, "B"), meter.Bar("downloading x", None, "B")
    clock[0] = 2.0
    for bar in (known, unknown):
        bar.advance(34_000_000)
    assert known.log_line() == "downloading x  34 MB/170 MB  17 MB/s  8.0 s left"
    assert unknown.log_line() == "downloading x  34 MB  17 MB/s"
    assert "━" not in unknown.line(80)


def test_a_wait_says_for_how_long(clock):
    wait = meter.Wait("compiling")
    clock[0] = 130.0
    assert wait.log_line() == "compiling: 2 min 10 s so far" and "2:10" in wait.line(40)
    wait.update("measuring")
    assert wait.log_line() == "measuring: 0.0 s so far"


def test_times_as_people_write_them():
    assert [meter.duration(s) for s in (1.23, 200, 7500)] == ["1.2 s", "3 min 20 s", "2 h 05 min"]
    assert [meter.clock(s) for s in (7, 200, 7500)] == ["0:07", "3:20", "2:05:00"]
    assert [meter.size(n) for n in (812, 4.5e6, 170e6)] == ["812 B", "4.5 MB", "170 MB"]
