"""SentencePiece tokenizers in GGUF: llama.cpp gives the ids of the tokenizer they came from."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllava_edge.engines.llama_runtime import LlamaRuntime
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf.language_model import write_language_model
from tinyllava_export.gguf.sentencepiece_bpe import UNMERGED
from tinyllava_export.gguf.token_types import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from tinyllava_export.gguf.vocabulary import parse_vocabulary, read_vocabulary
from tinyllava_export.source import read_tokenizer

SIZE = 768
WORDS = ["USER", ": ", "What", " the", "'s", " ", "  ", "\n", "\t", "7", "12", "°C", "62 ", "; "]
WORDS += ["(stale)", "Zähler", "<s>", "</s>", "<image>", "<0x0A>", "é", "漢字", "▁", "<unk>"]


@pytest.fixture(scope="module")
def content(golden_case):
    """A tokenizer.json of 722 tokens that puts a space before each piece of text."""
    folder = golden_case("hf-llava-tinyllama-clip").checkpoint
    return json.loads((folder / "tokenizer.json").read_bytes())


def parse(content, size=SIZE):
    return parse_vocabulary(json.dumps(content).encode(), size, where="here")


def as_it_is(content):
    return content


def without_prefix(content):
    """As Gemma has it: spaces are replaced, none is put first."""
    split = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    replace_spaces = content["normalizer"]["normalizers"][-1]
    return content | {"normalizer": replace_spaces, "pre_tokenizer": split}


def with_a_word(content):
    """``<image>`` as a word that is found in any text."""
    words = [
        added | {"special": added["special"] and added["content"] != "<image>"}
        for added in content["added_tokens"]
    ]
    return content | {"added_tokens": words}


@pytest.fixture(scope="module", params=[as_it_is, without_prefix, with_a_word])
def both(request, content, golden_case, tmp_path_factory):
    """The tokenizer and llama.cpp's reading of it."""
    root = tmp_path_factory.mktemp("sentencepiece")
    folder = shutil.copytree(golden_case("hf-llava-tinyllama-clip").checkpoint, root / "checkpoint")
    (folder / "tokenizer.json").write_text(json.dumps(request.param(content)), encoding="utf-8")
    checkpoint = open_checkpoint(folder)
    write_language_model(checkpoint, root / "llm.gguf", name="tiny", precision="F32")
    llama = LlamaRuntime(root / "llm.gguf", cells=64, sequences=1, threads=1, gpu_layers=0)
    yield read_tokenizer(checkpoint), llama
    llama.close()


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_llama_cpp_gives_the_same_ids_for_any_text(both, text):
    tokenizer, llama = both
    assert list(llama.tokenize(text)) == encode(tokenizer, text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_llama_cpp_gives_the_same_ids_for_text_like_prompts(both, text):
    tokenizer, llama = both
    assert list(llama.tokenize(text)) == encode(tokenizer, text)


def test_control_tokens_in_text_are_plain_text(both):
    _, llama = both
    assert not {0, 1, 2, 721} & set(llama.tokenize("<s>USER: </s><pad><unk>"))


def test_vocabulary_has_scores_and_types(content):
    vocabulary = parse(content)
    assert (vocabulary.model, vocabulary.pre, vocabulary.merges) == ("llama", "default", ())
    assert vocabulary.space_prefix
    assert vocabulary.types[:5] == (UNKNOWN, CONTROL, CONTROL, BYTE, BYTE)
    assert vocabulary.types[720:] == (CONTROL, CONTROL) + (UNUSED,) * (SIZE - 722)
    assert vocabulary.types[300] == NORMAL
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    first, last = (joined(content["model"]["merges"][i]) for i in (0, -1))
    assert scores[first] == 0 > scores[last] > scores["<s>"] == UNMERGED


def joined(merge):
    return (merge if isinstance(merge, str) else "".join(merge)).replace(" ", "")


def test_added_words_have_spaces_where_the_tokenizer_writes_them_otherwise(content):
    words = with_a_word(content)["added_tokens"]
    words = [word | {"content": word["content"].replace("<image>", "▁▁▁")} for word in words]
    vocabulary = parse(content | {"added_tokens": words})
    assert (vocabulary.tokens[720], vocabulary.types[720]) == ("   ", USER_DEFINED)


def test_read_vocabulary_reads_a_sentencepiece_model(golden_case):
    checkpoint = open_checkpoint(golden_case("factory-tinyllama-clip-resampler").checkpoint)
    vocabulary = read_vocabulary(checkpoint)
    assert (vocabulary.model, vocabulary.space_prefix) == ("llama", True)
    assert len(vocabulary.tokens) == len(vocabulary.scores) == 700
    assert vocabulary.pad_id == vocabulary.unk_id == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": None}, "normalizers none; llama.cpp only replaces spaces"),
        ({"normalizer": {"type": "NFKC"}}, "normalizers NFKC"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "pre_tokenizer 'Metaspace' splits the text"),
    ],
)
def test_parse_vocabulary_refuses_what_llama_cpp_reads_differently(content, changes, message):
    with pytest.raises(CheckpointError, match=message):
        parse(content | changes)


def test_parse_vocabulary_refuses_a_vocabulary_without_all_bytes(content):
    vocabulary = {t: i for t, i in content["model"]["vocab"].items() if t != "<0xFF>"}
    with pytest.raises(CheckpointError, match=r"1 of the 256 byte tokens are missing .*<0xFF>"):
        parse(content | {"model": content["model"] | {"vocab": vocabulary}})


def test_parse_vocabulary_refuses_a_control_token_that_plain_text_could_become(content):
    vocabulary = dict(content["model"]["vocab"])
    del vocabulary[next(token for token, i in vocabulary.items() if i == 500)]
    vocabulary["s>"] = 500
    with pytest.raises(CheckpointError, match=r"the text '<s>' as a control token, because '<' an"):
        parse(content | {"model": content["model"] | {"vocab": vocabulary}})
