import pytest

from settings import loading
from settings.base import ConfigError


def background(value):
    return loading.load(overrides=[f"model.background={value}"]).model.background


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("black", (0, 0, 0)),
        ("Tomato", (255, 99, 71)),
        ("'#0af'", (0, 170, 255)),
        ("'#102030'", (16, 32, 48)),
        ("#102030", (16, 32, 48)),
        ("[1, 2, 3]", (1, 2, 3)),
    ],
)
def test_a_background_is_a_name_a_hexadecimal_value_or_three_numbers(value, expected):
    assert background(value) == expected


@pytest.mark.parametrize("value", ["nosuch", "transparent", "'#10203040'", "#nosuch", "[1, 2]", "7"])
def test_other_backgrounds_are_refused_with_an_example(value):
    with pytest.raises(ConfigError, match=r"model\.background: expected a name such as white, .*'#ffffff'"):
        background(value)


def test_colors_end_at_255():
    with pytest.raises(ConfigError, match=r"model\.background: .*255; found 256"):
        background("[0, 256, 0]")


def test_the_default_background_is_white_and_survives_json():
    settings = loading.load().trainer_settings()
    assert settings.model.background == (255, 255, 255)
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings
