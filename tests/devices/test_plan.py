import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_devices import DoesNotFit, Footprint, Memory, plan_memory

MODEL = Footprint(weights_mib=600.0, kv_kib_per_token=22.0, vision_activation_mib=60.0)


def test_plan_memory_splits_what_is_available_when_the_model_fits():
    plan = plan_memory(MODEL, Memory(2048, 1000.0), context_tokens=2048, reserved_mib=100)
    assert (plan.weights_mib, plan.vision_mib, plan.kv_mib) == (600.0, 60.0, 44.0)
    assert plan.free_mib == pytest.approx(196.0)
    assert plan.needed_mib + plan.free_mib == pytest.approx(1000.0)


def test_plan_memory_fits_when_nothing_is_left_over():
    assert (
        plan_memory(MODEL, Memory(900, 804.0), context_tokens=2048, reserved_mib=100).free_mib == 0
    )


def test_plan_memory_names_the_largest_context_when_the_context_is_too_long():
    with pytest.raises(DoesNotFit) as caught:
        plan_memory(MODEL, Memory(900, 782.0), context_tokens=4096, reserved_mib=100)
    error = caught.value
    assert error.shortfall_mib == pytest.approx(66.0)
    assert error.largest_context_tokens == 1024
    assert "66 MiB short" in str(error)
    assert "at most 1024 tokens" in str(error)
    assert "\n" not in str(error)


def test_plan_memory_says_that_no_context_fits_when_the_weights_do_not():
    with pytest.raises(DoesNotFit, match="no context fits") as caught:
        plan_memory(MODEL, Memory(512, 400.0), context_tokens=16)
    assert caught.value.largest_context_tokens == 0


def test_plan_memory_raises_does_not_fit_when_the_cache_costs_nothing():
    with pytest.raises(DoesNotFit, match="no context fits"):
        plan_memory(Footprint(600, 0, 0), Memory(512, 400.0), context_tokens=16)


def test_plan_memory_refuses_a_context_when_it_has_no_tokens():
    with pytest.raises(ValueError, match="context_tokens is 0"):
        plan_memory(MODEL, Memory(4096, 4096), context_tokens=0)


@given(
    weights=st.floats(0, 4000),
    kv=st.floats(0.01, 2000),
    available=st.floats(0, 16000),
    context=st.integers(1, 1_000_000),
)
def test_largest_context_is_the_border_when_the_model_does_not_fit(weights, kv, available, context):
    model, memory = Footprint(weights, kv, 10.0), Memory(16000, available)
    try:
        plan = plan_memory(model, memory, context_tokens=context)
    except DoesNotFit as error:
        assert error.shortfall_mib > 0
        largest = error.largest_context_tokens
        assert largest < context
        # A border within one token: the last bit of a division is not worth a rule.
        if largest > 1:
            plan_memory(model, memory, context_tokens=largest - 1)
        with pytest.raises(DoesNotFit):
            plan_memory(model, memory, context_tokens=largest + 2)
    else:
        assert plan.free_mib >= 0
