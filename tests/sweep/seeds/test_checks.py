"""Mistakes in a rule that adds seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.spec import SweepError, load_sweep

ROWS = "trials: {baseline: {}, other: {train.batch_size: 4}}"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text("\n".join(["name: s", *lines]))
    return path


def test_a_rule_with_its_defaults(tmp_path) -> None:
    sweep = load_sweep(written(tmp_path, ROWS, "seeds: {at_most: 12}"))
    rule = sweep.seed_rule
    assert (rule.at_least, rule.at_most, rule.until, rule.metric, rule.alpha) == (3, 12, "decided", "novel_psnr", 0.05)
    assert sweep.first_seeds == (0, 1, 2)


def test_it_is_set_from_the_command_line(tmp_path) -> None:
    sweep = load_sweep(written(tmp_path, ROWS, "seeds: [0]"), ["seeds={at_least: 2, at_most: 5}"])
    assert (sweep.first_seeds, sweep.most_seeds) == ((0, 1), 5)


def test_another_network_of_lpips_changes_no_psnr(tmp_path) -> None:
    rows = "trials: {baseline: {}, other: {eval.lpips: alex}}"
    assert load_sweep(written(tmp_path, rows, "seeds: {at_most: 6}")).seed_rule


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([ROWS, "seeds: {at_least: 3, at_most: 3}"], "must be below at_most"),
        ([ROWS, "seeds: {at_least: 1, at_most: 3}"], "must be at least 2"),
        ([ROWS, "seeds: {at_least: 3}"], "missing key"),
        ([ROWS, "seeds: {at_most: 6, untill: decided}"], "did you mean 'until'"),
        ([ROWS, "seeds: {at_most: 6, until: done}"], "not one of the allowed values"),
        ([ROWS, "seeds: {at_most: 6, metric: psnr}"], "unknown metric"),
        ([ROWS, "seeds: {at_most: 6, metric: novel_dists}"], "is not evaluated by it, only by psnr, ssim, lpips"),
        ([ROWS, "seeds: {at_most: 6, alpha: 0.9}"], "must be at most 0.5"),
        (["trials: {a: {}, b: {train.batch_size: 4}}", "seeds: {at_most: 6}"], "name one with `baseline:`, of a, b"),
        (["trials: {baseline: {}}", "seeds: {at_most: 6}"], "there is nothing to decide"),
        (
            ["trials: {baseline: {}, given: {train: {start: network:a, stages: []}}}", "seeds: {at_most: 6}"],
            "there is nothing to decide",
        ),
        (
            ["trials: {baseline: {}, other: {eval.objects: 3}}", "seeds: {at_most: 6}"],
            "row 'other' is evaluated on other objects than the baseline 'baseline'",
        ),
        (
            ["trials: {baseline: {}, other: {data.resolution: 64}}", "seeds: {at_most: 6}"],
            "row 'other' is evaluated otherwise than the baseline 'baseline' (data.resolution 64 instead of 32)",
        ),
        (
            ["trials: {baseline: {}, other: {eval.lpips: alex}}", "seeds: {at_most: 6, metric: novel_lpips}"],
            "(eval.lpips alex instead of vgg)",
        ),
        (
            ["search: {space: {train.batch_size: [2, 4]}, trials: 2}", ROWS, "seeds: {at_most: 6}"],
            "a search needs a list of seeds",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, lines, reason) -> None:
    with pytest.raises(SweepError) as raised:
        load_sweep(written(tmp_path, *lines))
    assert reason in str(raised.value)
    assert len(raised.value.mistakes) == 1 or "untill" in lines[1]
