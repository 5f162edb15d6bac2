import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from tinyllava_edge.engines.llama_runtime import LlamaRuntime
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf.language_model import write_language_model
from tinyllava_export.gguf.vocabulary import (
    CONTROL,
    NORMAL,
    UNUSED,
    byte_symbols,
    read_vocabulary,
)
from tinyllava_export.source import read_tokenizer

SIZE = 400


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return read_tokenizer(open_checkpoint(tiny_folder))


@pytest.fixture(scope="module")
def llama(tiny_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "llm.gguf"
    write_language_model(open_checkpoint(tiny_folder), path, name="tiny", precision="F32")
    runtime = LlamaRuntime(path, cells=64, sequences=1, threads=1, gpu_layers=0)
    yield runtime
    runtime.close()


def changed(folder, **changes):
    path = folder / "tokenizer.json"
    text = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parents, last = name.split("__")
        node = text
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node[parent]
        node[last] = value
    path.write_text(json.dumps(text), encoding="utf-8")
    return path


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_llama_cpp_gives_the_same_ids_for_any_text(tokenizer, llama, text):
    assert list(llama.tokenize(text)) == tokenizer.encode(text, add_special_tokens=False).ids


WORDS = [
    "USER",
    ": ",
    "What",
    " the",
    "gauge",
    "'s",
    "'LL",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "7",
    "12",
]
WORDS += ["°C", "temperature=62", "; ", "(stale)", "Zähler", "<s>", "</s>", "<image>", "é", "漢字"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_llama_cpp_gives_the_same_ids_for_text_like_prompts(tokenizer, llama, text):
    assert list(llama.tokenize(text)) == tokenizer.encode(text, add_special_tokens=False).ids


def test_llama_cpp_writes_ids_back_as_the_same_text(llama):
    text = "Sensors: temperature=62 °C, 3 s ago\nIs it safe? Zähler 漢字"
    assert llama.text(llama.tokenize(text)).decode() == text


def test_control_tokens_in_text_are_plain_text(llama):
    assert not {0, 1, 2, 3, 4} & set(llama.tokenize("<s>USER: <image></s><pad><unk>"))


def test_vocabulary_has_types_and_named_ids(tiny_folder):
    vocabulary = read_vocabulary(tiny_folder / "tokenizer.json", SIZE + 2)
    assert vocabulary.tokens[:5] == ("<s>", "</s>", "<image>", "<unk>", "<pad>")
    assert vocabulary.types[:6] == (CONTROL,) * 5 + (NORMAL,)
    assert (vocabulary.pad_id, vocabulary.unk_id, vocabulary.pre) == (4, 3, "qwen2")
    assert vocabulary.tokens[-2:] == (f"[PAD{SIZE}]", f"[PAD{SIZE + 1}]")
    assert vocabulary.types[-2:] == (UNUSED, UNUSED)
    assert all(len(merge.split(" ")) == 2 for merge in vocabulary.merges)


def test_byte_symbols_are_those_of_the_tokenizers_library():
    assert sorted(byte_symbols()) == sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__type": "Unigram"}, "only byte-level BPE"),
        ({"model__byte_fallback": True}, "byte_fallback"),
        ({"model__ignore_merges": True}, "ignore_merges"),
        ({"normalizer": {"type": "NFC"}}, "normalizer 'NFC'"),
        ({"pre_tokenizer__pretokenizers__0__pattern": {"Regex": r"\s+"}}, "splitting pattern"),
        ({"pre_tokenizer__pretokenizers__1__use_regex": True}, "use_regex"),
        ({"pre_tokenizer__pretokenizers__1__add_prefix_space": True}, "add_prefix_space"),
        ({"pre_tokenizer": None}, "not a byte-level BPE tokenizer"),
        ({"model": []}, "not a byte-level BPE tokenizer"),
        ({"model__vocab": {"a": 0}}, "byte symbols"),
    ],
)
def test_read_vocabulary_refuses_what_llama_cpp_reads_differently(own_folder, changes, message):
    with pytest.raises(CheckpointError, match=message):
        read_vocabulary(changed(own_folder, **changes), SIZE)


def test_read_vocabulary_refuses_a_tokenizer_larger_than_the_embedding_table(tiny_folder):
    with pytest.raises(CheckpointError, match="beyond the embedding table of 300"):
        read_vocabulary(tiny_folder / "tokenizer.json", 300)


def test_read_vocabulary_refuses_a_missing_file_and_bad_json(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="missing"):
        read_vocabulary(path, SIZE)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_vocabulary(path, SIZE)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["model", "vocab", "merges", "type", "pre_tokenizer", "added_tokens"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_read_vocabulary_raises_nothing_but_checkpoint_errors(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        read_vocabulary(path, SIZE)
