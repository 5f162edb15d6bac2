"""Connectors by the word that configurations use, with the numbers they are built from."""

from __future__ import annotations

import re
from typing import Any

from tinyllava_edge.semantics import ConnectorSemantics
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.checkpoints.tower_sizes import layer_count, stored_shape
from tinyllava_export.errors import CheckpointError

MLP = re.compile(r"mlp([1-9]\d?)x_gelu")
PLAIN = ("linear", "identity")
# Fixed in TinyLLaVA_Factory's code: only queries and layers can be configured.
RESAMPLER_HEADS, RESAMPLER_HEAD_DIM, RESAMPLER_LAYERS = 8, 64, 3
# What TinyLLaVA_Factory's Q-Former takes from BERT-base and no tensor shows.
QFORMER_HEADS, QFORMER_HEAD_DIM = 12, 64
QFORMER = {"norm_eps": 1e-12, "cross_attention_every": 2}
DEFAULT_QUERIES = 128
SUPPORTED = ("mlpNx_gelu", *PLAIN, "resampler", "qformer", "mof_mlp")


def connector_config(kind: object, settings: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """``{"kind": ...}`` with the numbers of that kind, from TinyLLaVA_Factory's settings.

    MLPs have ``depth``; resampler and Q-Former ``queries``, ``layers``, ``heads`` and what else
    they are built from. A Q-Former's sizes follow from ``tensors``. Raises ``CheckpointError``
    for an unknown kind.
    """
    if isinstance(kind, str) and (match := MLP.fullmatch(kind)):
        return {"kind": kind, "depth": int(match[1])}
    if kind in PLAIN or kind == "mof_mlp":
        return {"kind": kind}
    if kind == "resampler":
        return {
            "kind": kind,
            "queries": _number(settings, "num_queries", DEFAULT_QUERIES),
            "layers": _number(settings, "num_resampler_layers", RESAMPLER_LAYERS),
            "heads": RESAMPLER_HEADS,
            "head_dim": RESAMPLER_HEAD_DIM,
        }
    if kind == "qformer":
        return {"kind": kind, **_qformer(tensors)}
    raise CheckpointError(
        f"config.json: connector {kind!r} is not supported; supported: {', '.join(SUPPORTED)}"
    )


def connector_semantics(
    config: dict[str, Any], tower_tokens: int, *, activation: str = "gelu"
) -> ConnectorSemantics:
    """What leaves the connector when ``tower_tokens`` tokens enter it."""
    plain = config["kind"] in PLAIN
    return ConnectorSemantics(
        kind=config["kind"],
        activation="linear" if plain else activation,
        image_tokens=config.get("queries", tower_tokens),
    )


def _qformer(tensors: Tensors) -> dict[str, Any]:
    _, queries, hidden = stored_shape(tensors, "connector.query_tokens", 3)
    layers = "connector.bert.encoder.layer."
    name = f"{layers}0.intermediate_query.dense.weight"
    intermediate, _ = stored_shape(tensors, name, 2)
    usual = hidden % QFORMER_HEADS == 0
    return {
        "queries": queries,
        "layers": layer_count(tensors, layers),
        "heads": QFORMER_HEADS if usual else max(1, hidden // QFORMER_HEAD_DIM),
        "hidden": hidden,
        "intermediate": intermediate,
        **QFORMER,
    }


def _number(settings: dict[str, Any], name: str, default: int) -> int:
    value = settings.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(
            f"config.json: {name} is {value!r:.40}; it must be a positive whole number"
        )
    return value
