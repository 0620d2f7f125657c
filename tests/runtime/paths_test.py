"""Where a run can be kept."""

import os

import pytest

from jaxvit.errors import UserError
from jaxvit.workdir import run_files


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "run [b]", "a*", "what?"])
def test_a_place_that_no_checkpoint_can_be_written_to_is_refused_first(tmp_path, name):
    with pytest.raises(UserError, match="bytes that are not UTF-8" if "caf" in name else "choose a path without"):
        run_files.make_workdir(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
