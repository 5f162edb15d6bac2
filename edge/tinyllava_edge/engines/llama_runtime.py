"""A GGUF model and its context behind plain Python: tokens or embeddings in, logits out.

The thin layer over llama-cpp-python's low-level functions. It owns the native memory and knows
nothing of pictures, prompts or questions.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyllava_edge.engines.llama_log import last_error, route_log
from tinyllava_edge.errors import AskError, BackendMissing, BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

BATCH_TOKENS = 512
UBATCH_TOKENS = 256
"""Tokens computed at once; bounds the attention scores, heads x this x context floats."""
_PIECE_BYTES = 256
# llama_tokenize's add_special and parse_special, which the binding takes by position only.
_PLAIN = (False, False)
# llama_token_to_piece's lstrip and special.
_NO_CONTROL = (0, False)


class Step(NamedTuple):
    """One token to feed: where it stands, in which sequence, and whether its logits are read."""

    token: int
    position: int
    sequence: int
    wanted: bool


class LlamaRuntime:
    """An open model with ``cells`` tokens of KV cache shared by ``sequences`` sequences.

    Raises ``BackendMissing`` without llama-cpp-python and ``BundleError`` for a file that
    llama.cpp does not load.
    """

    def __init__(
        self, path: Path, *, cells: int, sequences: int, threads: int, gpu_layers: int
    ) -> None:
        try:
            import llama_cpp
        except ImportError:
            raise BackendMissing(
                "llama-cpp-python is not installed; pip install 'tinyllava-edge[gguf]'"
            ) from None
        route_log(llama_cpp)
        self._lib: Any = llama_cpp
        self._path = path
        with ExitStack() as owned:
            llama_cpp.llama_backend_init()
            self._model = self._load(gpu_layers, owned)
            self._context = self._open_context(cells, sequences, threads, gpu_layers != 0, owned)
            self._memory = llama_cpp.llama_get_memory(self._context)
            self._vocab = llama_cpp.llama_model_get_vocab(self._model)
            self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
            self.hidden = int(llama_cpp.llama_model_n_embd(self._model))
            self.cells = int(llama_cpp.llama_n_ctx(self._context))
            self._tokens = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
            owned.callback(llama_cpp.llama_batch_free, self._tokens)
            self._embeddings = llama_cpp.llama_batch_init(BATCH_TOKENS, self.hidden, 1)
            owned.callback(llama_cpp.llama_batch_free, self._embeddings)
            self._owned = owned.pop_all()

    def close(self) -> None:
        """Free the native memory; safe to call twice, unusable afterwards."""
        self._owned.close()

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Tokens of a piece of text; what looks like a control token is taken as plain text."""
        data = text.encode("utf-8", "replace")  # JSON may bring in a lone surrogate
        room = len(data) + 8
        while True:
            buffer = (self._lib.llama_token * room)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), buffer, room, *_PLAIN)
            if count >= 0:
                return tuple(buffer[:count])
            room = -count

    def text(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens stand for, control tokens left out; may end inside a letter."""
        return b"".join(self._piece(token) for token in tokens)

    def decode(self, steps: Sequence[Step]) -> NDArray[np.float32]:
        """Feed tokens, of any sequences, and give the logits of those wanted, ``[wanted, vocab]``.

        Raises ``AskError`` with code ``engine_failed`` where llama.cpp refuses.
        """
        rows = [
            row
            for start in range(0, len(steps), BATCH_TOKENS)
            for row in self._decode_batch(steps[start : start + BATCH_TOKENS])
        ]
        return np.stack(rows) if rows else np.empty((0, self.vocab_size), dtype=np.float32)

    def decode_embeddings(
        self, embeddings: NDArray[np.float32], *, position: int, sequence: int
    ) -> None:
        """Feed embeddings ``[n, hidden]`` in place of tokens, from ``position`` on."""
        for start in range(0, len(embeddings), BATCH_TOKENS):
            rows = np.ascontiguousarray(embeddings[start : start + BATCH_TOKENS], dtype=np.float32)
            batch = self._embeddings
            batch.n_tokens = len(rows)
            target = np.ctypeslib.as_array(batch.embd, shape=rows.shape)
            target[:] = rows
            for i in range(len(rows)):
                self._place(batch, i, Step(0, position + start + i, sequence, wanted=False))
            self._run(batch)

    def share(self, source: int, target: int) -> None:
        """Let ``target`` start where ``source`` is; costs no memory."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def forget(self, sequence: int, *, from_position: int = 0) -> None:
        """Drop a sequence from a position on; cells shared with others stay theirs."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, from_position, -1)

    def _load(self, gpu_layers: int, owned: ExitStack) -> Any:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        model = self._lib.llama_model_load_from_file(os.fsencode(self._path), params)
        if not model:
            raise BundleError(
                f"{self._path}: llama.cpp does not load it ({last_error() or 'no reason given'}); "
                "export it again, or upgrade llama-cpp-python"
            )
        owned.callback(self._lib.llama_model_free, model)
        return model

    def _open_context(
        self, cells: int, sequences: int, threads: int, on_gpu: bool, owned: ExitStack
    ) -> Any:
        if cells < sequences:
            raise BundleError(
                f"{self._path}: a context of {cells} tokens has no room for {sequences} questions "
                "at once; give it more (--context)"
            )
        params = self._lib.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch, params.n_ubatch = BATCH_TOKENS, UBATCH_TOKENS
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        # One buffer for all sequences: a shared prefix is stored once and copied by reference.
        params.kv_unified = True
        params.no_perf = True
        if not on_gpu:
            # On CPUs, flash attention adds up in float16: logits come out 300 times as far apart
            # between a question alone and the same one in a batch.
            params.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = self._lib.llama_init_from_model(self._model, params)
        if not context:
            raise BundleError(
                f"{self._path}: no memory for {cells} tokens of context "
                f"({last_error() or 'no reason given'}); give a smaller context"
            )
        owned.callback(self._lib.llama_free, context)
        return context

    def _piece(self, token: int) -> bytes:
        room = _PIECE_BYTES
        while True:
            buffer = (ctypes.c_char * room)()
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, room, *_NO_CONTROL)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def _decode_batch(self, steps: Sequence[Step]) -> list[NDArray[np.float32]]:
        batch = self._tokens
        batch.n_tokens = len(steps)
        for i, step in enumerate(steps):
            batch.token[i] = step.token
            self._place(batch, i, step)
        self._run(batch)
        wanted = (i for i, step in enumerate(steps) if step.wanted)
        return [self._logits(i) for i in wanted]

    def _logits(self, index: int) -> NDArray[np.float32]:
        """A copy: the native buffer is overwritten by the next batch."""
        pointer = self._lib.llama_get_logits_ith(self._context, index)
        row: NDArray[np.float32] = np.ctypeslib.as_array(pointer, shape=(self.vocab_size,)).copy()
        return row

    @staticmethod
    def _place(batch: Any, index: int, step: Step) -> None:
        batch.pos[index] = step.position
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = step.sequence
        batch.logits[index] = step.wanted

    def _run(self, batch: Any) -> None:
        status = self._lib.llama_decode(self._context, batch)
        if status != 0:
            raise AskError(
                "engine_failed",
                f"llama.cpp could not decode {batch.n_tokens} tokens (status {status}, "
                f"{last_error() or 'no reason given'}); ask again with a smaller context or batch",
            )
