"""The command configs: recipes are listed, shown and copied."""

from pathlib import Path

from jaxvit import __version__, cli, config
from jaxvit.config import recipes, reference
from tests.helpers.commands import failed, passed


def test_recipes_are_listed_and_shown(capsys):
    out, _ = passed(capsys, ["configs"])
    assert all(name in out for name in (*recipes.names(), *recipes.studies()))
    out, _ = passed(capsys, ["configs", "digits_vit"])
    assert out == recipes.names()["digits_vit"].read_text()


def test_a_copy_is_a_config_and_is_never_replaced(capsys, tmp_path):
    passed(capsys, ["configs", "scratch_swin_cifar", "cifar100_asam", "--copy", tmp_path / "mine"])
    files = sorted(str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*.py"))
    assert files == ["scratch_swin_cifar.py", "studies/cifar100_asam.py"]
    assert config.load(str(tmp_path / "mine" / "scratch_swin_cifar.py")).model.name.startswith("swin")
    (tmp_path / "mine" / "scratch_swin_cifar.py").write_text("mine")
    assert "nothing was copied" in failed(capsys, ["configs", "--copy", tmp_path / "mine"])
    assert Path(tmp_path / "mine" / "scratch_swin_cifar.py").read_text() == "mine"
    assert "'digits_vit'" in failed(capsys, ["configs", "digit_vit"])


def test_options_are_looked_up_by_name_and_meaning(capsys):
    out, _ = passed(capsys, ["configs", "--options"])
    assert sum(not line.startswith(" ") for line in out.splitlines()) == len(reference.options())
    out, _ = passed(capsys, ["configs", "--options", "optim.sam.*"])
    assert out.startswith("optim.sam.rho = 0.0 (a number)\n    radius of SAM's perturbation; 0: off\n")
    assert all(line.startswith(("optim.sam.", "    ")) for line in out.splitlines())
    out, _ = passed(capsys, ["configs", "--options", "Weights & Biases"])
    assert out.startswith("wandb.project")
    assert "'augment.flip'" in failed(capsys, ["configs", "--options", "augment.flop"])


def test_version(capsys):
    try:
        cli.main(["--version"])
    except SystemExit as end:
        assert end.code == 0
    assert capsys.readouterr().out == f"jaxvit {__version__}\n"
