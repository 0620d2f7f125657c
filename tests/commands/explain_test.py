"""The command explain: which images, which files, and mistakes in two lines."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit import data, explain, inference
from jaxvit.commands import explain as explain_cli
from jaxvit.commands import figures, maps
from jaxvit.data.splits import Split
from jaxvit.errors import UserError
from jaxvit.models import create_model
from jaxvit.pretrained import convert
from tests.helpers.pretrained import weights

DATA_CONFIG = {
    "image_size": (16, 24), "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 1.0, "interpolation": "bilinear",
    "in_channels": 3,
}  # fmt: skip


def make_classifier(name="vit_tiny_patch16_224", **fields):
    model = create_model(
        name, num_classes=3, image_size=(16, 24), patch_size=8, embed_dim=16, depth=1, num_heads=2, **fields
    )
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 24, 3)))
    return inference.Classifier(name, model, variables, ["cat", "dog", "eel"], DATA_CONFIG)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "from_run", lambda workdir: make_classifier())
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photo{i}.png")
    (tmp_path / "run").mkdir()
    return tmp_path


def test_figures_of_files_for_two_runs(run, capsys):
    words = ["--workdir", str(run / "run"), "--workdir", str(run / "run"), str(run), "--method", "hirescam"]
    assert explain_cli.run(words) == 0
    files = sorted(p.name for p in (run / "run" / "explain").iterdir())
    stems = ("grid", "heat", "photo0", "photo1")
    assert files == sorted(f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf"))
    said = capsys.readouterr().out
    assert "photo1" in said and "%" in said


def test_wrong_answers_are_marked(run, capsys):
    classifier, photo = make_classifier(), Image.open(run / "photo0.png")
    pictures = [
        figures.Picture(name, photo, true) for name, true in (("a", "cat"), ("b", "dog"), ("c", "eel"), ("d", None))
    ]
    args = explain_cli._arguments(["--workdir", "x"])
    results = explain_cli._explain(classifier, pictures, args)
    said = results[0].text.split("\n")[0]
    assert [r.wrong for r in results] == [said != "cat", said != "dog", said != "eel", False]
    asked = explain_cli._explain(classifier, pictures, explain_cli._arguments(["--workdir", "x", "--class", "eel"]))
    assert not any(r.wrong for r in asked)  # eel was asked for; it is no answer
    figures.write(run / "out", pictures, ["vit"], [results], args)
    assert capsys.readouterr().out.count("✗") == 2
    pixels = [np.asarray(Image.open(run / "out" / f"{name}.png").convert("RGB")).reshape(-1, 3) for name in "abcd"]
    vermillion = [bool((p == (0xB3, 0x47, 0x00)).all(-1).any()) for p in pixels]
    assert vermillion == [r.wrong for r in results]


def test_the_rest_is_explained_where_a_file_cannot_be_read(run, capsys):
    (run / "a.jpg").write_bytes(b"broken")
    (run / "._photo0.png").write_bytes(b"of a Mac")
    words = ["--workdir", str(run / "run"), str(run)]
    assert explain_cli.run(words) == 1  # a third of the files
    said = capsys.readouterr()
    assert f"skipped {run / 'a.jpg'}: no image data" in said.err and "1 of 3 image files cannot be read" in said.err
    assert str(run / "photo1.png") in said.out  # in the table: files by their whole names
    assert (run / "run" / "explain" / "photo1.png").exists()
    with pytest.raises(UserError, match="a.jpg: not a readable image"):
        explain_cli.run(["--force", "--workdir", str(run / "run"), str(run / "a.jpg")])


def test_samples_are_named_by_file_or_place(run, capsys, monkeypatch):
    split = Split(
        "test", np.array([0, 1, 2]), np.array([5, 7, 9]), lambda i: Image.new("RGB", (9, 9)), stored="train.npz"
    )
    files = dataclasses.replace(split, names=["cat/1.jpg", "dog/1.jpg", "eel/1.jpg"])
    np.savez(run / "run/predictions.npz", logits=np.eye(3), labels=split.labels, index=split.index)
    for of, names, stems in (
        (split, ["train.npz[5]", "train.npz[9]"], ["train.npz_5", "train.npz_9"]),
        (files, ["cat/1.jpg", "eel/1.jpg"], ["cat_1", "eel_1"]),
    ):
        monkeypatch.setattr(inference, "own_data", lambda *_, of=of: SimpleNamespace(test=of))
        out = run / stems[0]
        assert explain_cli.run(["--workdir", str(run / "run"), "--samples", "2", "--out", str(out)]) == 0
        said = capsys.readouterr().out
        assert all(name in said for name in names)
        assert {p.stem for p in out.glob("*.png")} == {"grid", "heat", *stems}
    again, before = (
        ["--workdir", str(run / "run"), "--samples", "1", "--out", str(out)],
        (out / "grid.png").read_bytes(),
    )
    with pytest.raises(UserError, match="already holds 'grid.png'; .*--out, .*--force"):
        explain_cli.run(again)
    assert (out / "grid.png").read_bytes() == before
    assert explain_cli.run([*again, "--force"]) == 0 and (out / "grid.png").read_bytes() != before


def test_samples_are_found_again_where_photos_have_come_and_gone(capsys):
    def split(name, *names):
        pictures = {n: Image.new("RGB", (9, 9), n.partition("/")[2]) for n in names}
        index = np.arange(len(names)) + 5
        return Split(name, np.zeros(len(names), int), index, lambda i: pictures[names[i]], names=list(names))

    known = {"logits": np.eye(3), "labels": np.array([0, 1, 2]), "index": np.array([5, 6, 7])}
    names = ["cat/#f00", "dog/#0f0", "eel/#00f"]
    now = SimpleNamespace(
        name="folder:p", test=split("test", "cat/#fff", *names[:2]), val=split("val", names[2]), train=None
    )
    known["names"] = np.array(names)
    there, places = explain_cli._found(now, known)
    found = {i: split.read(place).getpixel((0, 0)) for i, (split, place) in places.items()}
    assert there.tolist() == [0, 1, 2]
    assert found == {0: (255, 0, 0), 1: (0, 255, 0), 2: (0, 0, 255)}
    now.val = now.train = split("val")
    assert explain_cli._found(now, known)[0].tolist() == [0, 1]
    assert "1 of the 3 images" in capsys.readouterr().err
    now.test = now.val
    with pytest.raises(UserError, match="none of the images"):
        explain_cli._found(now, known)


def test_one_model_has_several_pairs_in_a_row(run, monkeypatch):
    from jaxvit.explain import overlay

    drawn = []
    monkeypatch.setattr(overlay, "grid", lambda rows, titles, heads, **_: drawn.append((rows, titles, heads)))
    monkeypatch.setattr(overlay, "save", lambda figure, path: [path])
    pictures = [figures.Picture(f"{i}.png", None) for i in range(40)]
    results = [figures.Result(np.zeros((2, 2, 3)), np.zeros((2, 2)), f"answer {i}") for i in range(40)]
    args = explain_cli._arguments(["--workdir", "x"])
    figures.write(run / "out", pictures, ["vit"], [results], args)
    grids = drawn[40::2]  # after a figure for each image, pages of overlays and of heat
    assert [len(rows) for rows, _, _ in grids] == [12, 2]
    assert grids[0][1][0] == ["0.png", "answer 0", "1.png", "answer 1", "2.png", "answer 2"]
    assert grids[1][1][-1] == ["39.png", "answer 39"] and len(grids[0][2]) == 6
    drawn.clear()
    figures.write(run / "out", pictures, ["a", "b"], [results] * 2, args)
    assert [len(rows[0]) for rows, _, _ in drawn[40:]] == [3] * 8


def _explained(run, *words):
    """Results of the two photos of the fixture."""
    args = explain_cli._arguments(["--workdir", "x", *words])
    photos = [figures.Picture(f"photo{i}", Image.open(run / f"photo{i}.png"), stem=f"photo{i}") for i in range(2)]
    return explain_cli._explain(make_classifier(), photos, args), photos, args


def test_every_method_of_grad_cam_is_a_method_of_the_command():
    assert set(explain.METHODS) < set(maps.METHODS)
    assert {name for name, method in maps.METHODS.items() if method.layer} == {*explain.CAM_METHODS, maps.PCA}


def test_the_caption_says_whether_integrated_gradients_are_complete(run):
    results, photos, _ = _explained(run, "--method", "integrated_gradients", "--passes", "24", "--class", "dog")
    classifier = make_classifier()
    images = np.stack([data.preprocess(photo.image, DATA_CONFIG) for photo in photos])
    logits = [classifier.model.apply(classifier.variables, x)[:, 1] for x in (images, np.zeros_like(images))]
    for result, rise in zip(results, logits[0] - logits[1], strict=True):
        said = re.fullmatch(r"dog\n[\d.]+%\nsum (-?[\d.]+), logit's rise (-?[\d.]+)", result.text)
        assert said and abs(float(said[2]) - rise) < 0.006 and abs(float(said[1]) - rise) < 0.03
        assert result.map.min() == 0 and result.map.max() > 0.8  # enlarged by interpolation


def test_scores_stand_beside_the_map_of_a_perturbation(run):
    results, _, _ = _explained(run, "--method", "lime", "--passes", "40", "--scores")
    for result in results:
        said = result.text.split("\n")[2:]
        assert [re.sub(r"-?[\d.]+", "N", line) for line in said] == [
            "R² of the linear model N", "deletion N (random N)", "insertion N (random N)",
        ]  # fmt: skip
    again, _, _ = _explained(run, "--method", "lime", "--passes", "40")
    np.testing.assert_array_equal([r.map for r in results], [r.map for r in again])


def test_components_and_heads_are_drawn(run):
    results, photos, args = _explained(run, "--method", "pca", "--fit", "all", "--layer", "patch_embed")
    assert results[0].map.shape == (3, 112, 168) and re.search(r"\nvariance \d+%, \d+%, \d+%$", results[1].text)
    figures.write(run / "pca", photos, ["vit"], [results], args)
    stems = ("grid", "photo0", "photo1")  # and no page of heat
    assert {p.name for p in (run / "pca").iterdir()} == {f"{s}.{suffix}" for s in stems for suffix in ("png", "pdf")}
    results, photos, args = _explained(run, "--method", "attention_heads", "--block", "0")
    assert results[0].map.shape == (2, 112, 168)
    rows = figures._rows(photos[0], ["a", "b"], [results[0]] * 2, args)
    assert [row.titles[1:] for row in rows] == [["head 0", "head 1"]] * 2
    assert rows[1].titles[0].startswith("photo0\nb\n")
    wide = figures._rows(photos[0], ["a"], [results[0]._replace(map=np.zeros((12, 112, 168)))], args)
    assert [len(row.heats) for row in wide] == [7, 6] and wide[1].titles[-1] == "head 11"


def test_a_dino_without_a_classifier_shows_its_features(run, monkeypatch):
    """Components of the last norm's patches, at the image's own size; what needs a class says so."""
    fields = {"num_classes": 0, "num_reg_tokens": 2, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = create_model("vit_small_patch16_dinov3", image_size=(16, 24), **fields)
    variables = convert(model, weights(model))
    classifier = inference.Classifier("dino", model, variables, [], DATA_CONFIG)
    monkeypatch.setattr(inference, "from_name", lambda *args, features: classifier if features else None)
    words = ["--model", "dino", str(run / "photo0.png")]
    args = explain_cli._arguments([*words, "--method", "pca"])
    pictures = [figures.Picture("photo0", Image.open(run / "photo0.png"))]
    (result,) = explain_cli._explain(classifier, pictures, args)
    assert result.map.shape[0] == 3 and re.fullmatch(r"variance \d+%, \d+%, \d+%", result.text)
    maps_ = explain.layer_maps(model, variables, np.stack([data.preprocess(pictures[0].image, DATA_CONFIG)]))
    assert explain.default_layer(model) == "norm" and maps_.shape == (1, 4, 6, 16)
    assert explain_cli._classifiers(explain_cli._arguments([*words, "--method", "attention_rollout"])) == [classifier]
    for wrong in (["--method", "gradcam"], ["--method", "attention_rollout", "--scores"]):
        with pytest.raises(UserError, match="has no classifier, only features.*--method attention_rollout, .*pca"):
            explain_cli.run([*words, *wrong])


def test_heads_of_a_network_of_convolutions_are_refused(run, monkeypatch):
    model = create_model("resnet18", num_classes=3, layers=(1,), channels=(8,), stem="cifar")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 24, 3)))
    classifier = inference.Classifier("resnet18", model, variables, ["cat", "dog", "eel"], DATA_CONFIG)
    monkeypatch.setattr(inference, "from_run", lambda workdir: classifier)
    with pytest.raises(UserError, match="ResNet has no such attention; expected .*VisionTransformer"):
        explain_cli.run(["--workdir", str(run / "run"), str(run / "photo0.png"), "--method", "attention_heads"])
    assert not (run / "run" / "explain").exists()


def test_layers_are_listed_with_the_default(run, capsys):
    assert explain_cli.run(["--workdir", str(run / "run"), "--layers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "blocks_0/norm1  (default of vit_tiny_patch16_224)" in lines and "patch_embed" in lines


def test_samples_are_spread_and_the_most_confused_pair_comes_first():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    predicted = np.array([0, 1, 1, 1, 0, 2, 1, 2])
    logits = np.eye(3)[predicted]
    assert explain_cli.choose(logits, labels, "all", 3).tolist() == [0, 4, 7]
    assert explain_cli.choose(logits, labels, "right", 9).tolist() == [0, 3, 5, 7]
    assert explain_cli.choose(logits, labels, "wrong", 9).tolist() == [1, 2, 4, 6]
    assert explain_cli.choose(logits, labels, "most_confused", 3).tolist() == [1, 2, 4]
    assert explain_cli.choose(np.eye(3)[labels], labels, "wrong", 3).tolist() == []


def test_figures_never_share_a_name():
    pictures = [figures.Picture(name, None) for name in ("a", "a", "grid", "heat_2", "b c")]
    assert figures._stems(pictures) == ["a", "a-2", "grid-2", "heat_2-2", "b_c"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--workdir", "RUN"], "no images; name files or folders"),
        (["PHOTO"], "give --workdir DIR"),
        (["--workdir", "RUN", "PHOTO", "--checkpoint", "x"], "--checkpoint and --weights need --model"),
        (["--workdir", "RUN", "PHOTO", "--method", "gradcan"], "Did you mean 'gradcam'"),
        (["--workdir", "RUN", "PHOTO", "--cmap", "jet"], "no colour map 'jet'"),
        (["--workdir", "RUN", "PHOTO", "--alpha", "1.5"], "--alpha is 1.5"),
        (["--workdir", "RUN", "PHOTO", "--class", "3"], "--class 3 is out of range; .* 0 to 2"),
        (["--workdir", "RUN", "PHOTO", "--class", "eal"], "has no class 'eal'. Did you mean 'eel'"),
        (["--workdir", "RUN", "PHOTO", "--layer", "blocks_0/norm3"], "no layer 'blocks_0/norm3'"),
        (["--workdir", "RUN", "PHOTO", "--only", "wrong"], "add --samples"),
        (["--workdir", "RUN", "--samples", "4"], "the run has not finished"),
        (["--workdir", "RUN", "nothing.png"], "no file 'nothing.png'"),
        (["--workdir", "RUN", "PHOTO", "--method", "attention_rollout", "--class", "cat"], "has no layer and no class"),
        (["--workdir", "RUN", "PHOTO", "--method", "lime", "--layer", "norm"], "lime has no layer; leave out --layer"),
        (["--workdir", "RUN", "PHOTO", "--method", "pca", "--class", "cat"], "pca has no class; leave out --class"),
        (["--workdir", "RUN", "PHOTO", "--method", "pca", "--scores"], "--scores has no effect on pca; .* gradcam"),
        (["--workdir", "RUN", "PHOTO", "--passes", "9"], "--passes has no effect on gradcam; .* integrated_gradients"),
        (["--workdir", "RUN", "PHOTO", "--block", "0"], "--block has no effect on gradcam; it is for attention_heads"),
        (["--workdir", "RUN", "PHOTO", "--fit", "all"], "--fit has no effect on gradcam; it is for pca"),
        (["--workdir", "RUN", "PHOTO", "--method", "attention_heads", "--block", "3"], "block 3 is out of range"),
        (["--workdir", "RUN", "PHOTO", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_mistakes_are_named(run, words, message):
    places = {"RUN": str(run / "run"), "PHOTO": str(run / "photo0.png")}
    with pytest.raises(UserError, match=message):
        explain_cli.run([places.get(word, word) for word in words])
    assert not (run / "run" / "explain").exists()
