import pytest

from tinyllava_edge.prompt import in_unicode_form
from tinyllava_edge.semantics import PromptSemantics

DECOMPOSED, COMPOSED = "Za\u0308hler", "Z\u00e4hler"


def prompt(**changes):
    return PromptSemantics(
        before_image="USER: ", after_image="\n", tail=" A:", eos_token_ids=(1,), **changes
    )


@pytest.mark.parametrize(
    ("form", "expected"), [("as_is", DECOMPOSED), ("NFC", COMPOSED)], ids=["as_is", "NFC"]
)
def test_text_is_brought_into_the_form_of_the_tokenizer(form, expected):
    assert in_unicode_form(DECOMPOSED, prompt(unicode_form=form)) == expected


def test_text_is_left_alone_where_semantics_say_nothing():
    assert in_unicode_form(DECOMPOSED, prompt()) == DECOMPOSED


def test_a_lone_surrogate_passes():
    assert in_unicode_form("\ud800", prompt(unicode_form="NFC")) == "\ud800"
