"""What llama.cpp itself makes of a picture with ``mmproj.gguf``: the proof of that file."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp, mtmd_cpp
from numpy.typing import NDArray
from PIL import Image

from tinyllava_edge.engines.llama_log import route_log
from tinyllava_export.errors import ExportError

log = logging.getLogger(__name__)


def _receive(_level: int, text: bytes, _user_data: object) -> None:
    log.debug("%s", text.decode("utf-8", "replace").rstrip())


# The native side keeps a bare pointer to it, so it lives as long as the module.
_LOG = llama_cpp.llama_log_callback(_receive)


def mmproj_features(
    llm: Path, mmproj: Path, picture: Image.Image, *, hidden: int, threads: int = 1
) -> NDArray[np.float32]:
    """Image embeddings ``[image_tokens, hidden]`` of an RGB picture, preprocessed by llama.cpp.

    Of ``llm`` only the vocabulary is read; ``hidden`` is the width of its embeddings. Raises
    ``ExportError`` where llama.cpp refuses a file.
    """
    route_log(llama_cpp)
    mtmd_cpp.mtmd_log_set(_LOG, ctypes.c_void_p(0))
    with ExitStack() as owned:
        model = owned.enter_context(_vocabulary_of(llm))
        context = owned.enter_context(_projector(mmproj, model, threads))
        chunks = _owned(owned, mtmd_cpp.mtmd_input_chunks_init(), mtmd_cpp.mtmd_input_chunks_free)
        bitmap = mtmd_cpp.mtmd_bitmap_init(*picture.size, _rgb(picture))
        _owned(owned, bitmap, mtmd_cpp.mtmd_bitmap_free)
        _tokenize(context, chunks, bitmap)
        chunk = _image_chunk(chunks)
        if mtmd_cpp.mtmd_encode_chunk(context, chunk) != 0:
            raise ExportError(f"{mmproj}: llama.cpp cannot encode a picture with it")
        tokens = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
        numbers = mtmd_cpp.mtmd_get_output_embd(context)
        return np.ctypeslib.as_array(numbers, shape=(tokens, hidden)).copy()


@contextmanager
def _vocabulary_of(llm: Path) -> Iterator[Any]:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(llm).encode(), params)
    if not model:
        raise ExportError(f"{llm}: llama.cpp cannot load it")
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


@contextmanager
def _projector(mmproj: Path, model: Any, threads: int) -> Iterator[Any]:
    params = mtmd_cpp.mtmd_context_params_default()
    params.use_gpu = False
    params.print_timings = False
    params.n_threads = threads
    params.warmup = False
    context = mtmd_cpp.mtmd_init_from_file(str(mmproj).encode(), model, params)
    if not context:
        raise ExportError(f"{mmproj}: llama.cpp cannot load it")
    try:
        yield context
    finally:
        mtmd_cpp.mtmd_free(context)


def _owned(owned: ExitStack, pointer: Any, free: Any) -> Any:
    owned.callback(free, pointer)
    return pointer


def _rgb(picture: Image.Image) -> Any:
    data = picture.convert("RGB").tobytes()
    return (ctypes.c_uint8 * len(data)).from_buffer_copy(data)


def _tokenize(context: Any, chunks: Any, bitmap: Any) -> None:
    """Turn a prompt that is nothing but the picture into chunks."""
    marker = mtmd_cpp.mtmd_default_marker()
    text = mtmd_cpp.mtmd_input_text(text=marker, add_special=False, parse_special=True)
    if any(name == "text_len" for name, *_ in mtmd_cpp.mtmd_input_text._fields_):
        text.text_len = len(marker)
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    if mtmd_cpp.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) != 0:
        raise ExportError("llama.cpp cannot prepare a picture for this model")


def _image_chunk(chunks: Any) -> Any:
    for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
        chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, index)
        kind = mtmd_cpp.mtmd_input_chunk_get_type(chunk)
        if kind == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            return chunk
    raise ExportError("llama.cpp made no image chunk of a picture")
