"""Files for tests of the command line: data, a config, a finished run."""

import numpy as np
from PIL import Image

from jaxvit import cli
from tests.helpers import write_npz

TINY = """
num_epochs: 1
batch_size: 16
model: {name: vit_tiny_patch16_224, patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}
parallel: {num_devices: 1}
"""


def make_files(root):
    """Writes data, a config and a finished run below `root`, a photo, a text that is called one, and a folder."""
    write_npz(root / "data")
    (root / "run.yaml").write_text(TINY + f"data: {{name: 'npz:{root / 'data'}'}}\n")
    assert cli.main(["--config", str(root / "run.yaml"), "--workdir", str(root / "run")]) == 0
    Image.fromarray(np.full((9, 12, 3), 200, np.uint8)).save(root / "photo.png")
    (root / "text.jpg").write_text("no image")
    (root / "nothing").mkdir()
    return root
