import torch

from tinyllava_train.batches import IGNORED, pack
from tinyllava_train.choice import weighted
from tinyllava_train.conversations import EncodedTurn
from tinyllava_train.objectives import next_token_loss

PACKING = {"prefix": [1, 9], "image_token": 4, "image_tokens": 3, "pad_token": 3}


def test_labels_are_the_answers_only_when_packed():
    turns = [EncodedTurn([10, 11], [20, 2]), EncodedTurn([12], [21, 22, 2])]
    batch = pack([turns], pixels=torch.zeros(1, 3, 4, 4), **PACKING)
    ids, labels = batch.input_ids[0].tolist(), batch.labels[0].tolist()
    assert ids[:11] == [1, 9, 4, 4, 4, 10, 11, 20, 12, 21, 22]
    assert labels[:11] == [IGNORED] * 6 + [20, 2, 21, 22, 2]
    assert batch.positions[0, :11].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7]


def test_turns_see_the_prefix_but_not_each_other_when_packed():
    turns = [EncodedTurn([10], [20, 2]), EncodedTurn([12], [21, 2])]
    batch = pack([turns], pixels=torch.zeros(1, 3, 4, 4), **PACKING)
    allowed = batch.mask[0, 0] == 0
    second = 7  # the second turn's first token
    assert allowed[second, :5].all()
    assert not allowed[second, 5:7].any()
    assert allowed[second, second]
    assert not allowed[second, second + 1 :].any()


def test_packed_loss_equals_the_mean_over_questions_asked_alone(dataset, tiny_model):
    choose = weighted(3)
    model = tiny_model.eval()
    packed = dataset.batch([0], choose, seed=5, shifted=False)
    loss, right = next_token_loss(model, packed)
    alone, counts = [], []
    for number in range(3):

        def only(sample, rng, number=number):
            return [choose(sample, rng)[number]]

        batch = dataset.batch([0], only, seed=5, shifted=False)
        one, _ = next_token_loss(model, batch)
        count = int((batch.labels != IGNORED).sum())
        alone.append(float(one.detach()) * count)
        counts.append(count)
    assert abs(float(loss.detach()) - sum(alone) / sum(counts)) < 1e-5
    assert len(right) == sum(counts)


def test_text_only_batch_has_no_image_tokens_when_pictures_are_left_out(dataset):
    batch = dataset.batch([0, 1], weighted(2), seed=1, with_pictures=False)
    assert batch.pixels is None
    assert not (batch.input_ids == 4).any()
