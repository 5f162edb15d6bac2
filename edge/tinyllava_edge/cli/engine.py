"""From a configuration to the engine it asks for."""

from __future__ import annotations

from collections.abc import Callable

from tinyllava_edge.cli.arguments import verified_bundle
from tinyllava_edge.config import GatewayConfig
from tinyllava_edge.engines.choose import open_engine
from tinyllava_edge.engines.contract import Engine
from tinyllava_edge.engines.options import EngineOptions


def engine_opener(config: GatewayConfig) -> Callable[[], Engine]:
    """A function that opens the configured engine, for the thread that will own it.

    The bundle's files and hashes are checked first: raises ``BundleError`` before anything starts.
    """
    bundle = verified_bundle(config.bundle)
    options = EngineOptions(threads=config.threads, gpu_layers=config.gpu_layers)
    return lambda: open_engine(bundle, options)
