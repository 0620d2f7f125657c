"""What is known of something that runs, as one line: for a terminal of a given width, and for a log."""

import time
from collections.abc import Sequence

BAR = range(6, 25)  # columns
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Bar:
    """Units done of a total: `advance(n, text)` with n more done since the last call."""

    def __init__(self, title: str, total: int | None, unit: str = "images", *, step: int = 1, after: int = 0):
        """The arguments of `console.bar`."""
        self.title, self.total, self.unit, self.step, self.after = title, total, unit, step, after
        self._texts: Sequence[str] = ()
        self._done, self._untimed, self._widest = 0, 0, 0
        self.since = self._begun = time.monotonic()

    def leave_out(self, seconds: float, n: int) -> None:
        """Takes `seconds` and `n` units out of the rate: a step that was compiled says nothing of those to come."""
        self._begun += seconds
        self._untimed += n

    def advance(self, n: int, text: str = "") -> None:
        """Counts `n` more units done; the parts of `text`, which two spaces divide, are shown next to the rate."""
        self._done += n
        self._texts = [part for part in text.split("  ") if part]

    @property
    def _rate(self) -> float:
        """Units per second; 0 while unknown."""
        seconds = time.monotonic() - self._begun
        return max(self._done - self._untimed, 0) / seconds if seconds > 0 else 0.0

    def _seconds_left(self, beyond: int = 0) -> float | None:
        rate = self._rate
        return max(self.total - self._done + beyond, 0) / rate if rate and self.total is not None else None

    def _count(self) -> str:
        """Of units, "12/40"; of steps, "step 3/10"; of bytes, "1.2 MB/170 MB"."""
        if self.unit == "B":
            return "/".join(size(n) for n in (self._done, self.total) if n is not None)
        done, total = self._done // self.step, None if self.total is None else -(-self.total // self.step)
        shown = f"{done:,}" if total is None else f"{done:>{len(f'{total:,}')},}/{total:,}"
        return f"step {shown}" if self.step > 1 else shown

    def _rates(self) -> str:
        rate = self._rate
        if not rate:
            return ""
        shown = f"{size(rate)}/s" if self.unit == "B" else f"{rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s"
        self._widest = max(self._widest, len(shown))
        return shown.rjust(self._widest)  # what is next to it does not jump

    def log_line(self) -> str:
        """The line of a log."""
        left, whole = self._seconds_left(), self._seconds_left(self.after)
        remaining = "" if left is None else f"{duration(left)} left"
        remaining += f" (run: {duration(whole)})" if self.after and whole is not None else ""
        count = " ".join(self._count().split())
        return "  ".join(filter(None, [self.title, count, *self._texts, self._rates().lstrip(), remaining]))

    def line(self, width: int, *, full: str = "━", empty: str = "─") -> str:
        """One line of at most `width` columns: where they are few, what says least is left out."""
        left, whole = self._seconds_left(), self._seconds_left(self.after)
        first, *others = self._texts or [""]
        clocks = ["" if left is None else clock(left), f"run {clock(whole)}" if self.after and whole else ""]
        shown = [self.title, "", self._count(), first, *others, self._rates(), *clocks]
        last = len(shown) - 1
        room = width - len(self.title)
        kept = {0}
        drawn = self.total is not None
        for i in (2, last - 1, 3, 1, last - 2, last, *range(4, last - 2)):  # the most telling first
            needed = (BAR[0] if drawn else 0) + 1 if i == 1 else len(shown[i]) + 2
            if not shown[i] and not (i == 1 and drawn):
                continue
            if needed > room:
                break
            kept.add(i)
            room -= needed
        if 1 in kept:
            columns = min(BAR[0] + room, BAR[-1])
            filled = round(columns * min(self._done / max(self.total or 0, 1), 1))
            shown[1] = full * filled + empty * (columns - filled)
        texts = [shown[i] for i in sorted(kept)]
        if 1 in kept:  # one space around the bar
            texts[:2] = [f"{texts[0]} {texts[1]}"]
        return _cut("  ".join(texts), width)

    def last(self, width: int) -> str:
        """What stays of it where nothing can be removed."""
        return self.line(width)


class Wait:
    """Something of unknown length."""

    def __init__(self, title: str):
        """The argument of `console.working`."""
        self.title, self.since = title, time.monotonic()

    def update(self, title: str) -> None:
        """Another thing, which begins now."""
        self.title, self.since = title, time.monotonic()

    def log_line(self) -> str:
        """The line of a log."""
        return f"{self.title}: {duration(time.monotonic() - self.since)} so far"

    def line(self, width: int, *, full: str = "━", empty: str = "─") -> str:
        """One line of at most `width` columns, which moves."""
        frames = SPINNER if full != "#" else "|/-\\"
        now = time.monotonic()
        return _cut(f"{frames[int(now * 8) % len(frames)]} {self.title}  {clock(now - self.since)}", width)

    def last(self, width: int) -> str:
        """What stays of it where nothing can be removed."""
        return _cut(f"{self.title}: {duration(time.monotonic() - self.since)}", width)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def duration(seconds: float) -> str:
    """Returns "1.2 s", "3 min 20 s" or "2 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """Returns "0:07", "3:20" or "2:05:00"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def size(number: float) -> str:
    """Bytes: "812 B", "4.50 MB"."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {letter}B"
    return f"{number:.0f} B"
