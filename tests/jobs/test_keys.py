import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from jobs.config import Section, TrialConfig
from jobs.keys import (
    EVALUATION_VERSION,
    NUMERICS_VERSION,
    Keys,
    evaluation_identity,
    evaluation_weights,
    frozen_weights,
    keys_of,
    training_identity,
    training_weights,
)
from model.options import ADDED_LATER, known_values, options


def config(**sections) -> TrialConfig:
    return TrialConfig.model_validate(sections)


def keys(trial: TrialConfig, fingerprint: str = "data", **weights: str) -> Keys:
    return keys_of(trial, fingerprint, dict.fromkeys(frozen_weights(trial), "hash") | weights)


def test_equal_configurations_have_equal_keys_however_they_are_written():
    assert keys(config()) == keys(config(seed=0, render={"antialiasing": False}))
    assert keys(config()) == keys(config(depth={"fusion": "xattn"}, semantic={"resolution": 64}))
    assert all(len(key) == 16 for key in asdict(keys(config())).values())


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 1},
        {"data": {"resolution": 64}},
        {"model": {"base_dim": 20}},
        {"depth": {"model": "oracle"}},
        {"semantic": {"encoder": "efficientnet_lite0"}},
        {"train": {"stages": [{"iterations": 25000, "lr": 5e-5, "losses": {"l2": 1.0, "tv": 0.1}}]}},
        {"render": {"antialiasing": True}},
    ],
)
def test_everything_that_training_reads_changes_both_keys(sections):
    changed, plain = keys(config(**sections)), keys(config())
    assert changed.training != plain.training
    assert changed.trial != plain.trial


@pytest.mark.parametrize("section", [{"split": "val"}, {"lpips": "alex"}, {"objects": 5}, {"metrics": ["psnr"]}])
def test_another_evaluation_is_another_trial_of_the_same_training(section):
    changed, plain = keys(config(eval=section)), keys(config())
    assert changed.training == plain.training
    assert changed.trial != plain.trial


@pytest.mark.parametrize("section", [{"every": 100}, {"val_objects": 3}])
def test_curves_of_training_are_in_no_key(section):
    assert keys(config(eval=section)) == keys(config())


#: A stage without LPIPS, whose network the default stages load.
L2: dict[str, Any] = {"iterations": 5, "lr": 1e-3, "losses": {"l2": 1.0}}
BEST: dict[str, Any] = {"train": {"keep": "best"}, "eval": {"every": 100}}


def test_the_best_weights_are_another_training_by_the_scores_that_choose_them():
    best = keys(config(**BEST))
    assert best.training != keys(config(eval={"every": 100})).training
    assert best == keys(config(**BEST | {"train": {"keep": "best", "keep_by": "psnr"}}))
    for change in ({"eval": {"every": 50}}, {"eval": {"every": 100, "val_objects": 3}}):
        assert keys(config(**BEST | change)).training != best.training
    for change in ({"eval": {"every": 100, "lpips": "alex"}}, {"eval": {"every": 100, "metrics": ["psnr", "dists"]}}):
        assert keys(config(**BEST | change)).training == best.training
        assert keys(config(**BEST | change)).trial != best.trial


def test_the_network_of_a_metric_that_chooses_is_read_by_training():
    plain = {"stages": [L2]}
    vgg = config(train=plain | {"keep": "best", "keep_by": "lpips"}, eval={"every": 2})
    alex = config(train=plain | {"keep": "best", "keep_by": "lpips"}, eval={"every": 2, "lpips": "alex"})
    assert (training_weights(vgg), training_weights(alex)) == (("vgg16",), ("alexnet",))
    assert keys(vgg).training != keys(alex).training


def test_what_keeps_the_last_weights_has_no_metric_in_its_identity():
    assert config(train={"keep_by": "lpips"}).identity() == config().identity()
    assert not {"keep", "keep_by"} & config().identity()["train"].keys()
    assert training_weights(config(train={"stages": [L2], "keep_by": "lpips"})) == ()


@pytest.mark.parametrize("metric", ["psnr", "lpips"])
def test_a_training_with_the_best_weights_comes_back_from_its_identity(metric):
    trial = config(train={"keep": "best", "keep_by": metric}, eval={"every": 7, "val_objects": 3, "lpips": "alex"})
    again = TrialConfig.model_validate(training_identity(trial))
    assert keys(again).training == keys(trial).training


def test_metrics_are_a_set_and_the_published_ones_are_not_named():
    assert "metrics" not in config(eval={"metrics": ["lpips", "psnr", "ssim", "psnr"]}).identity()["eval"]
    ours, theirs = (keys(config(eval={"metrics": names})) for names in (["iou", "psnr"], ["psnr", "iou"]))
    assert ours == theirs
    plain = config(eval={"metrics": ["psnr"]})
    assert keys(plain) == keys(config(eval={"metrics": ["psnr"], "lpips": "alex"})), "it is not measured"
    assert evaluation_weights(plain) == ()
    assert evaluation_weights(config(eval={"metrics": ["dists", "lpips"], "lpips": "alex"})) == (
        "alexnet",
        "dists",
        "vgg16",
    )


def test_data_and_weights_are_in_the_keys():
    plain = keys(config())
    data, trunk = keys(config(), "other"), keys(config(), vgg16="other")
    assert data.training != plain.training
    assert data.trial != plain.trial
    assert trunk.training != plain.training, "the default loss trains with it"
    l2 = config(train={"stages": [L2]})
    assert keys(l2, vgg16="other").training == keys(l2).training
    assert keys(l2, vgg16="other").trial != keys(l2).trial


def test_a_raised_version_of_training_changes_both_keys_and_one_of_evaluation_the_trials(monkeypatch):
    plain = keys(config())
    monkeypatch.setattr("jobs.keys.EVALUATION_VERSION", EVALUATION_VERSION + 1)
    judged = keys(config())
    assert (judged.training == plain.training, judged.trial == plain.trial) == (True, False)
    monkeypatch.setattr("jobs.keys.NUMERICS_VERSION", NUMERICS_VERSION + 1)
    trained = keys(config())
    assert (trained.training == plain.training, trained.trial == judged.trial) == (False, False)


def test_trivial_predictions_have_no_training_to_depend_on():
    blank = keys(config(model={"name": "blank"}, seed=3))
    assert blank == keys(config(model={"name": "blank"}, seed=0))
    assert blank.training is None
    assert blank.trial != keys(config(model={"name": "copy_input"})).trial != keys(config()).trial


def test_the_identity_parses_to_the_same_configuration():
    trial = config(depth={"model": "oracle", "fusion": "xattn"}, seed=5)
    assert keys(TrialConfig.model_validate(trial.identity())) == keys(trial)


def test_weights_of_training_and_of_evaluation_are_separate():
    trial = config(semantic={"encoder": "efficientnet_lite0"}, eval={"lpips": "alex"})
    assert training_weights(trial) == ("efficientnet_lite0", "vgg16")
    assert evaluation_weights(trial) == ("alexnet",)
    assert frozen_weights(trial) == ("alexnet", "efficientnet_lite0", "vgg16")
    pixelnerf = config(model={"name": "pixelnerf"}, train={"stages": [L2]})
    assert training_weights(pixelnerf) == ("resnet34",), "where its encoder starts"
    untrained = config(model={"name": "blank"}, semantic={"encoder": "efficientnet_lite0"}, eval={"lpips": "alex"})
    assert frozen_weights(untrained) == ("alexnet",)


# Options that are added later


class Inner(Section):
    old: int = 1
    new: Annotated[str, ADDED_LATER] = "as before"


class Outer(Section):
    inner: Inner = Inner()
    several: tuple[Inner, ...] = (Inner(), Inner(new="other"))
    named: dict[str, Inner] = Field(default_factory=lambda: {"a": Inner()})
    size: Annotated[int, ADDED_LATER] = 3


@options
class Chosen:
    old: int = 1
    new: Annotated[bool, ADDED_LATER] = False


def test_an_option_that_was_added_later_is_absent_while_it_changes_nothing():
    def plain(section: Section) -> Any:
        return known_values(section, section.model_dump(mode="json"))

    assert plain(Outer()) == {
        "inner": {"old": 1},
        "several": [{"old": 1}, {"old": 1, "new": "other"}],
        "named": {"a": {"old": 1}},
    }
    assert plain(Outer(inner=Inner(new="other"), size=4)) | {"several": None, "named": None} == {
        "inner": {"old": 1, "new": "other"},
        "several": None,
        "named": None,
        "size": 4,
    }
    assert known_values(Chosen(), asdict(Chosen())) == {"old": 1}
    assert known_values(Chosen(new=True), asdict(Chosen(new=True))) == {"old": 1, "new": True}


# Keys that survive growth

_STAGES = [{"iterations": 100, "lr": 1e-3, "losses": {"l2": 0.9, "lpips": 0.1}}]

#: Configurations of all kinds.  Add new kinds at the end; never change one.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "seed": {"seed": 7},
    "resolution": {"data": {"resolution": 64}},
    "data options": {"data": {"name": "chairs", "options": {"train": 8}}},
    "network": {"model": {"base_dim": 8, "num_blocks": 2, "channel_mult": [1, 2], "attention_resolutions": [16]}},
    "head": {"model": {"head": {"depth_scale": 0.5, "opacity_bias": 0.0}, "sh_degree": 0}},
    "two views": {"model": {"input_views": 2, "camera_embedding": True}},
    "encoder": {"semantic": {"encoder": "dinov2_small", "fusion": "xattn", "preprocess": "published"}},
    "random encoder": {"semantic": {"encoder": "random", "options": {"seed": 3}}},
    "depth": {"depth": {"model": "dpt_hybrid", "fusion": "xattn_positional", "resolution": 96}},
    "noisy oracle": {"depth": {"model": "oracle_noisy", "fusion": "input_normalised", "options": {"sigma": 0.1}}},
    "both": {"semantic": {"encoder": "clip_vit_b32"}, "depth": {"model": "midas_small"}},
    "stages": {"train": {"stages": _STAGES, "batch_size": 2, "views_per_object": 3}},
    "terms": {
        "train": {
            "stages": [
                {"iterations": 9, "lr": 0.1, "losses": {"l1": 1.0, "tv": {"weight": 0.1, "start": 3, "ramp": 2}}},
                {"iterations": 9, "lr": 0.1, "losses": {"lpips": {"weight": 1.0, "views": 2}}},
            ]
        }
    },
    "average": {"train": {"ema": {"every": 5, "start": 10, "max_decay": 0.99}}},
    "precision": {"train": {"precision": "bf16", "nonfinite": "ignore"}},
    "judging": {"eval": {"split": "val", "objects": 3, "lpips": "alex", "every": 50, "val_objects": 2}},
    "render": {"render": {"backend": "reference", "antialiasing": True}},
    "blank": {"model": {"name": "blank"}},
    "copied input": {"model": {"name": "copy_input"}, "eval": {"split": "val"}},
    "pixelnerf": {
        "model": {"name": "pixelnerf"},
        "train": {"stages": [{"iterations": 9, "lr": 1e-4, "losses": {"l2": 1.0}}]},
    },
    "metrics": {"eval": {"metrics": ["psnr", "dists", "iou", "abs_rel"]}},
}

#: The versions and the `digests` of each configuration when it was added; `python -m tests.jobs.test_keys` writes it.
RECORD = Path(__file__).with_name("identities.json")
#: The records of the study.
PUBLISHED = Path(__file__).parents[2] / "results" / "examples" / "study"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return json.loads(RECORD.read_text())


def versions() -> dict[str, int]:
    return {"training": NUMERICS_VERSION, "judging": EVALUATION_VERSION}


def digests(sections: dict[str, Any]) -> dict[str, str]:
    """Hashes of the settings that training and evaluation depend on."""
    trial = config(**sections)
    parts = {"training": training_identity(trial), "judging": evaluation_identity(trial)}
    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16] for name, part in parts.items()
    }


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_identity_of_what_exists_never_moves(name, record):
    """If this fails: mark a new option `ADDED_LATER`; if old behaviour is gone, raise the version and record again."""
    for part, version in (("training", NUMERICS_VERSION), ("judging", EVALUATION_VERSION)):
        is_same = digests(CONFIGURATIONS[name])[part] == record["identities"][name][part]
        assert is_same or version > record["versions"][part], f"what {part} reads of {name!r} has another identity"


def test_the_record_is_of_this_version(record):
    assert record["versions"] == versions(), "the versions were raised: record the identities anew"
    assert record["identities"].keys() == CONFIGURATIONS.keys()


def test_published_results_are_found_under_their_keys():
    """The keys are hashes of all their content, so whatever moves one loses the results of every home."""
    results = [json.loads(path.read_text()) for path in PUBLISHED.glob("trials/*/result.json")]
    if {"training": results[0]["numerics"], "judging": results[0]["evaluation"]} != versions():
        pytest.skip("the published results are of earlier versions")
    for result in results:
        trial = config(**json.loads((PUBLISHED / "trials" / result["key"] / "config.json").read_text()))
        found = keys_of(trial, result["data_fingerprint"], result["weights"])
        assert found == Keys(result["key"], result["training"])


if __name__ == "__main__":
    found = {name: digests(sections) for name, sections in CONFIGURATIONS.items()}
    RECORD.write_text(json.dumps({"versions": versions(), "identities": found}, indent=2) + "\n")
