"""What to say of a package that is not installed: its name, and how to get it."""

import sys
from importlib.util import find_spec

from jaxvit.errors import UserError

# what every installation has, as it is imported; those that others are built on come first
NEEDED = (
    "numpy", "ml_dtypes", "jaxlib", "jax", "flax", "optax", "orbax", "ml_collections", "PIL", "yaml", "rich",
    "matplotlib", "jinja2", "flatbuffers", "dm_pix", "safetensors", "huggingface_hub", "sklearn", "tensorboardX",
    "tensorflow_datasets", "absl",
)  # fmt: skip
# what is imported -> what is installed, where they differ; then what only an extra brings
_INSTALLED_AS = {
    "PIL": "pillow", "absl": "absl-py", "dm_pix": "dm-pix", "orbax": "orbax-checkpoint", "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets", "yaml": "pyyaml",
}  # fmt: skip
_EXTRA = {
    "optuna": "tune", "wandb": "wandb", "torch": "torch", "timm": "torch", "libtpu": "tpu", "chex": "test",
    "pytest": "test", "jax_cuda12_plugin": "cuda", "jax_plugins": "cuda", "pillow_heif": "heic",
    "pyarrow": "parquet", "jax2onnx": "onnx", "onnxruntime": "onnx", "onnx": "onnx", "shtab": "completion",
}  # fmt: skip


def require(*names: str) -> None:
    """Raises UserError for the first package that is not installed, before any work: `names` as they are imported."""
    for name in names:
        if not _is_there(name):
            raise UserError(_line(name))


def _is_there(name: str) -> bool:
    try:
        return name in sys.modules and sys.modules[name] is not None or find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def missing(error: ImportError) -> str | None:
    """One line on the package that an import did not find; None where that was one of our own modules, or unknown.

    An extension that does not find a package may not name it: then the first that is not there is taken.
    """
    name = (error.name or "").partition(".")[0]
    if not name and isinstance(error.__cause__, ModuleNotFoundError):  # as jax says it of jaxlib
        return missing(error.__cause__)
    if name in ("jaxvit", "configs"):
        return None
    if not isinstance(error, ModuleNotFoundError) or not name:
        absent = next((needed for needed in NEEDED if not _is_there(needed)), None)
        return absent and _line(absent)
    return _line(name)


def _line(name: str) -> str:
    package = _INSTALLED_AS.get(name, name)
    how = f"pip install 'jaxvit[{_EXTRA[name]}]'" if name in _EXTRA else f"pip install {package}"
    return f"the package {package} is not installed: {how}"
