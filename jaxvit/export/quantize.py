"""An ONNX file in 8 bits by onnxruntime's tools, and what that costs."""

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.export.onnx_graph import INPUT

BATCH = 32  # images a step
OPERATORS = ["Conv", "MatMul", "Gemm"]  # the products with weights; norms, softmax and sums stay in float32
# 7 bits for weights: CPUs without VNNI instructions add 8-bit products in 16 bits, which overflow
RANGES: dict[str, Any] = {"per_channel": True, "reduce_range": True}


def quantize(file: Path, to: Path, images: np.ndarray) -> str:
    """Writes an int8 form of an ONNX file, of two the one whose outputs are nearer to the file's own.

    Args:
      file: ONNX, images uint8 [batch, h, w, c] -> logits.
      to: the file to write.
      images: uint8 [n, h, w, c], not the test split's: half of them set the ranges, and all of them choose.

    Returns:
      "static" (the ranges of activations were measured on the images) or "dynamic" (they are measured as it runs; not
      for a convolutional network, which it would slow down).

    Raises:
      UserError: onnxruntime cannot quantise the file.
    """
    wanted = outputs(file, images)
    with tempfile.TemporaryDirectory(dir=to.parent) as name, _silent():
        errors: dict[str, float] = {}
        try:
            prepared = _prepared(file, Path(name))
            for form, write in _forms(prepared).items():
                made = Path(name) / f"{form}.onnx"
                write(prepared, made, images[: max(len(images) // 2, 1)])
                errors[form] = float(np.square(outputs(made, images) - wanted).mean())
        except Exception as error:  # onnxruntime's tools have no class of their own
            said = (str(error).strip().splitlines() or [""])[0][:200]
            raise UserError(f"onnxruntime cannot quantise this model: {type(error).__name__}: {said}") from error
        best = min(errors, key=errors.__getitem__)
        (Path(name) / f"{best}.onnx").replace(to)
    return best


def _prepared(file: Path, directory: Path) -> Path:
    """The file with its constants folded and its shapes known, as the tools want it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = directory / "prepared.onnx"
    quant_pre_process(file, prepared, skip_symbolic_shape=True)
    return prepared


def _forms(file: Path) -> dict[str, Callable[[Path, Path, np.ndarray], None]]:
    """Those of FORMS that are worth a try: a convolution with dynamic ranges takes several times as long as a whole."""
    import onnx

    types = [node.op_type for node in onnx.load(file).graph.node]
    convolutional = types.count("Conv") > types.count("MatMul") + types.count("Gemm")
    return {"static": _static} if convolutional else FORMS


def _static(file: Path, to: Path, images: np.ndarray) -> None:
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        batches = ({INPUT: images[i : i + BATCH]} for i in range(0, len(images), BATCH))

        def get_next(self) -> Any:
            return next(self.batches, None)

    q.quantize_static(
        file, to, Reader(), op_types_to_quantize=OPERATORS, activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8, extra_options={"MatMulConstBOnly": True}, **RANGES,
    )  # fmt: skip


def _dynamic(file: Path, to: Path, images: np.ndarray) -> None:
    from onnxruntime import quantization as q

    q.quantize_dynamic(
        file, to, op_types_to_quantize=OPERATORS, weight_type=q.QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True}, **RANGES,
    )  # fmt: skip


FORMS: dict[str, Callable[[Path, Path, np.ndarray], None]] = {"static": _static, "dynamic": _dynamic}


def session(file: Path) -> Any:
    """Opens an ONNX file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def outputs(file: Path, images: np.ndarray) -> np.ndarray:
    """What an ONNX file says of images uint8 [n, h, w, c], on the CPU: float32 [n, k]."""
    run = session(file).run
    return np.concatenate([run(None, {INPUT: images[i : i + BATCH]})[0] for i in range(0, len(images), BATCH)])


def latency(file: Path, image: np.ndarray, seconds: float = 2.0) -> float:
    """The median time of one image uint8 [h, w, c] on this CPU, in ms."""
    run, given, times = session(file).run, {INPUT: image[None]}, []
    run(None, given)
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run(None, given)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the advice that onnxruntime's tools print and log."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
