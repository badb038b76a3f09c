"""Presets and `--set` with any text: settings, or an error that says what is wrong."""

from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from settings import loading
from settings.base import ConfigError, list_keys
from settings.pipeline import PipelineConfig
from tests.fuzzing import cases, changed_bytes

PRESETS = sorted(loading.PRESETS.glob("*.yaml"))
KEYS = [key for key, _, _ in list_keys(PipelineConfig)]
# What YAML has besides plain values.
SPECIAL = (
    *("", "null", "~", ".nan", ".inf", "-.inf", "1e999", "0x1F", "0o17", "1_000", "yes", "'", '"', "|", ">"),
    *("2020-01-01", "2020-01-01T00:00:00Z", "!!binary aGk=", "!!python/object/apply:os.getcwd []", "!x y"),
    *("&a [*a]", "&a {b: *a}", "*a", "<<: {a: 1}", "{<<: 3}", "{[1]: 2}", "{{a: 1}: 2}", "? [a]", "- a"),
    *("[" * 3000, "{a: " * 1000, "!!set {a, b}", "!!omap [a: 1]", "!!timestamp x", "!!int x", "a: b: c"),
    *("%YAML 9.9\n---\n1", "---\n1\n---\n2", "\t", "\x00", "\ufeff1", "\u2028", "#", "#fff", "@", "`", "%"),
    *("9" * 5000, "1e5000", "!!float 1e9999", "1:30:00", "=", "[1, 2", "}", "- [", "\\ud800"),
)
TEXTS = st.one_of(st.sampled_from(SPECIAL), st.text(max_size=30))


@st.composite
def overrides(draw: st.DrawFn) -> str:
    key = draw(st.one_of(st.sampled_from(KEYS), st.sampled_from([k.rpartition(".")[0] for k in KEYS]), TEXTS))
    return f"{key}{draw(st.sampled_from(['=', '=', '=', '.x=', '==', '']))}{draw(TEXTS)}"


def _load(*arguments, **options):
    """Loads settings; nothing but a ConfigError may come of it, which has a message for people."""
    try:
        assert isinstance(loading.load(*arguments, **options), PipelineConfig)
    except ConfigError as error:
        assert str(error).strip()


@cases(few=60)
@hypothesis.given(texts=st.lists(overrides(), min_size=1, max_size=2))
def test_any_foreign_override_is_taken_or_explained(texts):
    _load(overrides=texts, on_base=True)


@pytest.fixture
def preset(tmp_path):
    return tmp_path / "preset.yaml"


@cases(few=60)
@hypothesis.given(data=st.data())
def test_any_foreign_preset_is_taken_or_explained(preset, data):
    original = data.draw(st.sampled_from(PRESETS)).read_bytes()
    key, text = data.draw(st.sampled_from(KEYS)), data.draw(TEXTS).encode(errors="replace")
    nested = b"".join(b" " * n + part.encode() + b":\n" for n, part in enumerate(key.split(".")))
    content = data.draw(st.one_of(changed_bytes(original), st.just(text), st.just(nested[:-1] + b" " + text)))
    Path(preset).write_bytes(content)
    _load([preset], on_base=True)
