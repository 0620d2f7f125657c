"""Small weight files, and what refuses one."""

import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.pretrained import read

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.array([1.5, -2], np.float16),
    "n": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


def assert_plain(path, match):
    with pytest.raises(UserError, match=match) as error:
        read(path)
    assert len(str(error.value).splitlines()) <= 2
    assert str(error.value).isprintable() or "\n" in str(error.value)


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return (open, (str(Bomb.target), "w"))
