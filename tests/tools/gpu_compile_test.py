"""What is compiled ahead is what a bench finds in the cache."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

WORDS = ["--model", "vit_tiny_patch16_224", "--field", "depth=1", "--field", "embed_dim=16", "--field", "num_heads=2",
         "--image-size", "32", "--batch-size", "2", "--compile-times", "none", "--seconds", "0.01"]  # fmt: skip


@pytest.mark.slow
def test_a_bench_compiles_nothing_that_was_compiled_ahead(tmp_path):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "",
                   "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip

    def run(*command):
        subprocess.run([sys.executable, *command, *WORDS], cwd=ROOT, env=environment, check=True, capture_output=True)

    run("tools/gpu/compile.py")
    names = {path.name for path in tmp_path.glob("*-cache")}
    assert {"jit_train_step", "jit_apply"} <= {name.split("-")[0] for name in names}, sorted(names)
    run("main.py", "bench")
    new = {path.name for path in tmp_path.glob("*-cache")} - names
    assert not [name for name in new if name.startswith(("jit_train_step", "jit_apply"))], sorted(new)
