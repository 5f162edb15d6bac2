"""The GGUF engine: an ONNX vision tower in front of llama.cpp, one KV prefix a picture.

The prompt is ``[bos] before_image | image embeddings | question``, positions running on. What
stands up to the end of the picture is prefilled once, into sequence 0, and every question starts
from it; questions are then decoded together, a sequence each.
"""

from __future__ import annotations

from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING

from tinyllava_edge.engines.contract import Sight
from tinyllava_edge.engines.llama_answers import PREFIX, Answering
from tinyllava_edge.engines.llama_prompts import Prompts, groups
from tinyllava_edge.engines.llama_runtime import LlamaRuntime, Step
from tinyllava_edge.engines.sights import SightCache
from tinyllava_edge.engines.stopwatch import Stopwatch, since_ms
from tinyllava_edge.engines.vision import VisionEncoder
from tinyllava_edge.errors import AskError, BundleError
from tinyllava_edge.preprocess import pixels
from tinyllava_edge.prompt import in_unicode_form, prefix_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tinyllava_edge.bundle import Bundle
    from tinyllava_edge.engines.contract import Question, Reply
    from tinyllava_edge.engines.options import EngineOptions


class LlamaCppEngine:
    """An ``Engine`` for bundles with the components ``llm`` (GGUF) and ``vision`` (ONNX).

    Raises ``BackendMissing`` or ``BundleError``, see ``LlamaRuntime`` and ``VisionEncoder``.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        semantics = bundle.manifest.semantics
        self.name = bundle.manifest.name
        self._semantics = semantics
        self._vision = VisionEncoder(
            bundle.path("vision"),
            semantics,
            threads=options.thread_count,
            providers=options.vision_providers,
        )
        context_tokens = options.context_tokens or semantics.context_tokens
        with ExitStack() as owned:
            self._llama = LlamaRuntime(
                bundle.path("llm"),
                cells=context_tokens,
                # The prefix, the questions, and as many options of multiple-choice questions.
                sequences=1 + 2 * options.parallel,
                threads=options.thread_count,
                gpu_layers=options.gpu_layers,
            )
            owned.callback(self._llama.close)
            self._check_fit(bundle)
            self._prefix = self._prefix_tokens()
            image_tokens = semantics.connector.image_tokens
            self._prompts = Prompts(
                self._tokenize,
                semantics,
                prefix_tokens=len(self._prefix) + image_tokens,
                context_tokens=context_tokens,
            )
            self._answering = Answering(
                self._llama,
                semantics.prompt,
                prefix_tokens=self._prompts.prefix_tokens,
                parallel=options.parallel,
            )
            self._owned = owned.pop_all()
        self._parallel = options.parallel
        self._sights = SightCache(int(options.sight_cache_mib * (1 << 20)))
        self._untold_vision_ms: dict[str, float] = {}
        self._current: str | None = None
        self._prefix_fed = False

    def see(self, picture: Image, key: str) -> Sight:
        """Encode a decoded picture, or return the sight kept for the same key (0 ms)."""
        image_tokens = self._semantics.connector.image_tokens
        if self._sights.get(key) is not None:
            return Sight(key, image_tokens, 0.0)
        started = perf_counter()
        embeddings = self._vision.encode(pixels(picture, self._semantics.image))
        if embeddings.shape[1] != self._llama.hidden:
            raise BundleError(
                f"{self.name}: image embeddings have {embeddings.shape[1]} columns, the language "
                f"model {self._llama.hidden}; export it again"
            )
        self._sights.put(key, embeddings)
        vision_ms = since_ms(started)
        self._untold_vision_ms = {
            kept: ms for kept, ms in self._untold_vision_ms.items() if kept in self._sights
        } | {key: vision_ms}
        return Sight(key, image_tokens, vision_ms)

    def ask(self, sight: Sight, questions: Sequence[Question]) -> list[Reply]:
        """Answer questions on one sight, in order, as many at once as fit.

        Raises ``PromptTooLong`` before anything is decoded, and ``AskError`` for a question that
        makes no sense or a sight that is no longer kept.
        """
        watch = Stopwatch()
        prompts = [self._prompts.build(question) for question in questions]
        if not prompts:
            return []
        watch.prefix_ms = self._prefill(sight)
        watch.vision_ms = self._untold_vision_ms.pop(sight.key, 0.0)
        free_cells = self._llama.cells - self._prompts.prefix_tokens
        replies: list[Reply] = []
        for group in groups(prompts, free_cells=free_cells, parallel=self._parallel):
            replies += self._answering.answer(group, watch)
        return replies

    def prompt_logits(self, sight: Sight, question: Question) -> NDArray[np.float32]:
        """Logits ``[vocab]`` of the token that would follow a question's prompt, for measuring.

        Raises as ``ask`` does.
        """
        prompt = self._prompts.build(question)
        self._prefill(sight)
        return self._answering.prompt_logits(prompt)

    def close(self) -> None:
        """Free native memory; the engine is unusable afterwards."""
        self._owned.close()

    def _check_fit(self, bundle: Bundle) -> None:
        """Refuse ids that this vocabulary does not have: they would crash the native side."""
        prompt = self._semantics.prompt
        bos = () if prompt.bos_token_id is None else (prompt.bos_token_id,)
        for token in (*bos, *prompt.eos_token_ids):
            if not 0 <= token < self._llama.vocab_size:
                raise BundleError(
                    f"{bundle.folder}: token id {token} of the manifest is not in the vocabulary "
                    f"of {self._llama.vocab_size}; export the bundle again"
                )

    def _prefix_tokens(self) -> tuple[int, ...]:
        bos = self._semantics.prompt.bos_token_id
        text = self._tokenize(prefix_text(self._semantics))
        return text if bos is None else (bos, *text)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return self._llama.tokenize(in_unicode_form(text, self._semantics.prompt))

    def _prefill(self, sight: Sight) -> float:
        """Bring the sight's prefix into sequence 0; returns milliseconds, 0 where it is there."""
        if self._current == sight.key:
            self._sights.get(sight.key)
            return 0.0
        embeddings = self._sights.get(sight.key)
        if embeddings is None:
            raise AskError(
                "sight_gone", f"picture {sight.key[:12]} is no longer kept; see it again"
            )
        started = perf_counter()
        self._current = None
        self._feed_prefix(embeddings)
        self._current = sight.key
        return since_ms(started)

    def _feed_prefix(self, embeddings: NDArray[np.float32]) -> None:
        """Prefill the picture after the text before it, which is the same for all pictures."""
        length = len(self._prefix)
        self._llama.forget(PREFIX, from_position=length if self._prefix_fed else 0)
        if not self._prefix_fed:
            steps = [Step(token, i, PREFIX, wanted=False) for i, token in enumerate(self._prefix)]
            self._llama.decode(steps)
            self._prefix_fed = True
        self._llama.decode_embeddings(embeddings, position=length, sequence=PREFIX)
