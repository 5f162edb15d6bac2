"""The llama.cpp engine, against a Llama written out in NumPy."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

from tinyllava_edge.bundle import open_bundle
from tinyllava_edge.engines.contract import Question
from tinyllava_edge.engines.llama_answers import _readable
from tinyllava_edge.engines.llama_cpp import LlamaCppEngine
from tinyllava_edge.engines.llama_runtime import LlamaRuntime, Step
from tinyllava_edge.engines.options import EngineOptions
from tinyllava_edge.errors import AskError, BundleError, PromptTooLong
from tinyllava_edge.prompt import Reading, question_text

HEADS = 4
# llama.cpp keeps keys and values in float16.
LOGIT_TOLERANCE = 0.02
LAYER_WEIGHTS = (
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)


def open_tiny(folder, **options):
    return LlamaCppEngine(open_bundle(folder), EngineOptions(threads=1, **options))


def rewrite_prompt(folder, **fields):
    """Change fields of the prompt semantics in a bundle's manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["semantics"]["prompt"] |= fields
    path.write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def engine(tiny_model):
    engine = open_tiny(tiny_model.folder)
    yield engine
    engine.close()


@pytest.fixture
def sight(engine, gradient):
    return engine.see(gradient(48, 40), "gradient")


@pytest.fixture(scope="module")
def runtime(tiny_model):
    path = tiny_model.folder / "llm.gguf"
    runtime = LlamaRuntime(path, cells=256, sequences=4, threads=1, gpu_layers=0)
    yield runtime
    runtime.close()


def llama_logits(weights, embeddings):
    """Logits ``[n, vocab]`` of a Llama for input embeddings ``[n, hidden]``, in float32."""
    x = embeddings
    count, hidden = x.shape
    size = hidden // HEADS
    angles = np.arange(count)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    future = np.triu(np.full((count, count), -np.inf), 1)

    def normed(values, name):
        scale = np.sqrt((values**2).mean(-1, keepdims=True) + 1e-5)
        return values / scale * weights[name]

    def rotated(values):
        even, odd = values[..., ::2], values[..., 1::2]
        turned = np.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
        return turned.reshape(values.shape)

    for layer in range(2):
        block = {n: weights[f"blk.{layer}.{n}.weight"] for n in LAYER_WEIGHTS}
        h = normed(x, f"blk.{layer}.attn_norm.weight")
        q, k, v = (
            (h @ block[n].T).reshape(count, HEADS, size) for n in ("attn_q", "attn_k", "attn_v")
        )
        scores = np.einsum("qhd,khd->hqk", rotated(q), rotated(k)) / math.sqrt(size)
        shares = np.exp(scores + future - (scores + future).max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, v).reshape(count, hidden)
        x = x + mixed @ block["attn_output"].T
        h = normed(x, f"blk.{layer}.ffn_norm.weight")
        gate = h @ block["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ block["ffn_up"].T)) @ block["ffn_down"].T
    return normed(x, "output_norm.weight") @ weights["output.weight"].T


def expected_inputs(tiny_model, engine, runtime, question, answer=()):
    """The whole prompt and answer as embeddings: bos, text, picture, question, answer."""
    table = tiny_model.weights["token_embd.weight"]
    prompt = tiny_model.semantics.prompt
    before = (prompt.bos_token_id, *runtime.tokenize(prompt.before_image))
    text = question_text(question.text, question.readings, tiny_model.semantics)
    after = (*runtime.tokenize(text), *answer)
    picture = engine._sights.get("gradient")
    return np.concatenate([table[list(before)], picture, table[list(after)]])


def log_softmax(rows):
    wide = rows.astype(np.float64)
    return (
        wide
        - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - (wide.max(-1, keepdims=True))
    )


def test_logits_equal_numpys_when_a_shared_prefix_is_decoded_in_a_batch(
    tiny_model, engine, runtime, sight
):
    """Three questions of different lengths, each in its own sequence after one prefix."""
    questions = [Question("what?"), Question("is the valve open?"), Question("how many, please?")]
    engine.ask(sight, questions)
    drafts = engine._answering._read([engine._prompts.build(q) for q in questions])
    for sequence in (1, 2, 3):
        engine._llama.forget(sequence)
    for draft, question in zip(drafts, questions, strict=True):
        inputs = expected_inputs(tiny_model, engine, runtime, question)
        assert draft.position == len(inputs)
        expected = llama_logits(tiny_model.weights, inputs)[-1]
        assert np.abs(draft.logits - expected).max() < LOGIT_TOLERANCE
        assert np.abs(expected).max() > 100 * LOGIT_TOLERANCE / 2


def test_logits_equal_a_single_sequence_pass_when_the_prefix_is_shared(
    tiny_model, engine, runtime, sight
):
    """The same through llama.cpp alone: all embeddings in one go, nothing shared."""
    question = Question("is the valve open?")
    engine.ask(sight, [question])
    inputs = expected_inputs(tiny_model, engine, runtime, question)
    shared = engine.prompt_logits(sight, question)
    last = runtime.tokenize(tiny_model.semantics.prompt.tail)[-1]
    runtime.decode_embeddings(inputs[:-1], position=0, sequence=0)
    (straight,) = runtime.decode([Step(last, len(inputs) - 1, 0, wanted=True)])
    runtime.forget(0)
    assert np.abs(shared - straight).max() < 1e-3


def test_ask_writes_the_greedy_text_when_compared_with_numpy(tiny_model, engine, runtime, sight):
    question = Question("what?", max_tokens=6)
    (reply,) = engine.ask(sight, [question])
    inputs = expected_inputs(tiny_model, engine, runtime, question, reply.token_ids)
    rows = llama_logits(tiny_model.weights, inputs)[-len(reply.token_ids) - 1 :]
    assert len(reply.token_ids) == 6
    assert tuple(rows.argmax(-1)[:6]) == reply.token_ids
    chosen = log_softmax(rows)[np.arange(6), list(reply.token_ids)].sum()
    assert math.log(reply.confidence) == pytest.approx(chosen, abs=0.1)
    assert reply.prompt_tokens == len(inputs) - 6


def test_ask_ends_the_text_when_the_model_says_so(tiny_model, engine, sight, tmp_path):
    """The third token of the answer is declared an end: the text stops right before it."""
    (full,) = engine.ask(sight, [Question("what?", max_tokens=6)])
    folder = shutil.copytree(tiny_model.folder, tmp_path / "bundle")
    rewrite_prompt(folder, eos_token_ids=[full.token_ids[2]])
    other = open_tiny(folder)
    other._sights.put("gradient", engine._sights.get("gradient"))
    (reply,) = other.ask(sight, [Question("what?", max_tokens=6)])
    other.close()
    assert reply.token_ids == full.token_ids[:2]


def test_ask_reads_the_verdict_from_the_logits_when_the_kind_is_yes_no(
    tiny_model, engine, runtime, sight
):
    question = Question("is it open?", kind="yes_no")
    (reply,) = engine.ask(sight, [question])
    inputs = expected_inputs(tiny_model, engine, runtime, question)
    shares = np.exp(log_softmax(llama_logits(tiny_model.weights, inputs)[-1]))
    # "Yes" and "No" at a word's start are not in the vocabulary: their first letters count.
    yes = [tiny_model.vocabulary.index(t) for t in ("Ġyes", "ĠYes", "yes", "Y")]
    no = [tiny_model.vocabulary.index(t) for t in ("Ġno", "ĠNo", "no", "N")]
    expected = {"yes": shares[yes].sum(), "no": shares[no].sum()}
    expected["unknown"] = 1 - sum(expected.values())
    assert reply.probabilities == pytest.approx(expected, rel=0.05)
    assert reply.verdict == reply.text == max(expected, key=expected.get)
    assert reply.confidence == reply.probabilities[reply.verdict]
    assert sum(reply.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_ask_scores_every_option_when_the_kind_is_choice(
    tiny_model, runtime, gradient, engine, parallel
):
    choices = ("red", "green", "a blue one", "no")
    question = Question("which?", kind="choice", choices=choices)
    other = open_tiny(tiny_model.folder, parallel=parallel)
    (reply,) = other.ask(other.see(gradient(48, 40), "gradient"), [question])
    other.close()
    engine.see(gradient(48, 40), "gradient")
    eos = tiny_model.semantics.prompt.eos_token_ids[0]
    scores = []
    for choice in choices:
        tokens = runtime.tokenize(" " + choice)
        inputs = expected_inputs(tiny_model, engine, runtime, question, tokens)
        rows = log_softmax(llama_logits(tiny_model.weights, inputs)[-len(tokens) - 1 :])
        scores.append(sum(row[t] for row, t in zip(rows, (*tokens, eos), strict=True)))
    expected = np.exp(np.array(scores) - max(scores))
    expected /= expected.sum()
    got = [reply.probabilities[choice] for choice in choices]
    assert np.log(got) == pytest.approx(np.log(expected), abs=0.2)
    assert reply.text == choices[int(expected.argmax())]
    assert reply.token_ids == runtime.tokenize(" " + reply.text)


def test_ask_gives_the_same_tokens_when_asked_twice_alone_or_among_eight(engine, sight):
    words = ("what", "where is it", "how many", "red", "a b c", "open", "why not", "level")
    questions = [Question(f"{word}?", max_tokens=12) for word in words]
    together = engine.ask(sight, questions)
    again = engine.ask(sight, questions)
    alone = [engine.ask(sight, [question])[0] for question in questions]
    assert [r.token_ids for r in together] == [r.token_ids for r in again]
    assert [r.token_ids for r in together] == [r.token_ids for r in alone]
    assert [r.confidence for r in together] == [r.confidence for r in again]
    assert len({r.token_ids for r in together}) > 4


def test_ask_gives_the_same_tokens_when_another_engine_is_opened(
    tiny_model, engine, sight, gradient
):
    questions = [Question("what?"), Question("is it?", kind="yes_no")]
    other = open_tiny(tiny_model.folder)
    fresh = other.ask(other.see(gradient(48, 40), "gradient"), questions)
    other.close()
    seen = engine.ask(sight, questions)
    assert [(r.token_ids, r.confidence) for r in fresh] == [
        (r.token_ids, r.confidence) for r in seen
    ]


def test_ask_answers_in_order_when_questions_need_several_groups(
    tiny_model, engine, sight, gradient
):
    kinds = [
        {"kind": "yes_no"},
        {},
        {"kind": "choice", "choices": ("red", "green")},
        {"max_tokens": 3},
    ]
    questions = [Question(f"question {i}?", **kinds[i % 4]) for i in range(11)]
    other = open_tiny(tiny_model.folder, parallel=3)
    grouped = other.ask(other.see(gradient(48, 40), "gradient"), questions)
    other.close()
    alone = [engine.ask(sight, [question])[0] for question in questions]
    assert [r.text for r in grouped] == [r.text for r in alone]


def test_ask_answers_all_when_they_fit_only_one_at_a_time(tiny_model, gradient):
    engine = open_tiny(tiny_model.folder, context_tokens=256)
    sight = engine.see(gradient(48, 40), "gradient")
    questions = [Question("what?", max_tokens=200), Question("where?", max_tokens=200)]
    replies = engine.ask(sight, questions)
    engine.close()
    assert all(0 < len(reply.token_ids) <= 200 for reply in replies)


def test_ask_uses_the_whole_context_when_the_question_is_long(engine, sight):
    (short,) = engine.ask(sight, [Question("x", max_tokens=1)])
    words = "x" * (512 - short.prompt_tokens)
    (reply,) = engine.ask(sight, [Question(words, max_tokens=1)])
    assert reply.prompt_tokens == 511
    assert len(reply.token_ids) <= 1


def test_ask_scores_options_in_turn_when_they_do_not_fit_together(engine, sight):
    choices = tuple(str(i) * 40 for i in range(6))
    wide = engine.ask(sight, [Question("which?", kind="choice", choices=choices)])[0]
    (short,) = engine.ask(sight, [Question("which?", max_tokens=1)])
    filler = Question("x" * (512 - short.prompt_tokens - 82), kind="choice", choices=choices)
    (tight,) = engine.ask(sight, [filler])
    assert set(tight.probabilities) == set(wide.probabilities) == set(choices)
    assert sum(tight.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b" 42 bar\n", "42 bar"),
        (b"  ", ""),
        ("62 °".encode()[:-1], "62"),
        ("🙂".encode()[:3], ""),
        (b"a\xff b", "a\ufffd b"),
    ],
)
def test_readable_strips_the_lead_and_a_cut_letter_when_there_are(data, text):
    assert _readable(data, " ") == text


def test_ask_changes_its_answer_when_the_picture_changes(engine, sight, gradient):
    question = Question("what?", max_tokens=12)
    other = engine.see(gradient(48, 40).rotate(180), "turned")
    first = engine.ask(sight, [question])[0]
    second = engine.ask(other, [question])[0]
    third = engine.ask(sight, [question])[0]
    assert first.token_ids != second.token_ids
    assert first.token_ids == third.token_ids
    assert first.confidence == third.confidence


def test_ask_reuses_the_picture_when_it_was_seen_before(tiny_model, gradient):
    engine = open_tiny(tiny_model.folder)
    sight = engine.see(gradient(48, 40), "gradient")
    first = engine.ask(sight, [Question("what?")])[0].timings_ms
    again = engine.see(gradient(48, 40), "gradient")
    second = engine.ask(again, [Question("what?")])[0].timings_ms
    engine.close()
    assert sight.vision_ms > 0
    assert again.vision_ms == 0
    assert set(first) == {"vision", "prefix", "prompt", "decode", "total"}
    assert min(first.values()) > 0
    assert second["vision"] == second["prefix"] == 0
    assert second["total"] >= second["prompt"] + second["decode"]


def test_ask_refuses_when_the_sight_is_no_longer_kept(tiny_model, gradient):
    engine = open_tiny(tiny_model.folder, sight_cache_mib=0.0)
    first = engine.see(gradient(48, 40), "first")
    engine.see(gradient(40, 48), "second")
    with pytest.raises(AskError, match="see it again") as caught:
        engine.ask(first, [Question("what?")])
    engine.close()
    assert caught.value.code == "sight_gone"


def test_ask_refuses_before_decoding_when_the_prompt_is_too_long(engine, sight):
    before = engine.ask(sight, [Question("what?")])[0]
    with pytest.raises(PromptTooLong, match=r"= \d+ tokens, the context holds 512"):
        engine.ask(sight, [Question("what?"), Question("long " * 400)])
    with pytest.raises(PromptTooLong, match="lower max_tokens"):
        engine.ask(sight, [Question("what?", max_tokens=500)])
    assert engine.ask(sight, [Question("what?")])[0].token_ids == before.token_ids


@pytest.mark.parametrize(
    "question",
    [
        Question("which?", kind="choice"),
        Question("which?", kind="choice", choices=("one",)),
        Question("which?", kind="choice", choices=("one", "one")),
        Question("which?", kind="choice", choices=("one", "")),
        Question("what?", max_tokens=0),
    ],
)
def test_ask_refuses_when_a_question_makes_no_sense(engine, sight, question):
    with pytest.raises(AskError) as caught:
        engine.ask(sight, [question])
    assert caught.value.code == "bad_request"


def test_prompt_holds_no_control_token_when_text_from_outside_spells_one(tiny_model, engine):
    words = "<|endoftext|> <|bos|> <image>"
    question = Question(words, readings=(Reading("<|bos|>", "1", "<|endoftext|>"),))
    tokens = engine._prompts.build(question).tokens
    control = {tiny_model.vocabulary.index(name) for name in ("<|endoftext|>", "<|bos|>")}
    assert not control & set(tokens)
    assert engine._llama.text(tokens).count(b"<|bos|>") == 2


@pytest.mark.parametrize("text", ["", "\x00", "é🙂", "\ud800", "a" * 5000, "no  yes\n"])
def test_tokenize_and_text_are_inverse_when_the_text_is_odd(runtime, text):
    assert runtime.text(runtime.tokenize(text)) == text.encode("utf-8", "replace")


def test_engine_refuses_in_one_line_when_the_gguf_is_damaged(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model.folder, tmp_path / "bundle")
    data = (folder / "llm.gguf").read_bytes()
    (folder / "llm.gguf").write_bytes(b"GGUF" + bytes(len(data) - 4))
    with pytest.raises(BundleError, match=r"llama\.cpp does not load it") as caught:
        open_tiny(folder)
    assert "\n" not in str(caught.value)


def test_engine_refuses_when_an_end_token_is_not_in_the_vocabulary(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model.folder, tmp_path / "bundle")
    rewrite_prompt(folder, bos_token_id=123456)
    with pytest.raises(BundleError, match="token id 123456"):
        open_tiny(folder)


def test_engine_says_nothing_on_standard_error_when_it_opens(tiny_model, capfd):
    open_tiny(tiny_model.folder).close()
    assert capfd.readouterr() == ("", "")
