from collections import Counter

from datasets import splitting


def test_hold_out_takes_the_same_fraction_of_every_class():
    labels = [0] * 100 + [1] * 50 + [2] * 10
    picked = splitting.hold_out(labels, 0.1, seed=3)
    assert Counter(labels[i] for i in picked) == {0: 10, 1: 5, 2: 1}


def test_hold_out_takes_at_least_one_example_and_never_all():
    assert len(splitting.hold_out([0, 0, 0], 0.01, seed=0)) == 1
    assert len(splitting.hold_out([0, 0, 0], 0.99, seed=0)) == 2
    assert splitting.hold_out([0], 0.5, seed=0) == set()


def test_choose_takes_a_number_of_examples_per_class_or_all_of_them():
    labels = [0] * 100 + [1] * 50 + [2] * 3
    picked = splitting.choose(labels, 5, seed=3)
    assert Counter(labels[i] for i in picked) == {0: 5, 1: 5, 2: 3}
    assert splitting.choose(labels, 5, seed=3) == picked != splitting.choose(labels, 5, seed=4)
    assert splitting.choose(labels, 1000, seed=0) == set(range(len(labels)))


def test_hold_out_depends_only_on_labels_seed_and_role():
    labels = [i % 4 for i in range(400)]
    picked = splitting.hold_out(labels, 0.2, seed=1)
    assert picked == splitting.hold_out(labels, 0.2, seed=1)
    assert picked != splitting.hold_out(labels, 0.2, seed=2)
    assert picked != splitting.hold_out(labels, 0.2, seed=1, role="test")


def test_groups_are_held_out_as_a_whole():
    labels = [0] * 60 + [1] * 60
    groups = [index // 6 for index in range(120)]
    picked = splitting.hold_out(labels, 0.2, seed=1, groups=groups)
    assert Counter(labels[i] for i in picked) == {0: 12, 1: 12}
    assert set(Counter(groups[i] for i in picked).values()) == {6}


def test_groups_of_one_change_nothing():
    labels = [i % 4 for i in range(400)]
    assert splitting.hold_out(labels, 0.2, 1, groups=range(400)) == splitting.hold_out(labels, 0.2, 1)


def test_a_group_that_is_larger_than_the_fraction_stays():
    groups = [0] * 50 + list(range(1, 51))
    for seed in range(20):
        picked = splitting.hold_out([0] * 100, 0.1, seed, groups=groups)
        assert len(picked) == 10
        assert min(picked) >= 50


def test_the_smallest_group_is_held_out_if_all_are_too_large():
    assert splitting.hold_out([0] * 9, 0.1, 0, groups=[0] * 5 + [1] * 4) == {5, 6, 7, 8}
    assert splitting.hold_out([0] * 9, 0.1, 0, groups=[0] * 9) == set()
