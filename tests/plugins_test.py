"""Parts of users: the examples of docs/PLUGINS.md as they stand, where modules are found, what is refused."""

import importlib.metadata
import json
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxvit
from jaxvit import cli, data, inference, models, plugins, pretrained
from jaxvit import config as config_lib
from jaxvit.build import checks, phases
from jaxvit.build import optimiser as build_optimiser
from jaxvit.build import parts as build_parts
from jaxvit.data.augment import make_augment
from jaxvit.errors import UserError
from jaxvit.plan import facts
from jaxvit.reports import pictures, runs
from jaxvit.step.losses import make_loss
from jaxvit.train import train_and_evaluate
from jaxvit.workdir import resume
from tests.helpers.plugins import examples, forgotten, write_module
from tests.helpers.workdirs import lines


@pytest.fixture(autouse=True)
def clean():
    with forgotten():
        yield


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The examples of the page as one module in a directory of sys.path."""
    (tmp_path / "src").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "src")
    return write_module(tmp_path / "src", "my_parts", "\n".join(examples("PLUGINS.md")))


def config_of_all(imports=()):
    config = config_lib.default()
    config.imports = imports
    config.num_epochs, config.batch_size = 2, 20
    config.model.name, config.data.name = "tiny_cnn", "stripes:120"
    config.optim.name, config.optim.momentum, config.optim.learning_rate = "sign_momentum", 0.5, 1e-2
    config.optim.schedule.name, config.optim.schedule.options.knee = "inverse_sqrt", 2.0
    config.augment.options.gamma, config.loss.name, config.loss.options.epsilon = 0.1, "poly1", 2.0
    config.early_stopping.metric = "calibration_error"
    config.parallel.num_devices = 1
    return config


def test_seven_examples_train_and_are_found_again(tmp_path, parts, capsys):
    assert len(examples("PLUGINS.md")) == 7
    run = tmp_path / "run"
    with forgotten():
        final = train_and_evaluate(config_of_all((parts,)), run)
    said = capsys.readouterr().err
    assert said.count("imported my_parts (") == 1 and "calibration_error" in said
    written = json.loads((run / "config.json").read_text())
    assert written["imports"] == ["my_parts"] and written["augment"]["options"] == {"gamma": 0.1}
    assert lines(run)[-1]["train/learning_rate"] == pytest.approx(1e-2 / np.sqrt(1 + np.mean([2, 3]) / 2), rel=0.02)
    with np.load(run / "predictions.npz") as kept:
        p, labels = np.asarray(jax.nn.softmax(kept["logits"])), kept["labels"]
    top, right = p.max(1), p.argmax(1) == labels
    inside = [(top > b / 15) & (top <= (b + 1) / 15) for b in range(15)]  # as Guo et al. write it
    gaps = [
        inside[b].mean() * abs(top[inside[b]].mean() - right[inside[b]].mean()) for b in range(15) if inside[b].any()
    ]
    assert final["test/calibration_error"] == pytest.approx(sum(gaps), abs=1e-6)
    with forgotten():  # as in another process
        with pytest.raises(UserError, match="unknown model 'tiny_cnn'"):
            models.create_model("tiny_cnn")
        (picture,) = pictures.augmented(runs.read_runs([run])[0])  # imports the modules by itself
        assert "as the training step would change them" in picture.caption
        classifier = inference.from_run(run)
        assert inference.evaluate_split(classifier).metrics["calibration_error"] == pytest.approx(sum(gaps), abs=1e-6)
        assert "as the run in" in capsys.readouterr().err
        assert facts.find(classifier.config).num_train == 54  # of a plan: the function is asked
        with pytest.warns(UserWarning, match="timm has no field for 'tiny_cnn'"):
            pretrained.save(
                classifier.model, classifier.variables, tmp_path / "weights", label_names=classifier.class_names
            )
        model, variables = jaxvit.load_pretrained(None, tmp_path / "weights")
        assert model == classifier.model.clone(dtype=model.dtype)
        jax.tree.map(np.testing.assert_array_equal, variables, dict(classifier.variables))
    with forgotten():  # the same command without --import
        given = write_module(tmp_path, "given", "from jaxvit.config import default\nget_config = default\n")
        words = ["model.name=tiny_cnn", "data.name=stripes:120", "batch_size=20"]
        args = ["--config", f"{tmp_path / given}.py", "--workdir", str(run), *(f"--config.{word}" for word in words)]
        assert cli.main(args) == 2
        assert "holds a run of a different config" in capsys.readouterr().err


def test_examples_compute_what_they_say(parts):
    plugins.use([parts])
    logits, targets = jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [0.5, 0.5]])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    options = {**config_lib.default().loss.to_dict(), "name": "poly1", "options": {"epsilon": 3.0}}
    expected = -(targets * np.log(p)).sum(1) + 3 * (1 - (targets * p).sum(1))
    np.testing.assert_allclose(make_loss(options)(logits, targets), expected, rtol=1e-6)
    images, targets = jnp.full((64, 4, 4, 1), 0.5), jnp.ones((64, 2))
    augmented, kept = make_augment({"options": {"gamma": 0.5}})(jax.random.key(0), images, targets)
    power = np.log(augmented[:, 0, 0, 0]) / np.log(0.5)
    assert np.std(np.log(power)) == pytest.approx(0.5, rel=0.3) and kept is targets
    off, _ = make_augment({"options": {"gamma": 0.0}})(jax.random.key(0), images, targets)
    np.testing.assert_array_equal(off, images)
    assert models.create_model("tiny_cnn_wide").width == 32 and "tiny_cnn" in models.list_models("tiny_*")
    dataset = data.load_dataset("stripes", val_fraction=0.1)
    assert dataset.class_names == ["plain", "striped"] and len(dataset.train) == 54
    tx = importlib.import_module(parts).sign_momentum(0.1)
    updates, _ = tx.update({"w": jnp.array([3.0, -2.0])}, tx.init({"w": jnp.zeros(2)}))
    np.testing.assert_allclose(optax.apply_updates({"w": jnp.zeros(2)}, updates)["w"], [-0.1, 0.1])


def test_own_augmentation_leaves_the_draws_of_others_alone(parts):
    plugins.use([parts])
    images, targets = jax.random.uniform(jax.random.key(1), (8, 6, 6, 3)), jnp.ones((8, 2))
    with_flip = make_augment({"flip": True})(jax.random.key(0), images, targets)[0]
    both = make_augment({"flip": True, "options": {"gamma": 1e-9}})(jax.random.key(0), images, targets)[0]
    np.testing.assert_allclose(both, with_flip, atol=1e-6)


HEAD = "import flax.linen as nn\nimport jaxvit\n"


@pytest.mark.parametrize(
    "code, said",
    [
        ("@jaxvit.register_loss('focal')\ndef f(logits, targets): ...", "a name that jaxvit uses"),
        ("@jaxvit.register_optimizer('lbfgs')\ndef f(learning_rate): ...", "a name that jaxvit uses"),
        ("@jaxvit.register_model('resnet18')\nclass M(nn.Module):\n  num_classes: int = 1\n  image_size: int = 8\n"
         "  in_channels: int = 1\n  dtype: object = None\n  def __call__(self, x, train=False): ...",
         "bad registers the model 'resnet18', a name that jaxvit uses"),
        ("@jaxvit.register_data('folder')\ndef f(): ...", "a name that jaxvit uses"),
        ("@jaxvit.register_augmentation('flip')\ndef f(key, images, targets, v): ...", "a name that jaxvit uses"),
        ("@jaxvit.register_metric('nll')\ndef f(logits, labels): ...", "a name that jaxvit uses"),
        ("@jaxvit.register_schedule('wsd')\ndef f(r, f, t, e): ...", "a name that jaxvit uses"),
        ("for _ in '12':\n  def f(logits, labels): ...\n  f.__qualname__ += _\n  jaxvit.register_metric('m')(f)",
         "registers the metric 'm' twice"),
        ("1 / 0", "the module 'bad' cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("import not_there_at_all", "cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("jaxvit.register_model('m')(3)", "the model 'm' is 3; expected a class of flax.linen.Module"),
        ("@jaxvit.register_model('m')\nclass M(nn.Module):\n  num_classes: int = 1", "no image_size with a default"),
        ("jaxvit.register_model('m', colour=3)(type('M', (), {}))", "expected a class of flax.linen.Module"),
        ("jaxvit.register_loss('l')(3)", "the loss 'l' is int 3; expected a function (logits, targets, ...) -> [b]"),
        ("jaxvit.register_loss('l')(lambda logits: 0)", "the loss 'l' is <lambda>(logits); expected a function"),
        ("jaxvit.register_loss('l')(lambda logits, targets, *, a: 0)", "its option 'a' has no default"),
        ("jaxvit.register_optimizer('o')(lambda rate: 0)", "expected a function (learning_rate, ...)"),
        ("@jaxvit.register_metric\ndef f(a, b): ...", "the name is missing; expected @register_metric"),
        ("jaxvit.register_metric('m', better='up')", "better is 'up'; expected 'max' or 'min'"),
        ("jaxvit.register_data('a b')(lambda: 0)", "a data set cannot be called 'a b'"),
        ("jaxvit.register_data('d')(lambda a, b: 0)", "its function takes 2 arguments"),
    ],
)  # fmt: skip
def test_what_cannot_be_registered(tmp_path, monkeypatch, capsys, code, said):
    monkeypatch.syspath_prepend(tmp_path)
    write_module(tmp_path, "bad", HEAD + code)
    assert cli.main(["models", "tiny*", "--import", "bad"]) == 2
    out = capsys.readouterr().err
    assert said in out and out.startswith("error: ") and len(out.splitlines()) <= 2


@pytest.mark.parametrize(
    "name, said",
    [("not_there", "no module 'not_there' to import"), ("my/parts.py", "is not the name of a module"), ("", "''")],
)
def test_modules_that_are_not_there(capsys, name, said):
    assert cli.main(["leaks", "--data", "digits", "--import", name]) == 2
    out = capsys.readouterr().err
    assert said in out and len(out.splitlines()) == 1


def test_parts_of_two_modules_may_not_share_a_name(tmp_path, parts, monkeypatch):
    write_module(tmp_path / "src", "other", "import jaxvit\n@jaxvit.register_loss('poly1')\ndef f(a, b): ...\n")
    with pytest.raises(UserError, match="other registers the loss 'poly1', a name that my_parts has taken"):
        plugins.use([parts, "other"])


def test_a_cell_may_be_run_again(parts):
    code = compile(examples("PLUGINS.md")[5], "cell", "exec")
    for _ in range(2):
        exec(code, {"__name__": "__main__"})
    config = config_lib.default()
    config.loss.name, config.loss.options.epsilon = "poly1", 1.0
    checks.check(config)


def test_the_classifier_of_a_model_of_ones_own_trains_alone(parts):
    plugins.use([parts])
    model: Any = models.create_model("tiny_cnn")
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    config = config_of_all()
    (mask,) = phases.trainable_masks(config, params, [(0, "head_only")])
    assert mask == {"conv": {"kernel": False, "bias": False}, "head": {"kernel": True, "bias": True}}
    for change in (lambda: phases.trainable_masks(config, params, [(0, "early")]),
                   lambda: phases.trainable_masks(config, params, [(0, "last_2_blocks")]),
                   lambda: build_optimiser.make_optimizer(config, params, None, lambda step: 0.1)):  # fmt: skip
        config.optim.layer_decay = 0.75
        with pytest.raises(UserError, match="nothing is known about the blocks of TinyCNN"):
            change()
    jaxvit.register_model("no_classifier")(type("NoClassifier", (nn.Module,), {
        "__module__": "mine", "__call__": lambda self, images, train=False: images, "num_classes": 2, "image_size": 8,
        "in_channels": 1, "dtype": None,
    }))  # fmt: skip
    config.model.name = "no_classifier"
    with pytest.raises(UserError, match="which layer of NoClassifier is the classifier is not known"):
        phases.trainable_masks(config, params, [(0, "head_only")])


def test_what_a_part_returns_is_checked():
    for name, returned in (("one", lambda images, targets: images),
                           ("smaller", lambda images, targets: (images[:, ::2], targets))):  # fmt: skip
        jaxvit.register_augmentation(name)(lambda key, images, targets, strength, of=returned: of(images, targets))
        with pytest.raises(UserError, match=f"the augmentation '{name}' returned"):
            make_augment({"options": {name: 1.0}})(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 3)))
    jaxvit.register_optimizer("nothing")(lambda learning_rate: None)
    config = config_lib.default()
    config.optim.name = "nothing"
    with pytest.raises(UserError, match="the optimiser 'nothing' returned NoneType"):
        build_optimiser.check(config)


def test_features_of_a_model_of_ones_own(parts):
    plugins.use([parts])
    model: Any = models.create_model("tiny_cnn")
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    head = variables["params"]["head"]
    found = jaxvit.features(model, variables, images)
    wanted = np.asarray(found) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(wanted, model.apply(variables, images), atol=1e-6)

    @jaxvit.register_model("no_features")
    class NoFeatures(type(model)):
        @nn.compact
        def __call__(self, images, train=False):
            return nn.Dense(self.num_classes)(images.mean(axis=(1, 2)))

    with pytest.raises(UserError, match="NoFeatures makes no features; with num_classes=0"):
        jaxvit.features(models.create_model("no_features"), {}, images)


@pytest.mark.parametrize(
    "words, said",
    [
        ({"loss__name": "poly2"}, "loss.name is 'poly2'; expected cross_entropy or ce or focal or bce or poly1"),
        ({"loss__options__eps": 1.0}, "has no option 'eps' in loss.options; it takes epsilon"),
        ({"loss__class_weights": "balanced"}, "the loss 'poly1' has no argument class_weights"),
        ({"augment__options__gama": 1.0}, "no augmentation 'gama' for augment.options; registered are gamma"),
        ({"early_stopping__metric": "calibration"}, "Did you mean 'calibration_error'"),
        ({"optim__schedule__options__gamma": 1.0}, "optim.schedule.options.gamma is ignored"),
        ({"optim__schedule__options__knees": 1.0}, "the schedule 'inverse_sqrt' has no option 'knees'"),
        ({"model__name": "tiny_cn"}, "Did you mean 'tiny_cnn'"),
        ({"data__name": "stripe"}, "Did you mean 'stripes'"),
    ],
)
def test_mistyped_names_and_options(tmp_path, parts, words, said):
    config = config_of_all((parts,))
    with config.unlocked():
        for word, value in words.items():
            *sections, name = word.split("__")
            place = config
            for section in sections:
                place = place[section]
            place[name] = value
    with pytest.raises(UserError) as error:
        train_and_evaluate(config, tmp_path / "run")
    assert said in str(error.value).splitlines()[0]


def test_a_data_file_imports_nothing_by_itself(tmp_path, parts, capsys):
    (tmp_path / "given.yaml").write_text("imports: [my_parts]\nmodel: {name: tiny_cnn}\ndata: {name: nothing}\n")
    args = ["--config", str(tmp_path / "given.yaml"), "--workdir", str(tmp_path / "run")]
    assert cli.main(args) == 2
    assert "names the module 'my_parts', whose code would be run" in capsys.readouterr().err
    assert "my_parts" not in sys.modules
    assert cli.main([*args, "--config.imports=(1,)"]) == 2
    assert "my_parts" not in sys.modules
    assert cli.main([*args, "--import", "my_parts"]) == 2
    assert "no data source 'nothing'" in capsys.readouterr().err and "my_parts" in sys.modules


def write_run(directory, imports):
    """What a command reads of a run before it has to import."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"imports": imports}))
    (directory / "checkpoints" / "last" / "3").mkdir(parents=True)
    return directory


def test_recorded_modules(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", ["gone_parts"])
    monkeypatch.chdir(run)
    write_module(run, "gone_parts", "raise SystemExit('the code of a stranger')")
    for args in (["eval", "--workdir", "."], ["--config", "digits_vit", "--workdir", "."]):
        assert cli.main(args) == 2
        first, second = capsys.readouterr().err.splitlines()
        assert "needs the module 'gone_parts', which cannot be found" in first and "--import gone_parts" in second
    monkeypatch.syspath_prepend(run)
    assert cli.main(["eval", "--workdir", "."]) == 2
    assert "lies in the run's own directory" in capsys.readouterr().err
    (run / "config.json").write_text(json.dumps({"imports": ["antigravity"]}))
    assert cli.main(["eval", "--workdir", "."]) == 2
    assert "is not one of jaxvit's plug-ins" in capsys.readouterr().err and "antigravity" not in sys.modules
    assert resume.imports(run) == ["antigravity"]


def test_imports_are_added_to_those_of_the_config(parts, tmp_path):
    write_module(tmp_path / "src", "more_parts", "")
    config = config_lib.override(
        config_of_all((parts,)), ["--config.imports+=more_parts", f"--config.imports+={parts}"]
    )
    assert config.imports == ("my_parts", "more_parts")
    assert not config_lib.differences(config, config_lib.to_dict(config_of_all()))


def test_entry_points_of_installed_packages(tmp_path, parts, monkeypatch, recwarn):
    """A package with two entry points, one of which fails: the other is found without being named, and recorded."""
    info = tmp_path / "src" / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[jaxvit.plugins]\na = failing_parts\nb = my_parts\n")
    write_module(tmp_path / "src", "failing_parts", "1 / 0")
    assert any(e.module == "my_parts" for e in importlib.metadata.entry_points(group=plugins.GROUP))
    monkeypatch.setattr(plugins, "_looked", False)
    assert models.create_model("tiny_cnn").width == 8
    assert "'failing_parts' cannot be imported: ZeroDivisionError" in str(recwarn.pop(UserWarning).message)
    assert plugins.modules_of([("model", "tiny_cnn"), ("loss", "focal")]) == ("my_parts",)


def test_what_is_registered_in_a_script_is_said(tmp_path):
    config = config_lib.default()
    with forgotten():
        exec(examples("PLUGINS.md")[5], {"__name__": "__main__"})
        config.loss.name = "poly1"
        config.imports = build_parts.imports(config)
    assert config.imports == ("__main__",)
    (tmp_path / "config.json").write_text(json.dumps(config_lib.to_dict(config)))
    (tmp_path / "classes.json").write_text("[]")
    with pytest.raises(UserError, match="parts that a script or notebook registered: loss.name is 'poly1'"):
        inference.from_run(tmp_path)
