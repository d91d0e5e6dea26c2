"""Every mistake in a search is reported with its place in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.file.load import SweepError, load_sweep

LR = "train.stages.0.lr"
BATCH = "train.batch_size"


def mistakes(folder: Path, line: str) -> list[tuple[int, int, str]]:
    path = folder / "sweep.yaml"
    path.write_text(f"name: a\n{line}\n")
    with pytest.raises(SweepError) as caught:
        load_sweep(path)
    return [(found.line, found.column, str(found)) for found in caught.value.mistakes]


@pytest.mark.parametrize(
    ("space", "place", "said"),
    [
        ("{}", "{}", "must have 1 or more entries"),
        (f"{{{BATCH}: []}}", "[]", "must have 1 or more entries"),
        (f"{{{BATCH}: 3}}", "3}", "must be a mapping"),
        (f"{{{BATCH}: {{low: 2}}}}", "{low", "a mapping with low and high"),
        (f"{{{BATCH}: {{low: two, high: 4}}}}", "two", "must be a number; got 'two'"),
        (f"{{{BATCH}: {{low: 1, heigh: 2}}}}", "heigh", "did you mean 'high'"),
        (f"{{{BATCH}: {{low: 1.5, high: 2, int: true}}}}", "{low", "must be whole numbers"),
        (f"{{{BATCH}: {{low: 0, high: 9, int: true}}}}", "0, high", "must be greater than 0"),
        (f"{{{BATCH}: {{low: 1, high: 9}}}}", "{low", "must be a whole number: add int: true"),
        (f"{{{BATCH}: {{low: 1, high: 9, step: 2}}}}", "{low", "must be a whole number: add int: true"),
        (f"{{{BATCH}: [1.5, 2]}}", "1.5", "must be a whole number; got 1.5"),
        (f"{{{BATCH}: [1, two]}}", "two", "must be a whole number; got 'two'"),
        (f"{{{LR}: {{low: 2, high: 1}}}}", "{low", "low must be below high"),
        (f"{{{LR}: {{low: 0, high: 1, log: true}}}}", "{low", "low must be above 0"),
        (f"{{{LR}: {{low: 1, high: 2, log: true, step: 1}}}}", "{low", "a logarithmic scale has no step"),
        ("{data.resolution: {low: 16, high: 32, int: true}}", "16,", "must be a multiple of 8; got 17"),
        ("{train.batchsize: [1, 2]}", "train.batchsize", "did you mean 'batch_size'"),
        ("{train.stages.9.lr: [1, 2]}", "train.stages.9.lr", "2 elements"),
        ("{depth.fusion: [input, xattn]}", "xattn", "has no effect, since depth.model is 'none'"),
        ("{seed: [1, 2]}", "1, 2", "set by `seeds`"),
        ("{model.name: [pixelnerf, blank]}", "blank", "methods that are trained; got 'blank'; allowed: splatter_image"),
        ("{model: [{name: copy_input}]}", "copy_input", "methods that are trained; got 'copy_input'"),
        (f"{{{BATCH}: [1, 2], when: {{{LR}: {{{BATCH}: 1}}}}}}", LR, "not an axis of this space"),
        (f"{{{BATCH}: [1, 2], {LR}: [1, 2], when: {{{LR}: {{{BATCH}: 3}}}}}}", "3}", "not a value of this axis; got 3"),
        (f"{{{BATCH}: [1, 2], when: {{{BATCH}: {{{BATCH}: 1}}}}}}", f"{BATCH}: {{", "cannot depend on itself"),
        (
            f"{{{BATCH}: [1, 2], {LR}: {{low: 1, high: 2}}, when: {{{BATCH}: {{{LR}: 1}}}}}}",
            f"{LR}: 1",
            "has no list of values that a condition could name",
        ),
        (f"{{{BATCH}: [1, 2], when: {{{BATCH}: {{}}}}}}", "{}", "must have 1 or more entries"),
        ("{when: {}}", "{when", "must have 1 or more entries"),
    ],
)
def test_of_the_space(tmp_path: Path, space: str, place: str, said: str) -> None:
    line = f"search: {{trials: 5, space: {space}}}"
    column = line.index(place, line.index("space:")) + 1
    assert any((2, column) == found[:2] and said in found[2] for found in mistakes(tmp_path, line))


@pytest.mark.parametrize(
    ("space", "option", "said"),
    [
        (f"{{{BATCH}: [2, 4]}}", "metric: psnr", "did you mean 'novel_psnr'"),
        (f"{{{BATCH}: [2, 4]}}", "sampler: tpee", "did you mean 'tpe'"),
        (f"{{{BATCH}: [2, 4]}}", "pruner: medium", "did you mean 'median'"),
        (f"{{{BATCH}: [2, 4]}}", "direction: up", "allowed: maximize, minimize"),
        (f"{{{BATCH}: [2, 4]}}", "sampler: cmaes", "two or more axes of numbers"),
        (f"{{{LR}: {{low: 1, high: 2}}}}", "sampler: grid", f"give a step, int or a list for {LR}"),
        (f"{{{BATCH}: [2, 4]}}", "pruner: median", "there are none: set base.eval.every"),
    ],
)
def test_of_the_options(tmp_path: Path, space: str, option: str, said: str) -> None:
    line = f"search: {{trials: 2, space: {space}, {option}}}"
    [(number, column, text)] = mistakes(tmp_path, line)
    assert (number, column) == (2, line.index(option) + option.index(": ") + 3)
    assert said in text


def test_conditions_are_counted_by_the_grid_and_refused_by_a_covariance(tmp_path: Path) -> None:
    space = f"{{depth.model: [none, oracle], depth.fusion: [input, xattn], {BATCH}: {{low: 2, high: 4, int: true}}, "
    space += (
        f"{LR}: {{low: 1, high: 2}}, when: {{depth.fusion: {{depth.model: oracle}}, {LR}: {{depth.model: none}}}}}}"
    )
    [(_, _, text)] = mistakes(tmp_path, f"search: {{trials: 2, sampler: cmaes, space: {space}}}")
    assert "two or more axes of numbers without conditions" in text
    space = "{depth.model: [none, oracle], depth.fusion: [input, xattn], when: {depth.fusion: {depth.model: oracle}}}"
    [(_, _, text)] = mistakes(tmp_path, f"search: {{trials: 4, sampler: grid, space: {space}}}")
    assert "the grid has 3 points only; got 4" in text


def test_a_condition_gives_a_setting_without_effect_its_meaning(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    space = "{depth.model: [none, oracle], depth.fusion: [input, xattn], when: {depth.fusion: {depth.model: [oracle]}}}"
    path.write_text(f"name: a\nsearch: {{trials: 3, sampler: grid, space: {space}}}\n")
    assert load_sweep(path).search.space.when == {"depth.fusion": {"depth.model": ("oracle",)}}


def test_a_grid_has_no_more_trials_than_points(tmp_path: Path) -> None:
    line = f"search: {{sampler: grid, trials: 9, space: {{{BATCH}: {{low: 1, high: 8, int: true}}}}}}"
    [(_, column, text)] = mistakes(tmp_path, line)
    assert column == line.index("9,") + 1
    assert "the grid has 8 points only; got 9" in text


@pytest.mark.parametrize(
    ("more", "said"),
    [("metric: conditioned_psnr", "only novel views count"), ("metric: novel_psnr", "the mean of several seeds")],
)
def test_a_pruner_needs_comparable_scores_during_training(tmp_path: Path, more: str, said: str) -> None:
    seeds = "[0, 1]" if "seeds" in said else "[0]"
    search = f"{{trials: 2, space: {{{BATCH}: [2, 4]}}, {more}, pruner: median}}"
    line = f"seeds: {seeds}\nbase: {{eval.every: 5}}\nsearch: {search}"
    [(number, _, text)] = mistakes(tmp_path, line)
    assert number == 4
    assert said in text


@pytest.mark.parametrize(
    ("base", "space", "why"),
    [
        ("{model: {name: blank}}", "{eval.objects: [1, 2]}", "model.name is blank"),
        ("{train: {start: network:a, stages: []}}", "{render.antialiasing: [true, false]}", "train.stages is empty"),
        ("{train: {start: network:a}}", "{train.stages: [[], [{iterations: 2, lr: 1, losses: {l2: 1}}]]}", "stages"),
    ],
)
def test_a_search_for_trials_that_train_nothing_is_refused(tmp_path: Path, base: str, space: str, why: str) -> None:
    ((_, _, message),) = mistakes(tmp_path, f"base: {base}\nsearch: {{trials: 2, space: {space}}}")
    assert "proposes trials that train nothing" in message
    assert why in message
