"""Tower and connector as ``vision.onnx``, in float32, float16 or with int8 matrix products.

The graph is traced without its weights; these are then read, converted and written one at a time.
"""

from tinyllava_export.vision.write import QUANTIZATION_OF_BITS, write_vision

__all__ = ["QUANTIZATION_OF_BITS", "write_vision"]
