import pytest

from jobs.config import Stage
from sweep.file.diagnostics import Path
from sweep.file.overrides import REMOVE, Draft, OverrideError, build, flatten


def _on_defaults(overrides: dict[str, object]) -> Draft:
    return build(Draft.defaults(), list(flatten(overrides, ("base",))))


def test_nested_and_dotted_keys_mean_the_same() -> None:
    nested = _on_defaults({"train": {"batch_size": 4}, "depth": {"model": "oracle"}})
    dotted = _on_defaults({"train.batch_size": 4, "depth.model": "oracle"})
    assert nested.config() == dotted.config()
    assert nested.config().train.batch_size == 4


def _weights(stage: Stage) -> dict[str, float]:
    return {name: term.weight for name, term in stage.losses.items()}


def test_mappings_merge_and_everything_else_replaces() -> None:
    stage = {"iterations": 1, "lr": 1.0, "losses": {"l2": 1.0}}
    draft = _on_defaults({"model": {"channel_mult": [1, 2]}, "train": {"stages": [stage]}})
    assert draft.config().model.channel_mult == (1, 2)
    assert draft.config().model.base_dim == 16
    merged = build(draft, list(flatten({"train.stages.0": {"losses": {"tv": 0.1}}}, ("trials", "a"))))
    assert _weights(merged.config().train.stages[0]) == {"l2": 1.0, "tv": 0.1}
    assert _weights(draft.config().train.stages[0]) == {"l2": 1.0}, "drafts do not change"


def test_a_star_reaches_all_elements_and_an_index_one() -> None:
    draft = _on_defaults({"train.stages.*.losses.tv": 0.01, "train.stages.1.lr": 1e-3})
    first, second = draft.config().train.stages
    assert (_weights(first)["tv"], _weights(second)["tv"]) == (0.01, 0.01)
    assert (first.lr, second.lr) == (5e-5, 1e-3)


def test_taking_a_loss_away_leaves_the_others() -> None:
    draft = build(Draft.defaults(), list(flatten(REMOVE, ("leave_one_out", 0), "train.stages.*.losses.lpips")))
    assert [set(stage.losses) for stage in draft.config().train.stages] == [{"l2"}, {"l2"}]


@pytest.mark.parametrize("index", ["2", "first", "-1"])
def test_an_index_that_is_not_there_names_those_that_are(index: str) -> None:
    with pytest.raises(OverrideError) as caught:
        _on_defaults({f"train.stages.{index}.lr": 1.0})
    assert caught.value.finding.allowed == ("0", "1", "*")
    assert caught.value.finding.value == index


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ({"train": {"batch_size": 0}}, ("base", "train", "batch_size")),
        ({"train.batch_size": 0}, ("base", "train.batch_size")),
        ({"train.stages.*.lr": -1.0}, ("base", "train.stages.*.lr")),
        (
            {"train": {"stages": [{"iterations": 1, "lr": 0.0, "losses": {"l2": 1}}]}},
            ("base", "train", "stages", 0, "lr"),
        ),
        ({"nothing": {"like": {"this": 1}}}, ("base", "nothing")),
        ({"seed": {"deep": 1}}, ("base", "seed")),
        ({"depth": {"model": "oracle", "fusion": "concat"}}, ("base", "depth", "fusion")),
        (
            {"depth": {"model": "oracle"}, "semantic.fusion": "xattn", "depth.fusion": "concat"},
            ("base", "depth.fusion"),
        ),
        ({"model": {"channel_mult": [1] * 9}}, ("base", "model", "channel_mult")),
    ],
)
def test_findings_stand_where_the_value_was_written(overrides: dict[str, object], path: Path) -> None:
    assert {finding.path for finding in _on_defaults(overrides).findings(("here",))} == {path}


def test_parts_that_do_not_fit_are_found_beside_other_mistakes() -> None:
    draft = _on_defaults({"train.batch_size": 0, "depth": {"model": "oracle", "fusion": "concat"}})
    assert [f.path for f in draft.findings(())] == [("base", "depth", "fusion"), ("base", "train.batch_size")]


def test_a_mistaken_value_does_not_make_others_not_fit() -> None:
    draft = _on_defaults({"data.resolution": "large", "model.channel_mult": [1] * 7})
    assert [finding.path for finding in draft.findings(())] == [("base", "data.resolution")]
