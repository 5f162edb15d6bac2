"""The vision tower and connector as one ONNX graph: pixels in, image embeddings out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyllava_edge.errors import BackendMissing, BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyllava_edge.semantics import Semantics

INPUT = "pixel_values"
OUTPUT = "image_embeds"
_SESSION_ERRORS = (
    "EPFail",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)


class VisionEncoder:
    """An ONNX Runtime session for ``vision.onnx``.

    ``pixel_values`` float32 ``[N, 3, size, size]`` -> ``image_embeds`` float32
    ``[N, image_tokens, hidden]``. Raises ``BackendMissing`` without onnxruntime and
    ``BundleError`` where the graph and the semantics disagree.
    """

    def __init__(
        self,
        path: Path,
        semantics: Semantics,
        *,
        threads: int,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise BackendMissing(
                "onnxruntime is not installed; pip install 'tinyllava-edge[gguf]'"
            ) from None
        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=list(providers)
            )
        except _session_errors() as error:
            first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise BundleError(f"{path}: cannot be loaded ({first}); export it again") from None
        size, tokens = semantics.image.size, semantics.connector.image_tokens
        self._input_shape = (1, 3, size, size)
        _check_shape(path, self._session.get_inputs(), INPUT, (None, 3, size, size))
        _check_shape(path, self._session.get_outputs(), OUTPUT, (None, tokens, None))
        self._image_tokens = tokens
        self.path = path

    def encode(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode one picture, ``[3, size, size]`` -> ``[image_tokens, hidden]``."""
        batch = pixels[np.newaxis]
        if batch.shape != self._input_shape:
            raise ValueError(f"pixels of shape {pixels.shape}, expected {self._input_shape[1:]}")
        (output,) = self._session.run([OUTPUT], {INPUT: batch})
        embeddings = np.ascontiguousarray(output[0], dtype=np.float32)
        if embeddings.ndim != 2 or len(embeddings) != self._image_tokens:
            raise BundleError(
                f"{self.path}: gave embeddings of shape {embeddings.shape}, the manifest says "
                f"{self._image_tokens} image tokens; export it again"
            )
        return embeddings


def _session_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions have no common base but ``Exception``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    named = (getattr(state, name, RuntimeError) for name in _SESSION_ERRORS)
    return (ValueError, RuntimeError, *named)


def _check_shape(
    path: Path, nodes: Sequence[object], name: str, expected: tuple[int | None, ...]
) -> None:
    """Compare the fixed sizes of a graph's input or output; symbolic ones are open."""
    shapes = {node.name: tuple(node.shape) for node in nodes}  # type: ignore[attr-defined]
    if name not in shapes:
        found = ", ".join(shapes)
        raise BundleError(f"{path}: has {found}, expected {name}; export it again")
    shape = shapes[name]
    fits = len(shape) == len(expected) and all(
        want is None or not isinstance(have, int) or have == want
        for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        raise BundleError(
            f"{path}: {name} has shape {list(shape)}, the manifest says "
            f"{['any' if want is None else want for want in expected]}; export it again"
        )
