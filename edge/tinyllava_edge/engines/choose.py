"""Pick the engine that a bundle's components ask for, after checking that it fits in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyllava_devices import DoesNotFit, Footprint, plan_memory, read_memory
from tinyllava_edge.engines.options import EngineOptions
from tinyllava_edge.errors import BundleError

if TYPE_CHECKING:
    from tinyllava_edge.bundle import Bundle
    from tinyllava_edge.engines.contract import Engine

__all__ = ["EngineOptions", "open_engine"]


def open_engine(bundle: Bundle, options: EngineOptions | None = None) -> Engine:
    """Open the engine for a bundle; close it when done.

    Raises ``BundleError`` where no engine here runs such a bundle or it does not fit in memory,
    and ``BackendMissing`` where a runtime is not installed.
    """
    options = options or EngineOptions()
    if not (bundle.has("llm") and bundle.has("vision")):
        roles = ", ".join(component.role for component in bundle.manifest.components)
        raise BundleError(
            f"{bundle.folder}: has {roles}, and no engine here runs that (llm and vision are "
            "needed); export with --to gguf"
        )
    if options.check_memory:
        _check_memory(bundle, options)
    from tinyllava_edge.engines.llama_cpp import LlamaCppEngine

    return LlamaCppEngine(bundle, options)


def _check_memory(bundle: Bundle, options: EngineOptions) -> None:
    """Refuse before loading what the kernel would kill afterwards."""
    stated = bundle.manifest.footprint
    footprint = Footprint(
        weights_mib=stated.weights_mib,
        kv_kib_per_token=stated.kv_kib_per_token,
        vision_activation_mib=stated.vision_activation_mib,
    )
    context_tokens = options.context_tokens or bundle.manifest.semantics.context_tokens
    try:
        plan_memory(footprint, read_memory(), context_tokens=context_tokens)
    except DoesNotFit as error:
        raise BundleError(f"{bundle.folder}: {error}") from None
