"""The bounded cache of image embeddings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.engines.sights import SightCache


def floats(count):
    return np.zeros(count, np.float32)


def test_cache_drops_the_least_recently_used_when_it_is_full():
    cache = SightCache(3 * 4 * 10)
    for key in "abc":
        cache.put(key, floats(10))
    assert cache.get("a") is not None
    cache.put("d", floats(10))
    assert "b" not in cache
    assert all(key in cache for key in "acd")


def test_cache_keeps_the_newest_when_it_alone_exceeds_the_limit():
    cache = SightCache(8)
    cache.put("a", floats(1))
    cache.put("b", floats(100))
    assert "a" not in cache
    assert cache.get("b") is not None


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 20)), min_size=1))
def test_cache_stays_within_its_limit_when_keys_repeat(puts):
    cache = SightCache(40 * 4)
    sizes = {}
    for key, count in puts:
        cache.put(key, floats(count))
        sizes[key] = count
        kept = [k for k in sizes if k in cache]
        assert key in kept
        assert sum(sizes[k] for k in kept) <= 40
        assert len(cache) == len(kept)
