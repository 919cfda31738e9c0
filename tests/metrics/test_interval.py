"""Intervals: Wilson's for single questions, wider where images hang together."""

import numpy as np
import pytest

from model.metrics.interval import mean


def test_is_wilsons_for_one_question_an_image():
    found = mean(np.array([1.0] * 90 + [0.0] * 10), np.arange(100))
    assert (found.value, found.questions) == (0.9, 100)
    assert (found.low, found.high) == pytest.approx(
        (0.8256, 0.9448), abs=1e-3
    )  # Wilson's, by hand


def test_images_of_which_all_questions_fall_alike_count_once():
    right_N = np.repeat([1.0] * 30 + [0.0] * 10, 5)
    together = mean(right_N, np.repeat(np.arange(40), 5))
    apart = mean(right_N, np.arange(200))
    once = mean(right_N[::5], np.arange(40))
    assert together.high - together.low > 1.9 * (apart.high - apart.low)
    assert (together.low, together.high) == pytest.approx((once.low, once.high))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_perfect_score_is_not_certain(value):
    found = mean(np.full(20, value), np.arange(20))
    assert found.value == value
    assert found.high - found.low > 0.1
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_one_image_says_next_to_nothing():
    found = mean(np.array([1.0] * 5 + [0.0] * 5), np.zeros(10))
    assert found.low < 0.1
    assert found.high > 0.9


@pytest.mark.parametrize("together", [0.0, 0.5])
@pytest.mark.parametrize("soft", [False, True])
def test_covers_the_truth_as_often_as_it_says(together, soft):
    """2000 benchmarks of 60 images: 95 % coverage to within what so few images allow."""
    random = np.random.default_rng(3)
    levels = np.array([0.0, 0.3, 0.6, 0.9, 1.0]) if soft else np.array([0.0, 1.0])
    image_N, covered = np.repeat(np.arange(60), 5), 0
    for _ in range(2000):
        own_N, shared_G = random.choice(levels, 300), random.choice(levels, 60)
        score_N = np.where(random.random(300) < together, shared_G[image_N], own_N)
        found = mean(score_N, image_N)
        covered += found.low <= levels.mean() <= found.high
    assert covered >= 1880  # 94 %
