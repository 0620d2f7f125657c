"""A run that starts from another run's weights, at a higher resolution."""

import shutil

import numpy as np
import pytest

from jaxvit import inference, train
from jaxvit.config.compare import differences
from jaxvit.errors import UserError
from jaxvit.pretrained.resample import resample_abs_pos_embed
from jaxvit.train import start
from jaxvit.train.prepare import prepare
from jaxvit.workdir import run_files
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    root = tmp_path_factory.mktemp("first")
    config = tiny_config(write_npz(root / "data", size=16), num_epochs=1, data__image_size=8)
    train.train_and_evaluate(config, root / "run")
    return root


def test_a_run_starts_from_another_one_at_a_higher_resolution(first, tmp_path):
    config = tiny_config(f"npz:{first / 'data'}", data__image_size=16, pretrained=f"{first / 'run'}/")
    found = start.copied(config, tmp_path)
    assert config.pretrained == f"{first / 'run'}/" and found.pretrained == str(tmp_path.resolve() / "start")
    run, state = prepare(found, tmp_path)
    run.checkpoints.close()
    known = inference.from_run(first / "run").variables["params"]
    np.testing.assert_array_equal(state.params["head"]["kernel"], known["head"]["kernel"])
    want = resample_abs_pos_embed(np.asarray(known["pos_embed"]), (4, 4), (2, 2), 1)
    np.testing.assert_allclose(state.params["pos_embed"], want, rtol=1e-6)
    assert any("pos_embed resampled from 2x2 to 4x4" in note for note in run.origin["notes"])
    assert start.copied(found, tmp_path) is found
    assert not differences(found, {**run.blueprint.words, "pretrained": "/elsewhere/start"})


@pytest.fixture
def two(first, tmp_path):
    """The workdirs of two runs of the same model, with weights of their own."""
    a, b = tmp_path / "a", tmp_path / "b"
    for target, value in ((a, 1.0), (b, 2.0)):
        shutil.copytree(first / "run", target)
        words = run_files.read_json(target / "config.json")
        run_files.write_json(target / "config.json", {**words, "seed": int(value)})
        (target / "manifest.json").unlink()
    return a, b


def test_a_start_that_came_to_nothing_leaves_no_weights_to_the_next(two, tmp_path):
    a, b = two
    for place in (a, b):
        config = tiny_config("digits", pretrained=str(place))
        assert start.kept(config, tmp_path / "run") is config
        (tmp_path / "run").mkdir(exist_ok=True)
        start.copied(config, tmp_path / "run")
        assert run_files.read_json(tmp_path / "run" / "start" / start.ORIGIN)["run"] == str(place)
    run_files.remove_run(tmp_path / "run")  # as a dry run is
    assert not list((tmp_path / "run").iterdir())


def test_a_run_that_has_begun_keeps_its_weights_though_the_other_run_is_gone(two, tmp_path, first):
    (a, b), workdir = two, tmp_path / "run"
    given = tiny_config(f"npz:{first / 'data'}", data__image_size=8, pretrained=str(a), num_epochs=1, seed=1)
    shutil.copytree(a, workdir)  # as if it had started from itself
    start.copied(given, workdir)
    words = run_files.read_json(workdir / "config.json")
    run_files.write_json(workdir / "config.json", {**words, "pretrained": str(workdir / "start")})
    done = train.train_and_evaluate(given, workdir)
    assert done["test/loss"] == run_files.read_json(a / "summary.json")["final"]["test/loss"]
    a.rename(tmp_path / "moved")
    assert train.train_and_evaluate(given, workdir) == done  # the same command
    given.pretrained = str(tmp_path / "moved")  # the same run
    assert train.train_and_evaluate(given, workdir) == done
    record = workdir / "start" / start.ORIGIN
    for there in (False, True):  # an earlier version kept none
        record.rename(tmp_path / "record") if not there else (tmp_path / "record").rename(record)
        for name, same in (("deit_tiny_patch16_224.fb_in1k", True), (str(b), there)):
            given.pretrained = name
            assert (start.kept(given, workdir) is given) == same
    with pytest.raises(UserError, match=rf"different config \(pretrained: .*start -> {b}\)"):
        train.train_and_evaluate(given, workdir)


def test_a_refused_start_leaves_nothing_in_the_workdir_of_another_run(two):
    a, b = two
    before = sorted(a.iterdir())
    config = run_files.read_json(a / "config.json")
    with pytest.raises(UserError, match="different config"):
        train.train_and_evaluate(tiny_config(config["data"]["name"], pretrained=str(b)), a)
    assert sorted(a.iterdir()) == before


def test_a_run_without_checkpoints_is_said_to_have_none(two, tmp_path):
    shutil.rmtree(two[0] / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint in"):
        start.copied(tiny_config("digits", pretrained=str(two[0])), tmp_path)


def test_a_run_of_another_model_is_refused(first, tmp_path):
    config = tiny_config("digits", pretrained=str(first / "run"))
    config.model = {"name": "resnet18"}
    with pytest.raises(UserError, match="is a run of vit_tiny_patch16_224; model.name is resnet18"):
        start.copied(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_weights_stay_as_they_are(tmp_path):
    for name in ("config.json", "classes.json", "model.safetensors"):  # as `export` writes them
        (tmp_path / name).touch()
    for name in (None, "deit_tiny_patch16_224.fb_in1k", str(tmp_path)):
        config = tiny_config("digits", pretrained=name)
        assert start.copied(config, tmp_path) is config


def test_a_search_for_a_learning_rate_leaves_the_weights_that_a_run_began_with(two, tmp_path, first):
    (a, b), workdir = two, tmp_path / "run"
    shutil.copytree(first / "run", workdir)
    start.copied(tiny_config("digits", pretrained=str(a)), workdir)
    before = sorted(path.relative_to(workdir) for path in workdir.rglob("*"))
    with start.lent(tiny_config("digits", pretrained=str(b)), workdir) as config:
        assert run_files.read_json(workdir / "start.part/start" / start.ORIGIN)["run"] == str(b)
        assert config.pretrained == str((workdir / "start.part/start").resolve())
    assert run_files.read_json(workdir / "start" / start.ORIGIN)["run"] == str(a)
    assert sorted(path.relative_to(workdir) for path in workdir.rglob("*")) == before
    with start.lent(tiny_config("digits", pretrained=str(a)), workdir) as config:
        assert config.pretrained == str((workdir / "start").resolve())
