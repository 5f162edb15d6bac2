import torch

from tinyllava_train.choice import weighted


def test_every_picture_is_used_once_when_an_epoch_passes(dataset):
    total = len(dataset.samples)
    epoch = [i for step in range(total // 4) for i in dataset.order(step, 4, seed=1)]
    assert sorted(epoch) == list(range(total))


def test_order_is_the_same_when_asked_again_and_differs_between_epochs(dataset):
    total = len(dataset.samples)
    first = dataset.order(0, total, seed=1)
    assert dataset.order(0, total, seed=1) == first
    assert dataset.order(1, total, seed=1) != first


def test_batch_is_the_same_when_made_again_from_its_seed(dataset):
    one, two = (dataset.batch([1, 2], weighted(3), seed=9) for _ in range(2))
    assert torch.equal(one.input_ids, two.input_ids)
    assert torch.equal(one.pixels, two.pixels)


def test_pixels_equal_edges_own_when_not_shifted(dataset):
    from PIL import Image

    from tinyllava_edge.preprocess import pixels

    with Image.open(dataset.samples[0].image) as opened:
        expected = torch.from_numpy(pixels(opened.convert("RGB"), dataset.semantics.image))
    assert torch.allclose(dataset.pixels([0], None)[0], expected, atol=1e-6)
