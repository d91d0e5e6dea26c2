import math

import numpy as np
import pandas as pd
import pytest
import torch

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.evaluate import Evaluation, drawing, evaluate, evaluate_predictions, object_views
from jobs.metrics.metric_set import MetricSet
from jobs.pixels import as_bytes
from jobs.stop import StopRequestedError
from jobs.trial import Runtime, run_trial
from model.scenes import GaussianScene
from model.types import Gaussians, Rendering
from results.measurements import read_measurements
from results.metrics import PUBLISHED
from results.records.journal import read_events


@pytest.fixture
def store(home, tiny):
    data = tiny()["data"]
    return open_dataset(data["name"], data["options"], home)


@pytest.fixture
def judge(store, weights):
    metrics = MetricSet(PUBLISHED, "vgg", weights)

    def run(draw, **options):
        defaults = {"split": "test", "resolution": 16, "limit": None, "device": torch.device("cpu")}
        return evaluate(draw, store, metrics=metrics, **defaults | options)

    return run


def brighter(amounts):
    """A predictor that returns the truth plus a constant, a different one for each view."""

    def draw(_, targets):
        return Rendering(targets.images + torch.tensor(amounts).view(1, -1, 1, 1, 1))

    return draw


def test_views_are_averaged_per_object_and_the_source_is_kept_apart(judge):
    # Errors of 0.1, 0.01, ... have a PSNR of 20, 40, ...; view 0 is the source.
    evaluation = judge(brighter([0.1, 0.01, 0.001, 0.01, 0.001]))
    rows = evaluation.per_object
    conditioned = rows[(rows["view_kind"] == "conditioned") & (rows["metric"] == "psnr")]["value"]
    novel = rows[(rows["view_kind"] == "novel") & (rows["metric"] == "psnr")]["value"]
    np.testing.assert_allclose(conditioned, 20, atol=1e-3)
    np.testing.assert_allclose(novel, (40 + 60 + 40 + 60) / 4, atol=0.05)
    assert evaluation.means()["novel/psnr"] == pytest.approx(50, abs=0.05)
    assert set(evaluation.means()) == {f"{k}/{m}" for k in ("novel", "conditioned") for m in ("psnr", "ssim", "lpips")}


def test_an_evaluation_without_scores_has_no_means(store, weights, tmp_path):
    metrics = MetricSet([], "vgg", weights)
    evaluation = evaluate(
        brighter([0.1] * 5), store, metrics=metrics, split="test", resolution=16, limit=1, device=torch.device("cpu")
    )
    assert evaluation.means() == {}
    evaluation.write(tmp_path)
    assert read_measurements(tmp_path / "per_object.parquet", tmp_path).value.size == 0
    assert np.load(tmp_path / "samples.npz")["objects"].size == 1


def test_the_source_is_the_first_camera_and_the_identity(judge):
    def draw(source, targets):
        assert source.images.shape[1] == 1
        assert torch.equal(source.images[:, 0], targets.images[:, 0])
        torch.testing.assert_close(targets.cameras.world_to_camera[:, 0], torch.eye(4)[None], atol=1e-5, rtol=0)
        return Rendering(targets.images)

    judge(draw)


def test_a_limit_takes_the_first_objects(judge, store):
    evaluation = judge(brighter([0.1] * 5), limit=2)
    assert list(evaluation.samples["objects"]) == list(store.split("test")["object"][:2])
    assert evaluation.per_object["object"].nunique() == 2


@pytest.mark.parametrize("inputs", [1, 2])
def test_a_configuration_names_the_objects_and_the_number_of_their_sources(inputs, store, tiny, weights):
    config = TrialConfig.model_validate(tiny(model=tiny()["model"] | {"input_views": inputs}))
    sources = []

    def predict(source):
        sources.append(source.images)
        return one_gaussian()

    evaluated = {"test": 2, "val": 1}  # of the configuration, and of an evaluation while it trains
    for split, count in evaluated.items():
        given = () if split == "test" else (split, count)
        found = evaluate_predictions(predict, config, store, weights, torch.device("cpu"), *given)
        rows = list(store.split(split).head(count).itertuples())
        assert found.per_object["object"].unique().tolist() == [row.object for row in rows]
        for row in rows:
            assert torch.equal(sources.pop(0), object_views(store, row, 16, inputs).images[:, :inputs])
    assert not sources


def one_gaussian(scale=0.1):
    return GaussianScene(
        Gaussians(
            means=torch.tensor([[[0.0, 0.0, 2.0]]]),
            scales=torch.tensor([[[0.1, 0.1, scale]]]),
            rotations=torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
            opacities=torch.full((1, 1, 1), 0.5),
            sh=torch.zeros(1, 1, 1, 3),
        )
    )


def test_an_object_that_cannot_be_drawn_is_named_and_its_scores_are_nan(store, weights, caplog):
    names = [str(name) for name in store.split("test")["object"]]
    calls = iter(names)

    def predict(_):
        return one_gaussian(scale=math.inf if next(calls) == names[1] else 0.1)

    chosen = MetricSet(["psnr", "iou"], "vgg", weights)
    evaluation = evaluate(
        drawing(predict, geometry=True),
        store,
        metrics=chosen,
        split="test",
        resolution=16,
        limit=None,
        device=torch.device("cpu"),
    )
    values = evaluation.per_object.set_index("object")["value"]
    assert values[names[1]].isna().all()
    assert values.drop(names[1]).notna().all()
    assert values.groupby(level=0).size().nunique() == 1, "a score is lost"
    assert all(math.isnan(mean) for mean in evaluation.means().values())
    assert list(evaluation.samples["objects"]) == names
    assert not evaluation.samples["render"][1].any()
    (record,) = caplog.records
    assert f"{names[1]} of test cannot be drawn" in record.message
    assert "scales: 1 of 3 values are NaN or infinite" in record.message


def test_a_stop_is_looked_for_between_objects(judge):
    answers = iter([False, False, True])
    with pytest.raises(StopRequestedError, match="after 2 of 3 objects"):
        judge(brighter([0.1] * 5), should_stop=lambda: next(answers))


def test_a_picture_that_is_black_everywhere_is_left_out(judge, store):
    images = np.array(store.images)
    row = store.split("test").iloc[0]
    images[row.first_frame + 1] = 0
    object.__setattr__(store, "images", images)
    evaluation = judge(brighter([0.1, 5.0, 0.1, 0.1, 0.1]), limit=1)
    assert evaluation.means()["novel/psnr"] == pytest.approx(20, abs=1e-3)


def test_samples_are_the_same_views_for_every_predictor(judge):
    one, other = judge(brighter([0.1] * 5)).samples, judge(brighter([0.2] * 5)).samples
    assert np.array_equal(one["target"], other["target"])
    assert not np.array_equal(one["render"], other["render"])
    assert one["target"].shape == (3, 3, 3, 16, 16)
    assert one["render"].dtype == np.uint8


def test_samples_are_of_the_first_objects_the_source_and_views_spread_over_the_others(judge, store, monkeypatch):
    monkeypatch.setattr("jobs.evaluate.SAMPLE_OBJECTS", 2)
    samples = judge(brighter([0.1] * 5)).samples
    first = store.split("test").head(2)
    assert samples["objects"].tolist() == first["object"].tolist()
    views = [object_views(store, row, 16).images[0] for row in first.itertuples()]
    for name, chosen in ("source", 0), ("target", [1, 2, 4]):
        assert np.array_equal(samples[name], np.stack([as_bytes(images[chosen]) for images in views]))


@pytest.mark.parametrize(("views", "chosen"), [(3, [1, 2]), (1, [0])])
def test_samples_show_the_views_that_every_object_has(views, chosen, judge, store):
    objects = store.objects.copy()
    second = objects.index[objects["split"] == "test"][1]
    objects.loc[second, "num_frames"] = views
    object.__setattr__(store, "objects", objects)
    samples = judge(lambda _, targets: Rendering(targets.images)).samples
    row = objects.loc[second]
    assert np.array_equal(samples["target"][1], as_bytes(object_views(store, row, 16).images[0, chosen]))
    assert samples["render"].shape == (3, len(chosen), 3, 16, 16)


def test_chosen_metrics_are_computed_except_those_that_a_control_cannot_render(home, tiny):
    chosen = ["iou", "psnr", "abs_rel", "psnr_masked", "delta1", "ssim_masked"]
    judging = tiny()["eval"] | {"metrics": chosen}
    trained = run_trial(TrialConfig.model_validate(tiny(eval=judging)), home, Runtime())
    names = {f"{kind}/{metric}" for kind in ("conditioned", "novel") for metric in chosen}
    assert set(trained.metrics) == names
    assert all(np.isfinite(value) for value in trained.metrics.values())
    validated = {name for event in read_events(trained.folder) for name in event.get("values", {}) if "val/" in name}
    assert validated == {f"val/{metric}" for metric in chosen}
    blank = run_trial(TrialConfig.model_validate(tiny(eval=judging, model={"name": "blank"})), home, Runtime())
    assert set(blank.metrics) == {
        name for name in names if name.partition("/")[2] in ("psnr", "psnr_masked", "ssim_masked")
    }
    assert blank.metrics["novel/psnr_masked"] < blank.metrics["novel/psnr"], "it gets the background right"


def test_an_object_without_a_number_is_in_the_mean() -> None:
    """As in the tables; a mean over the others would rank a network by the objects that it can do."""
    rows = [(name, "test", "novel", "psnr", value) for name, value in (("a", 25.0), ("b", math.nan))]
    rows += [("a", "test", "novel", "ssim", 0.5), ("b", "test", "novel", "ssim", 0.7)]
    columns = ["object", "split", "view_kind", "metric", "value"]
    means = Evaluation(pd.DataFrame(rows, columns=columns), {}, object_s=1.0).means()
    assert math.isnan(means["novel/psnr"])
    assert means["novel/ssim"] == pytest.approx(0.6)
