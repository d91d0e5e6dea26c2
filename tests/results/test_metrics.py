import pytest

from results.metrics import METRICS, columns, facts_of, score_name, split_column


def test_columns_are_taken_apart_as_they_are_put_together():
    assert len(columns()) == 2 * len(METRICS)
    for name in columns():
        kind, metric = split_column(name)
        assert f"{kind}_{metric}" == name
        assert metric in METRICS
        assert score_name(name) == f"{kind}/{metric}"
    assert score_name("novel_psnr_masked") == "novel/psnr_masked"


@pytest.mark.parametrize("name", ["psnr", "novel", "novel_", "old_psnr"])
def test_what_is_no_column_is_refused_with_those_that_are(name):
    with pytest.raises(ValueError, match=f"'{name}' is not a column; allowed: conditioned_psnr"):
        split_column(name)


def test_clamped_scores_read_like_the_others_and_unknown_ones_have_no_facts():
    known = facts_of("lpips_clamped")
    assert known is not None
    assert (known.label, known.direction, known.precision) == ("LPIPS (clamped)", "down", 3)
    assert facts_of("something_else") is None
