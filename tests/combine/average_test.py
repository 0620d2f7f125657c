"""Averages and soups: the recipe by hand, statistics of BatchNorm against torch, the command on runs and files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import cli, inference, models, pretrained
from jaxvit.combine import average, batch_norm, gain
from jaxvit.combine.passes import Member, logits_of
from jaxvit.data.splits import shuffled
from jaxvit.errors import UserError
from tests.helpers import write_npz
from tests.helpers.convnets import draw


def test_the_recipe_of_greedy_soups():
    """Ingredients are numbers, an average of them is their mean, and a score is how near that is to 1."""
    offered = [0.0, 0.7, 1.5, 1.3, 5.0]
    kept, weights, value = average.greedy_soup(
        [-abs(x - 1) for x in offered], lambda chosen: np.mean([offered[i] for i in chosen]), lambda x: -abs(x - 1)
    )
    # 0.7 (or 1.3) is best, then 1.3 makes it 1.0; 1.5, 0.0 and 5.0 each make it worse
    assert sorted(kept) == [1, 3] and weights == pytest.approx(1.0) and value == pytest.approx(0.0)
    kept, *_ = average.greedy_soup([0.5, 0.5, 0.4], lambda chosen: chosen, lambda chosen: 0.5)
    assert kept == [0, 1, 2]  # what changes nothing stays, in the order of the ingredients


def test_mean_is_in_float64():
    trees = [{"a": np.float32([16777216.0, 1])}, {"a": np.float32([1.0, 2])}, {"a": np.float32([1.0, 6])}]
    found = average.mean(trees)["a"]
    assert found.dtype == np.float32 and found.tolist() == [np.float32(16777218 / 3), 3.0]


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A ResNet with drawn weights, and ten images to train on."""
    name = write_npz(tmp_path_factory.mktemp("bn"), num_train=10, num_test=6, size=32)
    model = models.create_model("resnet18", num_classes=3, layers=(1, 1, 1, 1))
    variables = draw(model, jnp.zeros((1, 32, 32, 3)))
    config = {"image_size": (32, 32), "mean": (0.4,) * 3, "std": (0.2,) * 3, "crop_pct": 1.0, "in_channels": 3,
              "interpolation": "bicubic"}  # fmt: skip
    return inference.Classifier("resnet18", model, variables, ["0", "1", "2"], config), name


@pytest.mark.torch
def test_batch_norm_statistics_are_those_of_torch(resnet):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    one, name = resnet
    opened = inference.open_split(one, "train", data_name=name)
    found = batch_norm.update(one.model, one.variables, opened, 4)  # batches of 4, 4 and 2
    theirs = timm.create_model("resnet18", num_classes=3, layers=(1, 1, 1, 1))
    state = pretrained.export(one.model, one.variables)
    theirs.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()}, strict=False)
    images = (np.asarray(opened.split.images[shuffled(10, batch_norm.SEED)]).astype(np.float32) / 255 - 0.4) / 0.2
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    torch.optim.swa_utils.update_bn([tensor[:4], tensor[4:8], tensor[8:]], theirs)
    expected = theirs.state_dict()
    for key, value in pretrained.export(one.model, found).items():
        if "running" in key:
            np.testing.assert_allclose(value, expected[key].numpy(), rtol=2e-4, atol=2e-5, err_msg=key)
    assert all(np.array_equal(a, b) for a, b in zip(
        jax.tree.leaves(found["params"]), jax.tree.leaves(one.variables["params"]), strict=True))  # fmt: skip


def member(label, one, **words):
    return Member(label, dataclasses.replace(one, **words))


def test_what_cannot_be_averaged(resnet):
    one, _ = resnet
    head = {**one.variables, "params": {**one.variables["params"], "more": np.zeros(2)}}
    for other, said in (
        (member("b", one, name="resnet34"), "different models"),
        (member("b", one, variables=head), r"params/more is missing and \(2,\)"),
        (member("b", one, model=one.model.clone(image_size=64)), "image_size is"),
        (member("b", one, class_names=["0", "2", "1"]), "different order"),
        (member("b", one, data_config=one.data_config | {"mean": (0.5,) * 3}), "different preprocessing: mean"),
        (member("b", one), "no --data NAME: its BatchNorm needs training images"),
    ):
        with pytest.raises(UserError, match=said):
            average.make([member("a", one), other], greedy=False)


class TestCommand:
    """`convert --average` and `--soup`."""

    def test_average_of_runs(self, runs, tmp_path, capsys):
        words = ["convert", "--average", str(runs / "run0"), str(runs / "near"), "--to", str(tmp_path / "mean")]
        assert cli.main(words) == 0
        out = capsys.readouterr().out
        a, b = (inference.from_run(runs / name) for name in ("run0", "near"))
        found = inference.from_name("vit_tiny_patch16_224", str(tmp_path / "mean"))
        for x, y, z in zip(*(jax.tree.leaves(c.variables) for c in (a, b, found)), strict=True):
            np.testing.assert_allclose(z, (np.float64(x) + np.float64(y)) / 2, rtol=1e-6, atol=1e-7)
        opened = inference.open_split(a)
        logits = [logits_of(c, opened, 64)[0] for c in (a, b, dataclasses.replace(a, variables=found.variables))]
        hits = [np.mean(x.argmax(1) == opened.split.labels) for x in logits]
        assert f"{100 * (hits[2] - max(hits[:2])):+.2f} points of top-1" in out
        data = ["--data", f"npz:{runs / 'data'}"]
        files = ["--model", "vit_tiny_patch16_224", "--checkpoint", str(tmp_path / "mean")]
        assert cli.main(["eval", *files, *data]) == 0 and f"{hits[2]:.2%}" in capsys.readouterr().out

    def test_a_soup_leaves_out_what_harms(self, runs, tmp_path, capsys):
        members = [str(runs / name) for name in ("far", "run0", "near")]
        assert cli.main(["convert", "--soup", *members, "--to", str(tmp_path / "soup")]) == 0
        out = capsys.readouterr().out
        kept = {line.split()[0].rpartition("/")[2]: line.split()[-1] for line in out.splitlines() if "%" in line}
        assert kept["far"] == "no" and "yes" in (kept["run0"], kept["near"])
        assert "gain over the best on validation" in out and "soup of" in out

    def test_files_without_data(self, runs, tmp_path, capsys):
        for name in ("run0", "near"):
            assert cli.main(["convert", "--from", str(runs / name), "--to", str(tmp_path / name)]) == 0
        files = [str(tmp_path / "run0"), str(tmp_path / "near")]
        words = ["convert", "--average", *files, "--model", "vit_tiny_patch16_224", "--to", str(tmp_path / "mean")]
        assert cli.main(words) == 0
        assert "is not measured" in capsys.readouterr().err and (tmp_path / "mean/model.safetensors").is_file()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--average", "run0"], "--average needs two models"),
            (["--soup", "run0", "run0"], "was given twice"),
            (["--soup", "run0", "run1"], "the val images of"),
            (["--average", "run0", "other"], "were trained on different data"),
            (["--average", "run0", "data"], "weight files need --model NAME"),
            (["--average", "run0", "gone"], "no run or weight file"),
            (["--average", "run0", "near", "--num-classes", "2"], "--num-classes cannot be combined with --average"),
            (["--average", "run0", "near", "--soup", "run0", "near"], "one of --average and --soup"),
            (["--from", "run0", "--data", "digits"], "--data needs --average or --soup"),
        ],
    )
    def test_mistakes(self, runs, tmp_path, capsys, words, said):
        names = ("run0", "run1", "near", "other", "data", "gone")
        line = [str(runs / word) if word in names else word for word in words]
        code = cli.main(["convert", *line, "--to", str(tmp_path / "out")])
        err = capsys.readouterr().err
        assert code == 2 and said in err and len(err.splitlines()) <= 2 and not (tmp_path / "out").exists()


def test_scores_are_those_of_evaluation(runs):
    one = inference.from_run(runs / "near")
    opened = inference.open_split(one)
    found = gain.scores(logits_of(one, opened, 64)[0], opened.split.labels)
    for name, value in inference.evaluate_split(one).metrics.items():
        assert found[name] == pytest.approx(value, rel=1e-5)
