import base64
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tinyllava_export.checkpoints.byte_level_bpe import byte_symbols
from tinyllava_export.checkpoints.prompts import LLAVA, prompt_semantics
from tinyllava_export.checkpoints.sentencepiece_bpe import SPACE
from tinyllava_export.checkpoints.tiktoken_bpe import SPECIALS
from tinyllava_export.checkpoints.tokenizer import (
    read_tokenizer_facts,
    read_tokenizer_json,
    sentencepiece_file,
)
from tinyllava_export.errors import CheckpointError

TEXTS = (
    "A chat between a curious user",
    "\nHow many  objects are on the table?\n\n",
    "   three spaces, a tab\tand naïve café 42 °C",
    "日本語 \U0001f600 and ▁ itself",
    "</s> is text here",
    "",
    " ",
)
LLAMA, PHI, QWEN2 = (
    "factory-tinyllama-siglip-lora",
    "legacy-phi-siglip",
    "factory-qwen2-siglip-split",
)


def load(folder):
    tokenizer = Tokenizer.from_str(read_tokenizer_json(folder).decode())
    tokenizer.encode_special_tokens = True
    return tokenizer


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.fixture
def own(golden_case, tmp_path):
    def copy(name):
        return shutil.copytree(
            golden_case(name).checkpoint,
            tmp_path / name,
            ignore=lambda _, names: [n for n in names if n.endswith((".bin", ".safetensors"))],
        )

    return copy


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_gives_the_ids_of_the_model_itself(golden_case, text):
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = golden_case(LLAMA).checkpoint
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert ids(load(folder), text) == (model.encode(text) if text else [])


def test_sentencepiece_text_comes_back(golden_case):
    tokenizer = load(golden_case(LLAMA).checkpoint)
    for text in TEXTS[:2]:
        assert tokenizer.decode(ids(tokenizer, text), skip_special_tokens=True) == text


def test_sentencepiece_without_its_dummy_space_when_the_settings_say_so(own):
    folder = own(LLAMA)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["add_prefix_space"] = False
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert not read_tokenizer_facts(folder).adds_space
    tokenizer = load(folder)
    assert tokenizer.encode("chat", add_special_tokens=False).tokens[0] != SPACE + "ch"
    assert tokenizer.decode(ids(tokenizer, " chat")) == " chat"


@pytest.mark.parametrize("name", [PHI, QWEN2])
@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_text_comes_back_and_tokens_are_those_of_transformers(golden_case, name, text):
    from transformers import CodeGenTokenizer, Qwen2Tokenizer

    folder = golden_case(name).checkpoint
    kind = CodeGenTokenizer if name == PHI else Qwen2Tokenizer
    slow = kind.from_pretrained(folder)
    ours = ids(load(folder), text)
    assert ours == slow(text, add_special_tokens=False, split_special_tokens=False).input_ids
    assert load(folder).decode(ours, skip_special_tokens=False) == text


@pytest.fixture(scope="module")
def gemma_like(tmp_path_factory):
    """A model without a dummy space that knows runs of spaces and line ends, as Gemma's does."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("gemma")
    words = ["the cat sat on the mat", "a chat about the cat and  the hat", "that is   all"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 5),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["\n\n", SPACE * 2, SPACE * 3, "<mark>"],
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer"}')
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return folder, load(folder), model


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                "the",
                "cat",
                " ",
                "  ",
                "   ",
                "    ",
                "\n",
                "\n\n",
                "\n\n\n",
                "a",
                "t",
                "é",
                "<mark>",
            ]
        ),
        max_size=8,
    )
)
def test_user_defined_pieces_are_found_where_sentencepiece_finds_them(gemma_like, parts):
    _, tokenizer, model = gemma_like
    text = "".join(parts)
    assert ids(tokenizer, text) == model.encode(text)


def test_gemma_starts_with_its_own_token_and_adds_no_space(gemma_like):
    facts = read_tokenizer_facts(gemma_like[0])
    assert (facts.bos_token_id, facts.eos_token_id, facts.adds_space) == (2, 1, False)


def test_a_space_before_the_first_piece_only_is_left_to_the_prompt(own):
    folder = own("hf-llava-tinyllama-clip")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = None
    content["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "first",
        "split": False,
    }
    path.write_text(json.dumps(content))
    original = Tokenizer.from_file(str(path))
    expected = original.encode("USER: <image>\nWhat is it?\nASSISTANT:").ids
    facts, tokenizer = read_tokenizer_facts(folder), load(folder)
    assert facts.spaces_first
    assert not facts.adds_space
    for whole_text, after in ((True, expected), (False, None)):
        prompt = prompt_semantics(LLAVA, facts, end_tokens=(2,), notes={}, whole_text=whole_text)
        before = [1, *ids(tokenizer, prompt.before_image), 720]
        rest = ids(tokenizer, prompt.after_image + "What is it?" + prompt.tail)
        separate = original.encode("\nWhat is it?\nASSISTANT:", add_special_tokens=False).ids
        assert before + rest == (after or [*before, *separate])


def test_special_tokens_in_a_text_are_text(golden_case):
    tokenizer = load(golden_case(QWEN2).checkpoint)
    assert 640 not in ids(tokenizer, "<|endoftext|>")
    tokenizer.encode_special_tokens = False
    assert ids(tokenizer, "<|endoftext|>") == [640]


def test_tokenizer_json_is_taken_as_it_is(golden_case):
    folder = golden_case("hf-llava-tinyllama-clip").checkpoint
    assert read_tokenizer_json(folder) == (folder / "tokenizer.json").read_bytes()
    assert sentencepiece_file(folder) == folder / "tokenizer.model"
    assert sentencepiece_file(golden_case(PHI).checkpoint) is None


@pytest.mark.parametrize(
    ("name", "bos", "eos", "adds_space", "form"),
    [
        (LLAMA, 1, 2, True, "as_is"),
        (PHI, None, 620, False, "as_is"),
        (QWEN2, None, 640, False, "NFC"),
        ("hf-llava-tinyllama-clip", 1, 2, True, "as_is"),
    ],
)
def test_facts_are_those_of_the_official_run(golden_case, name, bos, eos, adds_space, form):
    case = golden_case(name)
    facts = read_tokenizer_facts(case.checkpoint)
    assert (facts.bos_token_id, facts.eos_token_id) == (bos, eos)
    assert (facts.adds_space, facts.unicode_form) == (adds_space, form)
    assert facts.length == case.facts["tokenizer_len"]


def test_facts_fall_back_on_the_class_when_the_settings_are_silent(own):
    folder = own(LLAMA)
    (folder / "special_tokens_map.json").unlink()
    settings = {"tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    facts = read_tokenizer_facts(folder)
    assert (facts.bos_token_id, facts.eos_token_id) == (1, 2)


def write_ranks(folder, longer):
    tokens = [bytes([byte]) for byte in range(256)] + longer
    lines = (
        base64.b64encode(token) + b" " + str(rank).encode() for rank, token in enumerate(tokens)
    )
    (folder / "arcade100k.tiktoken").write_bytes(b"\n".join(lines))


def test_tiktoken_ranks_become_the_same_bpe(tmp_path):
    write_ranks(tmp_path, [b"ab", b"bc", b"abc", b" a", b"\xc3\xa9", b"cab"])
    tokenizer = load(tmp_path)
    tokens = {"abc": [258], "abcab": [258, 256], "cab": [261], "é": [260], " ax": [259, 120]}
    for text, expected in tokens.items():
        assert ids(tokenizer, text) == expected, text
        assert tokenizer.decode(expected) == text
    assert tokenizer.token_to_id("<|endoftext|>") == 263
    assert tokenizer.token_to_id(SPECIALS[-1]) == 262 + len(SPECIALS)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Arcade100kTokenizer"}')
    facts = read_tokenizer_facts(tmp_path)
    assert (facts.bos_token_id, facts.eos_token_id) == (None, 263)


def test_tiktoken_ranks_that_are_damaged_are_refused(tmp_path):
    write_ranks(tmp_path, [b"ab"])
    path = tmp_path / "arcade100k.tiktoken"
    whole = path.read_bytes()
    for damaged, words in (
        (whole + b"\n!!! 257", "line 258 is no token and rank"),
        (whole.split(b"\n", 3)[3], "253 of 256 bytes have a rank"),
        (whole + b"\nYWJj 300", "copy it again"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=words):
            read_tokenizer_json(tmp_path)


def test_byte_symbols_are_256_different_letters():
    assert len(set(byte_symbols())) == 256
    assert byte_symbols()[ord("A")] == "A"
    assert byte_symbols()[ord(" ")] == "Ġ"


def test_added_tokens_that_do_not_follow_the_vocabulary_are_refused(own):
    folder = own(PHI)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CodeGenTokenizer"}')
    (folder / "added_tokens.json").write_text('{"<far>": 700}')
    with pytest.raises(CheckpointError, match="'<far>' has id 700"):
        read_tokenizer_json(folder)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("merges.txt", "#version: 0.2\na b c\n", "line 2"),
        ("vocab.json", '{"a": 1}', "its ids are not 0 to 0"),
        ("vocab.json", "[]", "not a JSON object"),
        ("added_tokens.json", '{"a": "x"}', "is no number"),
    ],
)
def test_damaged_byte_level_files_are_named(own, file, content, words):
    folder = own(PHI)
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=words):
        read_tokenizer_json(folder)


def test_a_damaged_sentencepiece_model_is_named(own):
    folder = own(LLAMA)
    path = folder / "tokenizer.model"
    content = path.read_bytes()
    place = content.index("▁the".encode())
    for damaged in (b"\xff" * 50, content[:place] + b"\x84" + content[place + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"tokenizer\.model: damaged"):
            read_tokenizer_json(folder)
