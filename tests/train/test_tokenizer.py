from hypothesis import given
from hypothesis import strategies as st

from tinyllava_train.tokenizer import SPECIALS


def test_special_tokens_have_the_ids_that_semantics_expect(dataset):
    tokenizer = dataset.encoder.tokenizer
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIALS] == [0, 1, 2, 3, 4]
    assert dataset.semantics.prompt.bos_token_id == tokenizer.bos_token_id
    assert dataset.semantics.prompt.eos_token_ids == (tokenizer.eos_token_id,)


def test_digits_stand_alone_when_numbers_are_written(dataset):
    tokenizer = dataset.encoder.tokenizer
    pieces = tokenizer.tokenize("limit 1234")
    assert pieces[-4:] == ["1", "2", "3", "4"]


@given(st.text(max_size=80))
def test_any_text_is_read_back_exactly_when_encoded(dataset, text):
    tokenizer = dataset.encoder.tokenizer
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert tokenizer.decode(ids) == text
