"""Models as files for other runtimes: ONNX, whole or in 8 bits."""
