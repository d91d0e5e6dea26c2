import pytest

from jobs.config import TrialConfig
from sweep.plan.names import differing_keys, value_name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("oracle", "oracle"),
        (0.01, "0.01"),
        (5e-05, "5e-05"),
        (123456789, "123456789"),
        (0.1234567891, "0.1234567891"),
        (True, "true"),
        (None, "null"),
        ([1, 2, 2], "1-2-2"),
        ({"lr": 1}, "#3"),
        ([], "#3"),
    ],
)
def test_values_in_names(value: object, name: str) -> None:
    assert value_name(value, 3) == name


def test_differing_lists_what_varies_in_the_order_of_the_configuration() -> None:
    off = TrialConfig()
    on = TrialConfig.model_validate({"depth": {"model": "oracle"}, "seed": 1})
    assert differing_keys([config.identity() for config in (off, on)]) == [
        "depth.model",
        "depth.fusion",
        "depth.preprocess",
        "depth.resolution",
        "seed",
    ]
    assert differing_keys([config.identity() for config in (off, off)]) == []


def test_differing_ignores_keys_of_inactive_axes() -> None:
    assert (
        differing_keys(
            [
                config.identity()
                for config in (TrialConfig(), TrialConfig.model_validate({"depth": {"fusion": "xattn"}}))
            ]
        )
        == []
    )


def test_a_list_of_plain_values_differs_as_one() -> None:
    trees = [{"model": {"channel_mult": sizes, "stages": [{"lr": 1}]}} for sizes in ([1, 2], [1, 2, 2])]
    assert differing_keys(trees) == ["model.channel_mult"]
    trees[0]["model"]["stages"][0]["lr"] = 2
    assert differing_keys(trees) == ["model.channel_mult", "model.stages.0.lr"]
