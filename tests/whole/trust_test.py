"""What SECURITY.md says: no code from data, private caches, checksums of what was downloaded."""

import ast
import time

import pytest

from jaxvit import config as config_lib
from jaxvit.errors import UserError
from jaxvit.pretrained import files, hub
from tests.helpers import ROOT

FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def breaches(path):
    """What in a module could turn data into code: [(line, what)]."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] in FORBIDDEN)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN:
            yield node.lineno, node.module
        if not isinstance(node, ast.Call):
            continue
        called, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        wrong = called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system")
        wrong |= called in ("np.load", "numpy.load") and words.get("allow_pickle") != "False"
        wrong |= called == "torch.load" and words.get("weights_only") != "True"
        wrong |= called.startswith("tar.extract") and called != "tar.extractfile"  # into memory
        wrong |= words.get("shell", "False") != "False"
        if wrong:
            yield node.lineno, ast.unparse(node)


def test_nothing_turns_data_into_code(tmp_path):
    paths = sorted((ROOT / "jaxvit").rglob("*.py"))
    assert len(paths) > 100
    found = [f"{path.relative_to(ROOT)}:{line}: {what}" for path in paths for line, what in breaches(path)]
    assert not found, "\n".join(found)
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\nnp.load(p)\ntorch.load(p)\neval(x)\nrun(x, shell=True)\ntar.extractall(p)\n")
    assert [line for line, _ in breaches(bad)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch {0}']",
        "model: {{name: !!python/name:os.system ''}}",
        "num_epochs: __import__('os').system('touch {0}')",
        "model: {{name: resnet18}}\n__class__: os",
        "import os; os.system('touch {0}')",
    ],
)
def test_a_config_from_a_stranger_is_only_data(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text.format(tmp_path / "made"))
    with pytest.raises(UserError):
        config_lib.load(str(tmp_path / "run.yaml"))
    assert not (tmp_path / "made").exists()


def repeated(levels):
    """A list of `levels` anchors, each of nine aliases of the one before: 9 ** levels values."""
    lists = ["&a0 [0,0,0,0,0,0,0,0,0]"]
    lists += [f"&a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return f"[{', '.join(lists)}]"


@pytest.mark.parametrize(
    "text, said",
    [
        (f"data: {{mean: {repeated(9)}}}", "more than 100000 values"),
        (f"model: {{name: resnet18, layers: {repeated(9)}}}", "more than 100000 values"),
        ("model: &m {name: resnet18, more: *m}", "an alias occurs inside"),
        ("data: {mean: &l [1, *l]}", "an alias occurs inside"),
        (f"data: {{mean: {'[' * 3000}{']' * 3000}}}", "more than 50 levels"),
        (f"seed: 1 #{'x' * 2**20}", "longer than"),
        ("? \n: 3", "is not text"),
        (f"seed: {'9' * 5000}", "a number of 5,000 digits"),
        (f"seed: 0x{'f' * 100_000}", "a number of 100,002 digits"),
        (f"seed: {':'.join(['1'] * 100_000)}", "a number of 199,999 digits"),
        ("num_epochs: 12:30", "the number 12:30 is in base 60; put it in quotes"),
        ("optim: {learning_rate: 1:30.5}", "is in base 60"),
        (f"seed: 1{'0' * 40}", "does not fit 64 bits"),
        (f"optim: {{learning_rate: 1{'0' * 40}}}", "does not fit 64 bits"),
        ("optim: {learning_rate: 1.0e+999}", "is too large"),
        ("model: {name: vit_tiny_patch16_224, drop_rate: 1.0e+999}", "is too large"),
        ("seed: !!timestamp x", "does not fit its tag"),
        ("seed: !!bool x", "does not fit its tag"),
        ("seed: !!int ''", "does not fit its tag"),
        ("seed: !!int x", "invalid literal"),
    ],
)
def test_a_config_cannot_be_made_to_last_for_ever(tmp_path, text, said):
    (tmp_path / "run.yaml").write_text(text)
    begun = time.monotonic()
    with pytest.raises(UserError, match=said):
        config_lib.load(str(tmp_path / "run.yaml"))
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "text, said",
    [
        (f'{{"seed": {"9" * 5000}}}', "a number of 5,000 digits"),
        (f'{{"seed": 1{"0" * 40}}}', "does not fit 64 bits"),
        ('{"optim": {"learning_rate": 1e999}}', "is too large"),
        (f'{{"optim": {{"learning_rate": 0.{"1" * 9999}}}}}', "a number of 10,001 digits"),
    ],
)
def test_numbers_of_a_json_config_have_limits(tmp_path, text, said):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=said):
        config_lib.load(str(tmp_path / "run.json"))


def test_numbers_that_people_write_are_read(tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 0x1f\nnum_epochs: 1_000\noptim: {learning_rate: 1.0e-3}\n")
    config = config_lib.load(str(tmp_path / "run.yaml"))
    assert (config.seed, config.num_epochs, config.optim.learning_rate) == (31, 1000, 1e-3)


def test_aliases_are_no_offence(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {mean: &m [0.5], std: *m}")
    assert config_lib.load(str(tmp_path / "run.yaml")).data.std == (0.5,)


def test_a_download_that_is_not_what_the_hub_announced_is_refused(tmp_path):
    blob = tmp_path / "blobs" / ("0" * 64)
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(blob)
    with pytest.raises(UserError, match="SHA-256"):
        hub.check(tmp_path / "model.safetensors", files.sha256(blob))
    right = blob.rename(blob.with_name(files.sha256(blob)))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to(right)
    hub.check(tmp_path / "model.safetensors", files.sha256(right))
