"""A real, tiny bundle: a random Llama in GGUF, a random tower in ONNX, made without torch."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyllava_edge.manifest import Component, Footprint, Manifest, Source, write_manifest
from tinyllava_edge.semantics import Semantics

HIDDEN = 256
LAYERS = 2
HEADS = 4
FEED_FORWARD = 512
IMAGE_SIZE = 32
PATCH = 8
IMAGE_TOKENS = (IMAGE_SIZE // PATCH) ** 2
WORDS = ("Ġyes", "Ġno", "ĠYes", "ĠNo", "yes", "no", "Ġred", "Ġgreen")
SPECIAL = ("<|endoftext|>", "<|bos|>")


@dataclass(frozen=True)
class TinyModel:
    """Where the bundle is, and the language model's weights for whoever recomputes it."""

    folder: Path
    semantics: Semantics
    weights: dict[str, np.ndarray]
    vocabulary: tuple[str, ...]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> TinyModel:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    folder.mkdir()
    vocabulary, merges = _tokenizer()
    weights = _weights(len(vocabulary))
    _write_gguf(folder / "llm.gguf", weights, vocabulary, merges)
    _write_onnx(folder / "vision.onnx")
    (folder / "MODEL_CARD.md").write_text("A random model for tests.\n")
    semantics = _semantics(vocabulary)
    write_manifest(_manifest(folder, semantics), folder)
    return TinyModel(folder, semantics, weights, vocabulary)


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A small real JPEG, different on every pixel."""
    return _encoded(_gradient(48, 40), "JPEG")


@pytest.fixture(scope="session")
def gradient():
    """``gradient(width, height)``: an RGB picture, different on every pixel."""
    return _gradient


@pytest.fixture(scope="session")
def encoded():
    """``encoded(image, format, **options)``: the picture as a file's bytes."""
    return _encoded


def _gradient(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (columns * 5 % 256, rows * 7 % 256, (rows + columns) * 3 % 256)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _semantics(vocabulary: tuple[str, ...]) -> Semantics:
    return Semantics.model_validate(
        {
            "prompt": {
                "before_image": "USER: ",
                "after_image": "\n",
                "tail": " ASSISTANT:",
                "bos_token_id": vocabulary.index("<|bos|>"),
                "eos_token_ids": [vocabulary.index("<|endoftext|>")],
            },
            "image": {
                "size": IMAGE_SIZE,
                "aspect": "squash",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
            "tower": {"kind": "random", "feature_layer": -1, "activation": "none"},
            "connector": {"kind": "none", "activation": "none", "image_tokens": IMAGE_TOKENS},
            "context_tokens": 512,
        }
    )


def _manifest(folder: Path, semantics: Semantics) -> Manifest:
    roles = {"llm": "llm.gguf", "vision": "vision.onnx", "card": "MODEL_CARD.md"}
    files = {role: (folder / file).read_bytes() for role, file in roles.items()}
    return Manifest(
        name="tiny",
        source=Source(format="random", sha256="0" * 64),
        semantics=semantics,
        components=tuple(
            Component(
                role=role,
                file=roles[role],
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
            for role, data in files.items()
        ),
        footprint=Footprint(
            weights_mib=sum(map(len, files.values())) / 2**20,
            kv_kib_per_token=2 * LAYERS * HIDDEN * 2 / 1024,
            vision_activation_mib=1,
        ),
        licence="Apache-2.0",
        created_with="tests",
    )


def _byte_letters() -> list[str]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the rest from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _tokenizer() -> tuple[tuple[str, ...], list[str]]:
    """Byte-level BPE that knows every byte and a few words, merged from left to right."""
    vocabulary = _byte_letters()
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            pair = f"{word[: end - 1]} {word[end - 1]}"
            if pair not in merges:
                merges.append(pair)
                vocabulary.append(word[:end])
    return tuple(dict.fromkeys([*vocabulary, *SPECIAL])), merges


def _weights(vocab_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        values = rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        return values.astype(np.float32)

    weights = {
        "token_embd.weight": rng.standard_normal((vocab_size, HIDDEN)).astype(np.float32),
        "output_norm.weight": np.ones(HIDDEN, np.float32),
        "output.weight": matrix(vocab_size, HIDDEN, 4.0),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        weights[block + "attn_norm.weight"] = np.ones(HIDDEN, np.float32)
        weights[block + "ffn_norm.weight"] = np.ones(HIDDEN, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights[f"{block}{name}.weight"] = matrix(HIDDEN, HIDDEN)
        weights[block + "ffn_gate.weight"] = matrix(FEED_FORWARD, HIDDEN)
        weights[block + "ffn_up.weight"] = matrix(FEED_FORWARD, HIDDEN)
        weights[block + "ffn_down.weight"] = matrix(HIDDEN, FEED_FORWARD)
    return weights


def _write_gguf(
    path: Path, weights: dict[str, np.ndarray], vocabulary: tuple[str, ...], merges: list[str]
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(list(vocabulary))
    control = set(SPECIAL)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in control else gguf.TokenType.NORMAL for t in vocabulary]
    )
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary.index("<|bos|>"))
    writer.add_eos_token_id(vocabulary.index("<|endoftext|>"))
    for name, values in weights.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_onnx(path: Path) -> None:
    """One convolution over patches, flattened to a row of tokens."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(11)
    kernel = rng.standard_normal((HIDDEN, 3, PATCH, PATCH)).astype(np.float32) / PATCH
    nodes = [
        helper.make_node("Conv", ["pixel_values", "kernel"], ["map"], strides=[PATCH, PATCH]),
        helper.make_node("Reshape", ["map", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["image_embeds"], perm=[0, 2, 1]),
    ]
    constants = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.array([0, HIDDEN, IMAGE_TOKENS], np.int64), "shape"),
    ]
    shape_in = ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]
    shape_out = ["batch", IMAGE_TOKENS, HIDDEN]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, shape_out)],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
