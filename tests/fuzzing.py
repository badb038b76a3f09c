"""Bytes and values from elsewhere, made by hypothesis: a reader takes them or says what is wrong.

Each test makes a few cases; `FUZZ_CASES=5000 pytest -n0 -k foreign` makes so many of each.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import hypothesis
from hypothesis import strategies as st

VARIABLE = "FUZZ_CASES"


def cases(few: int) -> hypothesis.settings:
    """Returns the settings of a test: `few` cases, or as many as the environment variable says."""
    return hypothesis.settings(
        max_examples=int(os.environ.get(VARIABLE, few)),
        deadline=None,
        database=None,
        derandomize=VARIABLE not in os.environ,
        # Without looking for the shortest case that fails, which takes minutes.
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("a" * 5000)
)
# Values of JSON, nested, with keys of any text.
VALUES = st.recursive(
    _SCALARS,
    lambda below: st.one_of(
        st.lists(below, max_size=4), st.dictionaries(st.text(max_size=8), below, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def changed_values(draw: st.DrawFn, original: Any) -> Any:
    """Draws a copy of a nested value in which one to three values are replaced, or taken away."""
    tree = {"": copy.deepcopy(original)}
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = tree
        key: Any = ""
        while isinstance(parent[key], dict | list) and parent[key] and draw(st.integers(0, 4)):
            parent = parent[key]
            keys = sorted(parent, key=str) if isinstance(parent, dict) else range(len(parent))
            key = draw(st.sampled_from(keys))
        if parent is not tree and draw(st.booleans()):
            del parent[key]
        else:
            parent[key] = draw(VALUES)
    return tree[""]


@st.composite
def changed_bytes(draw: st.DrawFn, original: bytes) -> bytes:
    """Draws a copy of a file that is cut, or in which one to three parts are replaced or repeated."""
    content = original
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 4, 100, 10**6])))
        again = content[start:end] * draw(st.sampled_from([1, 2, 30])) if end - start < 1000 else b""
        content = content[:start] + draw(st.one_of(st.binary(max_size=20), st.just(again))) + content[end:]
    return content
