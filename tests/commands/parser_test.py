"""What may be named as a file to write, and the nearest of several choices."""

import argparse
import os

import pytest

from jaxvit.commands.parser import check_target, file_to_write, make_parser
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


def test_weights_never_replace_the_files_of_a_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    names = ("model.safetensors", "config.json")
    args = argparse.Namespace(to=tmp_path, force=False)
    with pytest.raises(UserError, match="--force"):
        check_target(args, names)
    args.force = True
    assert check_target(args, names) == tmp_path
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds a run"):
        check_target(args, names)
