"""What may be named as a file to write, and the nearest of several choices."""

import argparse
import os

import pytest

from jaxvit.commands.parser import file_to_write, make_parser
from jaxvit.errors import UserError


def test_devices_and_pipes_are_not_replaced_by_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/null", "/dev/stdout"):
        with pytest.raises(argparse.ArgumentTypeError, match="it is a device or pipe; expected a file"):
            file_to_write(name)
    assert file_to_write("/dev/shm/new.csv").parent.is_dir()  # a directory like any other
    (tmp_path / "old.csv").write_text("")
    assert file_to_write(str(tmp_path / "old.csv")) == tmp_path / "old.csv"


def test_the_nearest_choice_is_named():
    parser = make_parser("eval", "...")
    parser.add_argument("--split", choices=("train", "val", "test"))
    with pytest.raises(UserError, match="--split.* 'tst' .*train.* Did you mean 'test'"):
        parser.parse_args(["--split", "tst"])
