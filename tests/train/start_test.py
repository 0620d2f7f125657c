"""A run that starts from another run's weights, at a higher resolution."""

import numpy as np
import pytest

from jaxvit import inference, train
from jaxvit.config.compare import differences
from jaxvit.errors import UserError
from jaxvit.pretrained.resample import resample_abs_pos_embed
from jaxvit.train import start
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    root = tmp_path_factory.mktemp("first")
    config = tiny_config(write_npz(root / "data", size=16), num_epochs=1, data__image_size=8)
    train.train_and_evaluate(config, root / "run")
    return root


def test_a_run_starts_from_another_one_at_a_higher_resolution(first, tmp_path):
    config = tiny_config(f"npz:{first / 'data'}", data__image_size=16, pretrained=str(first / "run"))
    found = start.from_run(config, tmp_path)
    assert config.pretrained == str(first / "run") and found.pretrained == str(tmp_path.resolve() / "start")
    run, state = prepare(found, tmp_path)
    run.checkpoints.close()
    known = inference.from_run(first / "run").variables["params"]
    np.testing.assert_array_equal(state.params["head"]["kernel"], known["head"]["kernel"])
    want = resample_abs_pos_embed(np.asarray(known["pos_embed"]), (4, 4), (2, 2), 1)
    np.testing.assert_allclose(state.params["pos_embed"], want, rtol=1e-6)
    assert any("pos_embed resampled from 2x2 to 4x4" in note for note in run.origin["notes"])
    again = start.from_run(config, tmp_path)  # a resumed run, whose folder may have moved
    assert again.pretrained == found.pretrained
    assert not differences(again, {**run.blueprint.words, "pretrained": "/elsewhere/start"})


def test_a_run_of_another_model_is_refused(first, tmp_path):
    config = tiny_config("digits", pretrained=str(first / "run"))
    config.model = {"name": "resnet18"}
    with pytest.raises(UserError, match="is a run of vit_tiny_patch16_224; model.name is resnet18"):
        start.from_run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_weights_stay_as_they_are(tmp_path):
    for name in (None, "deit_tiny_patch16_224.fb_in1k", str(tmp_path)):
        config = tiny_config("digits", pretrained=name)
        assert start.from_run(config, tmp_path) is config
