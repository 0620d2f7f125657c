"""Weights that lie on the disk."""


def test_local_weights_are_found_by_name_and_by_tag(tmp_path):
    from jaxvit.studies import weights

    name = "deit_tiny_patch16_224.fb_in1k"
    assert weights.local(name, tmp_path) is None
    (tmp_path / "deit_tiny_patch16_224.safetensors").touch()
    assert weights.local(name, tmp_path) == tmp_path / "deit_tiny_patch16_224.safetensors"
    (tmp_path / name).mkdir()
    assert weights.local(name, tmp_path) == tmp_path / name
