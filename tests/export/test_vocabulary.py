import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from tinyllava_edge.engines.llama_runtime import LlamaRuntime
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf.byte_level import byte_symbols
from tinyllava_export.gguf.language_model import write_language_model
from tinyllava_export.gguf.token_types import CONTROL, NORMAL, UNUSED, USER_DEFINED
from tinyllava_export.gguf.vocabulary import parse_vocabulary, read_vocabulary
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
    """The content of the folder's tokenizer.json with some of its nodes replaced."""
    text = json.loads((folder / "tokenizer.json").read_bytes())
    for name, value in changes.items():
        *parents, last = name.split("__")
        node = text
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node[parent]
        node[last] = value
    return json.dumps(text).encode()


def parse(content, size=SIZE):
    return parse_vocabulary(content, size, where="here")


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
    checkpoint = open_checkpoint(tiny_folder)
    wide = replace(checkpoint, text=replace(checkpoint.text, vocabulary=SIZE + 2))
    vocabulary = read_vocabulary(wide)
    assert vocabulary.tokens[:5] == ("<s>", "</s>", "<image>", "<unk>", "<pad>")
    assert vocabulary.types[:6] == (CONTROL,) * 5 + (NORMAL,)
    assert (vocabulary.pad_id, vocabulary.unk_id) == (4, 3)
    assert (vocabulary.model, vocabulary.pre, vocabulary.scores) == ("gpt2", "qwen2", ())
    assert not vocabulary.space_prefix
    assert vocabulary.tokens[-2:] == (f"[PAD{SIZE}]", f"[PAD{SIZE + 1}]")
    assert vocabulary.types[-2:] == (UNUSED, UNUSED)
    assert all(len(merge.split(" ")) == 2 for merge in vocabulary.merges)


def test_byte_symbols_are_those_of_the_tokenizers_library():
    assert sorted(byte_symbols()) == sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__type": "Unigram"}, "only BPE works"),
        ({"model__byte_fallback": True}, "256 of the 256 byte tokens are missing"),
        ({"model__ignore_merges": True}, "ignore_merges"),
        ({"model__dropout": 0.1}, "dropout"),
        ({"normalizer": {"type": "NFKC"}}, "normalizer 'NFKC'"),
        ({"pre_tokenizer__pretokenizers__0__pattern": {"Regex": r"\s+"}}, "splitting pattern"),
        ({"pre_tokenizer__pretokenizers__0__behavior": "Contiguous"}, "splitting pattern"),
        ({"pre_tokenizer__pretokenizers__1__use_regex": True}, "use_regex"),
        ({"pre_tokenizer__pretokenizers__1__add_prefix_space": True}, "add_prefix_space"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splitting pattern"),
        ({"pre_tokenizer": None}, "not a BPE tokenizer"),
        ({"model": []}, "not a BPE tokenizer"),
        ({"model__vocab": {"a": 0}}, "byte symbols"),
        ({"added_tokens__0__special": False, "added_tokens__0__lstrip": True}, "has lstrip"),
    ],
)
def test_parse_vocabulary_refuses_what_llama_cpp_reads_differently(tiny_folder, changes, message):
    with pytest.raises(CheckpointError, match=message):
        parse(changed(tiny_folder, **changes))


def test_parse_vocabulary_tells_the_unicode_form_that_text_must_be_in(tiny_folder):
    assert parse(changed(tiny_folder)).unicode_form == "as_is"
    assert parse(changed(tiny_folder, normalizer={"type": "NFC"})).unicode_form == "NFC"


def test_read_vocabulary_refuses_semantics_that_say_another_unicode_form(own_folder):
    (own_folder / "tokenizer.json").write_bytes(changed(own_folder, normalizer={"type": "NFC"}))
    checkpoint = open_checkpoint(own_folder)
    with pytest.raises(CheckpointError, match=r"Unicode form NFC, its semantics say as_is"):
        read_vocabulary(checkpoint)
    prompt = checkpoint.semantics.prompt.model_copy(update={"unicode_form": "NFC"})
    semantics = checkpoint.semantics.model_copy(update={"prompt": prompt})
    assert read_vocabulary(replace(checkpoint, semantics=semantics)).unicode_form == "NFC"


def test_parse_vocabulary_knows_the_pattern_that_a_byte_level_step_has_of_its_own(tiny_folder):
    step = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    assert parse(changed(tiny_folder, pre_tokenizer=step)).pre == "gpt-2"


def test_added_tokens_that_are_not_special_are_found_in_any_text(tiny_folder):
    vocabulary = parse(changed(tiny_folder, added_tokens__2__special=False))
    assert vocabulary.types[2] == USER_DEFINED


def test_parse_vocabulary_refuses_a_tokenizer_larger_than_the_embedding_table(tiny_folder):
    with pytest.raises(CheckpointError, match="beyond the embedding table of 300"):
        parse(changed(tiny_folder), 300)


def test_parse_vocabulary_refuses_what_is_no_json():
    with pytest.raises(CheckpointError, match="here: not valid JSON"):
        parse(b"{")


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "model",
                        "vocab",
                        "merges",
                        "type",
                        "pre_tokenizer",
                        "normalizer",
                        "added_tokens",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_parse_vocabulary_raises_nothing_but_checkpoint_errors(content):
    with pytest.raises(CheckpointError):
        parse(json.dumps(content).encode())
