"""Parallel axes: settings that differ, in order, up to the score."""

from __future__ import annotations

import math

import numpy as np

from results.figures import parallel

TRIALS = [
    ({"weight": weight, "fusion": fusion, "same": 1}, score)
    for weight, fusion, score in [
        (0.1, "input", 20.0),
        (0.1, "xattn", 21.0),
        (10.0, "input", 22.0),
        (2.0, "xattn", 24.0),
    ]
]


def heights() -> np.ndarray:
    (axes,) = parallel.draw(TRIALS, "PSNR").axes
    return np.array([segment[:, 1] for segment in axes.collections[0].get_segments()])


def test_lines_pass_through_their_settings_to_their_score() -> None:
    # Worst first; numbers in numerical order, words in alphabetical one.
    np.testing.assert_allclose(heights(), [[0, 0, 0], [0, 1, 0.25], [1, 0, 0.5], [0.5, 1, 1]])


def test_settings_that_all_share_have_no_axis() -> None:
    (axes,) = parallel.draw(TRIALS, "PSNR").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["weight", "fusion", "PSNR"]


def test_of_many_settings_the_first_are_shown() -> None:
    trials = [({f"s{index}": (place * index) % 3 for index in range(1, 15)}, float(place)) for place in range(6)]
    (axes,) = parallel.draw(trials, "PSNR").axes
    titles = [label.get_text() for label in axes.get_xticklabels()]
    assert len(titles) == parallel.MOST_SETTINGS + 1
    assert (titles[0], titles[-1]) == ("s1", "PSNR")


def test_too_little_makes_no_figure() -> None:
    assert parallel.draw(TRIALS[:3], "PSNR") is None
    assert parallel.draw([({"weight": config["weight"]}, score) for config, score in TRIALS], "PSNR") is None
    assert parallel.draw([(config, math.nan) for config, _ in TRIALS], "PSNR") is None


def test_settings_that_vary_together_have_a_short_title() -> None:
    together = ", ".join(f"setting_{number}" for number in range(12))
    trials = [({"weight": config["weight"], together: config["fusion"]}, score) for config, score in TRIALS]
    (axes,) = parallel.draw(trials, "PSNR").axes
    titles = [label.get_text() for label in axes.get_xticklabels()]
    assert titles == ["weight", "setting_0, setting_1 and 10 more", "PSNR"]


def test_the_lowest_and_the_highest_line_are_seen_on_any_page() -> None:
    (axes,) = parallel.draw(TRIALS, "PSNR").axes
    luminance = axes.collections[0].get_colors()[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all(), "the brighter, the higher"
    assert luminance.min() > 0.3


def test_many_proposed_numbers_have_some_short_labels() -> None:
    trials = [({"lr": 1e-5 * 1.2345678**number, "kind": "a" if number % 2 else "b"}, number) for number in range(40)]
    (axes,) = parallel.draw(trials, "PSNR").axes
    labels = [text for text in axes.texts if text.xy[0] == 0]
    assert [text.get_text() for text in labels[:2]] == ["1e-05", "1.882e-05"]
    assert labels[-1].get_text() == "0.03708"
    assert len(labels) == parallel.MOST_LABELS
    assert [text.xy[1] for text in labels] == sorted(text.xy[1] for text in labels)


def test_equal_scores_are_beside_their_label() -> None:
    (axes,) = parallel.draw([(config, 15.0) for config, _ in TRIALS], "PSNR").axes
    assert [text.xy for text in axes.texts if text.get_text() == "15"] == [(2, 0.0)]
    assert {segment[-1, 1] for segment in axes.collections[0].get_segments()} == {0.0}
