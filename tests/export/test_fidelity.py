import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinyllava_export.errors import FidelityError
from tinyllava_export.fidelity import Fidelity, kl_divergence, require_fidelity, row_cosines

FIDELITY = Fidelity(
    pixels_max_abs_diff=0.0,
    vision_cosine_mean=0.99912345,
    vision_cosine_min=0.9,
    kl_mean=0.0123456,
    kl_p99=0.5,
    top1_agreement=1.0,
    greedy_agreement=2 / 3,
    pictures=2,
    questions=3,
    calibration="drawn",
)
LOGITS = arrays(np.float32, 7, elements=st.floats(-30, 30, width=32))


def test_kl_divergence_is_that_of_the_formula():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert kl_divergence(np.log(p), np.log(q) + 5) == pytest.approx(expected)


@given(LOGITS, LOGITS, st.floats(-50, 50))
def test_kl_divergence_is_not_negative_and_knows_no_offset(a, b, offset):
    assert kl_divergence(a, b) >= 0
    assert kl_divergence(a, a + np.float32(0)) == 0
    assert kl_divergence(a, b.astype(np.float64) + offset) == pytest.approx(
        kl_divergence(a, b), abs=1e-6
    )


def test_row_cosines_compare_row_by_row():
    a = np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    b = np.array([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert row_cosines(a, b) == pytest.approx([1.0, math.sqrt(0.5), -1.0, 0.0])


def test_require_fidelity_refuses_above_the_limit_only():
    require_fidelity(FIDELITY, None)
    require_fidelity(FIDELITY, 0.0123456)
    with pytest.raises(FidelityError, match=r"mean KL to the source is 0\.0123, --max-kl allows"):
        require_fidelity(FIDELITY, 0.0123)
    with pytest.raises(FidelityError):
        require_fidelity(replace(FIDELITY, kl_mean=math.nan), 1.0)


def test_by_stage_rounds_so_that_a_repeated_export_writes_the_same():
    stages = FIDELITY.by_stage()
    assert stages["llm"]["kl_mean"] == 0.0123
    assert stages["vision"]["cosine_mean"] == 0.99912
    assert stages["measured_on"] == {"calibration": "drawn", "pictures": 2.0, "questions": 3.0}
