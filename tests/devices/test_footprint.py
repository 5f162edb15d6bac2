import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_devices import Footprint, kv_kib_per_token, vision_activation_mib


def test_kv_kib_per_token_matches_tinyllama_when_given_its_shape():
    # 22 layers, 4 KV heads of 64: 2 * 22 * 4 * 64 float16 numbers are 22,528 bytes.
    assert kv_kib_per_token(layers=22, kv_heads=4, head_dim=64) == 22.0


def test_kv_kib_per_token_shrinks_when_the_cache_is_quantized():
    half = kv_kib_per_token(layers=32, kv_heads=32, head_dim=80)
    q8_0 = kv_kib_per_token(layers=32, kv_heads=32, head_dim=80, bytes_per_element=34 / 32)
    assert q8_0 == pytest.approx(half * 17 / 32)


def test_kv_mib_is_the_whole_cache_when_given_a_context():
    assert Footprint(0, 22.0, 0).kv_mib(2048) == 44.0


def test_vision_activation_takes_attention_when_its_scores_are_the_larger():
    # CLIP-L/14-336: 577 tokens of 1024, 16 heads, MLP 4096. Attention 3TH + 2hT^2 wins.
    numbers = 577 * 1024 + 3 * 577 * 1024 + 2 * 16 * 577 * 577
    mib = vision_activation_mib(tokens=577, hidden=1024, intermediate=4096, heads=16)
    assert mib == pytest.approx(numbers * 4 / 2**20)


def test_vision_activation_takes_the_mlp_when_it_is_the_larger():
    mib = vision_activation_mib(
        tokens=16, hidden=64, intermediate=512, heads=1, bytes_per_element=2
    )
    assert mib == pytest.approx((16 * 64 + 2 * 16 * 512) * 2 / 2**20)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("position", range(3))
def test_footprint_refuses_a_number_when_negative_or_not_finite(bad, position):
    numbers = [1.0, 1.0, 1.0]
    numbers[position] = bad
    with pytest.raises(ValueError, match="finite number of at least 0"):
        Footprint(*numbers)


@given(st.integers(1, 128), st.integers(1, 128), st.integers(1, 256))
def test_kv_kib_per_token_doubles_when_layers_double(layers, heads, dim):
    once = kv_kib_per_token(layers=layers, kv_heads=heads, head_dim=dim)
    assert kv_kib_per_token(layers=2 * layers, kv_heads=heads, head_dim=dim) == 2 * once
