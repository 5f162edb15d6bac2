import numpy as np
import pytest
import torch

from tinyllava_edge.preprocess import pixels
from tinyllava_edge.prompt import Reading, question_text
from tinyllava_edge.semantics import ImageSemantics
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.source import Source, source_pixels

READINGS = (Reading("temperature", "62", "°C", age_s=3),)


@pytest.fixture(scope="module")
def models(write_checkpoint, tmp_path_factory):
    """The transformers model as a whole and the source runner on the same checkpoint."""
    folder = tmp_path_factory.mktemp("source")
    return write_checkpoint(folder), Source(open_checkpoint(folder))


@torch.no_grad()
def whole_model_logits(model, source, picture, question):
    """``LlavaForConditionalGeneration`` with image tokens in its ids, as it is trained."""
    semantics = source.semantics
    before = [0, *source.token_ids(semantics.prompt.before_image)]
    after = source.token_ids(question_text(question, READINGS, semantics))
    ids = torch.tensor([before + [2] * semantics.connector.image_tokens + after])
    pixel_values = torch.from_numpy(source_pixels(picture, semantics.image))[None]
    return model(input_ids=ids, pixel_values=pixel_values).logits[0, -1].numpy()


def test_source_gives_the_logits_of_the_whole_model(models, draw_picture):
    model, source = models
    picture = draw_picture(1)
    embeds = source.see(source_pixels(picture, source.semantics.image))
    answer = source.answer(embeds, "Is it safe?", READINGS, max_tokens=4)
    expected = whole_model_logits(model, source, picture, "Is it safe?")
    assert np.abs(answer.logits - expected).max() < 1e-4
    other = whole_model_logits(model, source, draw_picture(2), "Is it safe?")
    assert np.abs(answer.logits - other).max() > 0.05


def test_source_answers_greedily_up_to_the_limit(models, draw_picture):
    _, source = models
    embeds = source.see(source_pixels(draw_picture(), source.semantics.image))
    answer = source.answer(embeds, "What is it?", max_tokens=5)
    assert answer.token_ids[0] == answer.logits.argmax()
    assert len(answer.token_ids) == 5 or 1 not in answer.token_ids
    assert source.answer(embeds, "What is it?", max_tokens=2).token_ids == answer.token_ids[:2]


def test_source_stops_at_the_end_token(models, draw_picture):
    _, source = models
    embeds = source.see(source_pixels(draw_picture(), source.semantics.image))
    first, second, *_ = source.answer(embeds, "What is it?", max_tokens=5).token_ids
    prompt = source.semantics.prompt.model_copy(update={"eos_token_ids": (second,)})
    stopping = Source.__new__(Source)
    stopping.__dict__.update(source.__dict__)
    stopping.semantics = source.semantics.model_copy(update={"prompt": prompt})
    expected = () if first == second else (first,)
    assert stopping.answer(embeds, "What is it?", max_tokens=5).token_ids == expected


@pytest.mark.parametrize("aspect", ["pad", "squash", "crop"])
@pytest.mark.parametrize("size", [(48, 36), (35, 97), (32, 32), (201, 50)])
@pytest.mark.parametrize("short_side", [None, 40])
def test_source_pixels_and_edge_pixels_agree(draw_picture, aspect, size, short_side):
    semantics = ImageSemantics(
        size=32,
        aspect=aspect,
        short_side=short_side,
        fill_rgb=(122, 116, 104),
        mean=(0.481, 0.457, 0.408),
        std=(0.268, 0.261, 0.275),
    )
    picture = draw_picture(3, *size)
    difference = np.abs(source_pixels(picture, semantics) - pixels(picture, semantics))
    assert difference.shape == (3, 32, 32)
    assert difference.max() < 2e-6
