"""Many short texts, such as the names of a million files, as one block of bytes: a quarter of the memory of a list."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class Texts(Sequence[str]):
    """A sequence of texts that cannot change; they are made when they are asked for."""

    def __init__(self, block: np.ndarray, lengths: np.ndarray):
        """Of the bytes of all texts, uint8, and the number of bytes of each, int [n]."""
        self.block, self.lengths = block, lengths
        self._ends = np.cumsum(lengths, dtype=np.int64)
        if len(block) != (self._ends[-1] if len(lengths) else 0):
            raise ValueError("the lengths of the texts do not add up to their bytes")

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """Of file names in any form that the system gives them."""
        encoded = [os.fsencode(text) for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int32, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), lengths)

    @classmethod
    def join(cls, parts: Sequence["Texts"]) -> "Texts":
        """Of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        blocks, lengths = [part.block for part in parts], [part.lengths for part in parts]
        return cls(np.concatenate(blocks or [[]]).astype(np.uint8), np.concatenate(lengths or [[]]).astype(np.int32))

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> "Texts": ...
    def __getitem__(self, i):
        if isinstance(i, slice):
            start, stop, step = i.indices(len(self))
            if step != 1:
                return Texts.of(self[k] for k in range(start, stop, step))
            stop = max(start, stop)
            begin, end = (int(self._ends[k - 1]) if k else 0 for k in (start, stop))
            return Texts(self.block[begin:end], self.lengths[start:stop])
        if not -len(self) <= i < len(self):
            raise IndexError(f"text {i} of {len(self)}")
        i = int(i) % len(self)
        end = int(self._ends[i])
        return os.fsdecode(self.block[end - int(self.lengths[i]) : end].tobytes())

    def __iter__(self) -> Iterator[str]:
        content, begin = self.block.tobytes(), 0
        for end in self._ends.tolist():
            yield os.fsdecode(content[begin:end])
            begin = end

    def take(self, positions: np.ndarray) -> "View":
        """Those at `positions` [k]."""
        return View(self.__getitem__, np.asarray(positions, np.int64))

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    __hash__ = None  # type: ignore[assignment]


class View(Sequence[str]):
    """Some texts of many, made when they are asked for."""

    def __init__(self, text: Callable[[int], str], at: np.ndarray):
        """`text`: position -> text; `at`: int64 [n], which of them."""
        self._text, self._at = text, at

    def take(self, positions: np.ndarray) -> "View":
        """Those at `positions` [k]."""
        return View(self._text, self._at[positions])

    def __len__(self) -> int:
        return len(self._at)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> "View": ...
    def __getitem__(self, i):
        return View(self._text, self._at[i]) if isinstance(i, slice) else self._text(int(self._at[i]))

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    __hash__ = None  # type: ignore[assignment]


def same(a: Sequence[str], b: object) -> bool:
    """Whether two sequences hold the same texts."""
    if not isinstance(b, Sequence) or isinstance(b, str) or len(a) != len(b):
        return False
    return all(one == other for one, other in zip(a, b, strict=True))
