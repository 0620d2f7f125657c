"""Google's own files of ViTs."""

import numpy as np
import pytest

from jaxvit.pretrained import convert, export
from tests.helpers import pretrained as helpers
from tests.helpers.google_vit import google


def assert_reads(case, make_layout, **fields):
    """The layout made from drawn weights in timm's names is read back to those weights."""
    model = helpers.make(case, **fields)
    wanted = helpers.weights(model)
    layout = make_layout({name: array for name, array in wanted.items() if "num_batches" not in name})
    helpers.assert_same(export(model, convert(model, layout)), wanted)


@pytest.mark.parametrize("start", ["", "opt/target/"])
def test_google_vit(start):
    def layout(state):
        made = google(state, 3, new=False)
        assert not state
        return {start + name: array for name, array in made.items()}

    assert_reads(helpers.VIT, layout)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_google_files_are_read_as_timm_reads_them(tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    model = helpers.make(helpers.VIT)
    state = helpers.weights(model)
    np.savez(tmp_path / "x.npz", **google(dict(state), 3, new=False))
    theirs = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=5)
    theirs.load_pretrained(str(tmp_path / "x.npz"))
    for name, x in theirs.state_dict().items():
        assert torch.equal(x, torch.from_numpy(state[name])), name
