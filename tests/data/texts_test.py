"""Many texts as one block of bytes."""

import os

import pytest

from jaxvit.data.texts import Texts


def test_texts_are_what_went_in():
    given = ["a", "", "größer/犬.jpg", os.fsdecode(b"\xe9\xff"), "z" * 300]
    texts = Texts.of(given)
    assert list(texts) == given and len(texts) == 5 and [texts[i] for i in range(-5, 5)] == given * 2
    assert texts == given and texts == Texts.of(given) and texts != given[:4] and texts != "abcde"
    for cut in (slice(1, 4), slice(None), slice(4, 1), slice(None, None, -2), slice(-2, None)):
        assert list(texts[cut]) == given[cut]
    assert list(Texts.join([texts[:2], texts[2:]])) == given
    assert list(Texts.of([])) == [] == list(Texts.join([]))
    with pytest.raises(IndexError):
        texts[5]
    with pytest.raises(ValueError, match="do not add up"):
        Texts(texts.block[1:], texts.lengths)
