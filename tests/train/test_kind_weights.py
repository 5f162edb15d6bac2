from collections import Counter
from random import Random

from tinyllava_train.feed import questions


def test_heavier_kinds_come_oftener_when_weighted(dataset):
    def share(weights):
        kinds = Counter(
            turn.kind
            for seed in range(60)
            for sample in dataset.samples
            for turn in questions(2, weights)(sample, Random(seed))
        )
        return kinds["sensor"] / sum(kinds.values())

    assert share({"sensor": 20.0}) > 1.2 * share({}) > 1.2 * share({"sensor": 0.01})
