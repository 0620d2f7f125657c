"""What the bench times."""

import jax.numpy as jnp
import numpy as np

from jaxvit.bench.subjects import Settings, make_subject

TINY = (("depth", 1), ("embed_dim", 16), ("num_classes", 3), ("num_heads", 2), ("patch_size", 4))


def test_inference_in_bfloat16_keeps_classifier_and_norms():
    subject = make_subject(Settings("vit_tiny_patch16_224", "bfloat16", 8, TINY))
    apply, variables, images = subject.inference(2)
    params = variables["params"]
    assert params["blocks_0"]["attn"]["qkv"]["kernel"].dtype == images.dtype == jnp.bfloat16
    assert params["head"]["kernel"].dtype == params["blocks_0"]["norm1"]["scale"].dtype == jnp.float32
    whole = subject.model.apply(subject.variables, images)
    np.testing.assert_array_equal(np.asarray(apply(variables, images)), np.asarray(whole))
