"""Which prompts are answered together."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.engines.contract import Question
from tinyllava_edge.engines.llama_prompts import Prompt, groups

sizes = st.lists(st.integers(1, 30), max_size=30)


@given(sizes, st.integers(30, 60), st.integers(1, 8))
def test_groups_keep_order_and_fit_when_sizes_are_any(sizes, free_cells, parallel):
    prompts = [Prompt(Question(str(i)), (0,) * size, 0) for i, size in enumerate(sizes)]
    cut = list(groups(prompts, free_cells=free_cells, parallel=parallel))
    assert [prompt for group in cut for prompt in group] == prompts
    for group in cut:
        assert 1 <= len(group) <= parallel
        assert sum(prompt.cells for prompt in group) <= free_cells
    for group, following in pairwise(cut):
        full = sum(p.cells for p in group) + following[0].cells > free_cells
        assert full or len(group) == parallel
