import numpy as np
import pytest

from components.evaluator import intervals
from components.model_report import search, search_figures, search_text
from tests.components import samples
from tests.components.model_report.test_figures import assert_all_is_inside

SETTINGS = ["trainer.learning_rate", "trainer.batch_size"]


def described(trials, best, settings=SETTINGS):
    return search.describe(
        trials,
        {"settings": settings, "algorithm": "random", "best": best, "val_images": 100, "seconds": 1.0},
    )


def test_the_winner_has_an_interval_and_a_number_of_others_in_it():
    trials = [samples.trial(i + 1, 0.1, 8, score) for i, score in enumerate((0.5, 0.8, 0.75, 0.7, None))]
    found = described(trials, best=2)
    assert found["interval"] == intervals.proportion(80, 100)  # 0.711 to 0.867
    assert (found["best_score"], found["within"], found["importance"]) == (0.8, 1, None)
    sentence = search_text.describe_search(trials, found).replace("\u00a0", " ")
    assert sentence == (
        "Trials of the Tuner: 5 (1 failed), by random search in 1.0 s; the best validation accuracy, 80.0 %, "
        "was reached with trainer.learning_rate 0.1, trainer.batch_size 8. Its 95 % interval is 71.1 % to "
        "86.7 %, from 100 images; one other trial lies in it."
    )


def test_importance_finds_the_setting_that_the_accuracy_depends_on():
    random = np.random.default_rng(0)
    trials = []
    for number in range(1, 25):
        rate, optimizer, flip = (
            10 ** random.uniform(-4, -1),
            random.choice(["adam", "sgd"]),
            random.random() < 0.5,
        )
        score = 0.5 + 0.1 * (np.log10(rate) + 4) / 3 + 0.3 * (optimizer == "sgd")
        row = samples.trial(number, rate, 8, score)
        trials.append({**row, "trainer.optimizer": str(optimizer), "augmentation.flip": flip})
    keys = ["trainer.learning_rate", "augmentation.flip", "trainer.optimizer"]
    shares = described(trials, best=1, settings=keys)["importance"]
    assert list(shares) == ["trainer.optimizer", "trainer.learning_rate", "augmentation.flip"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["trainer.optimizer"] > 0.7
    assert shares["augmentation.flip"] < 0.05


def test_without_known_importance_the_learning_rate_and_the_batch_size_come_first():
    settings = ["augmentation.flip", "trainer.batch_size", "model.cnn.dropout", "trainer.learning_rate"]
    found = {"settings": settings, "importance": None}
    assert search_figures.ranked(found) == [*SETTINGS, "augmentation.flip", "model.cnn.dropout"]
    found["importance"] = {"model.cnn.dropout": 0.7, "trainer.learning_rate": 0.3}
    assert search_figures.ranked(found) == ["model.cnn.dropout", "trainer.learning_rate"]


def test_slices_show_the_best_those_that_failed_and_the_most_important_settings_first():
    trials = [
        samples.trial(1, 1e-3, 64, 0.7),
        samples.trial(2, 1e-2, 32, 0.8),
        samples.trial(3, 1.0, 32, None),
    ]
    trials[0]["state"] = "pruned"
    found = {**described(trials, best=2), "importance": {SETTINGS[1]: 0.9, SETTINGS[0]: 0.1}}
    figure = search_figures.slices(trials, found)
    sizes, rates = figure.axes
    assert (sizes.get_xlabel(), rates.get_xlabel()) == (SETTINGS[1], SETTINGS[0])
    assert (sizes.get_xscale(), rates.get_xscale()) == ("linear", "log")
    drawn = {c.get_label(): c.get_offsets().tolist() for c in rates.collections}
    assert drawn == {
        "trained to its end": [[1e-2, 0.8]],
        "stopped early": [[1e-3, 0.7]],
        "best": [[1e-2, 0.8]],
    }
    (failed,) = rates.lines
    assert failed.get_xydata().tolist() == [[1.0, 0]]
    assert_all_is_inside(figure)


def test_parallel_coordinates_have_a_line_for_each_trial_with_a_score():
    trials = [
        samples.trial(1, 1e-3, 64, 0.7),
        samples.trial(2, 1e-1, 32, 0.8),
        samples.trial(3, 1.0, 32, None),
    ]
    figure = search_figures.parallel_coordinates(trials, described(trials, best=2))
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines if len(line.get_ydata()) == 3]
    assert lines == [[0, 1, 0], [1, 0, 1]]
    assert_all_is_inside(figure)


@pytest.mark.parametrize("score", [0.5, 0.0, 1.0])
def test_one_trial_can_be_drawn(score):
    trials = [
        samples.trial(1, 1e-3, 32, score) | {"trainer.optimizer": "a name of a length that does not fit"}
    ]
    found = described(trials, best=1, settings=[*SETTINGS, "trainer.optimizer"])
    assert_all_is_inside(search_figures.slices(trials, {**found, "settings": ["trainer.optimizer"]}))
    assert_all_is_inside(search_figures.parallel_coordinates(trials, found))
