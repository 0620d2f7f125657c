"""Small weight files and a small run for the tests of the commands."""

import shutil

from jaxvit import cli, pretrained
from tests.helpers import pretrained as pretrained_helpers

CASES = pretrained_helpers.ALL


def drawn(case):
    """A small model (a case of CASES) and its variables, drawn, with a head that tells classes apart."""
    model = pretrained_helpers.make(CASES[case])
    return model, pretrained.convert(model, pretrained_helpers.weights(model))


def write_weights(case, directory):
    """Writes the two files of a small model; returns (directory, model, variables)."""
    model, variables = drawn(case)
    pretrained.save(model, variables, directory, name=CASES[case][0])
    return directory, model, variables


def damaged(directory, target, content):
    """A copy of a directory of weights with other bytes in model.safetensors."""
    shutil.copytree(directory, target)
    (target / "model.safetensors").write_bytes(content)
    return target


def failed(capsys, argv, code=2):
    """Runs a command, checks the exit code and that stderr has one or two plain lines; returns them."""
    assert cli.main([str(word) for word in argv]) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) <= 2
    assert "Traceback" not in said and "perhaps a bug" not in said
    return said


def passed(capsys, argv):
    """Runs a command that succeeds; returns (stdout, stderr)."""
    assert cli.main([str(word) for word in argv]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err
