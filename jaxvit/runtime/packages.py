"""What to say of a package that is not installed: its name, and how to get it."""

# what is imported -> what is installed, where they differ; then what only an extra brings
_INSTALLED_AS = {
    "PIL": "pillow", "absl": "absl-py", "dm_pix": "dm-pix", "orbax": "orbax-checkpoint", "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets", "yaml": "pyyaml",
}  # fmt: skip
_EXTRA = {
    "optuna": "tune", "wandb": "wandb", "torch": "torch", "timm": "torch", "libtpu": "tpu", "chex": "test",
    "pytest": "test", "jax_cuda12_plugin": "cuda", "jax_plugins": "cuda",
}  # fmt: skip


def missing(error: ImportError) -> str | None:
    """One line on the package that an import did not find; None where that was one of our own modules, or unknown."""
    name = (error.name or "").partition(".")[0]
    if not name and isinstance(error.__cause__, ModuleNotFoundError):  # as jax says it of jaxlib
        return missing(error.__cause__)
    if not isinstance(error, ModuleNotFoundError) or name in ("", "jaxvit", "configs"):
        return None
    package = _INSTALLED_AS.get(name, name)
    how = f"pip install 'jaxvit[{_EXTRA[name]}]'" if name in _EXTRA else f"pip install {package}"
    return f"the package {package} is not installed: {how}"
