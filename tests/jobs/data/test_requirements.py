from dataclasses import replace

import pytest

from jobs.config import TrialConfig
from jobs.data.prepare import prepare
from jobs.data.requirements import Requirements
from jobs.data.store import Store
from jobs.trial import TrialFailedError, run_trial
from results.records.trial_folder import trial_status
from sweep.file.load import load_sweep
from sweep.plan.planner import PlanError, make_plan

OPTIONS = {"train": 3, "val": 1, "test": 2, "views": 6, "image_size": 32, "supersampling": 1}
CONFIG = {
    "data": {"name": "chairs", "resolution": 32, "options": OPTIONS},
    "model": {"base_dim": 8, "num_blocks": 1, "channel_mult": [1, 2], "attention_resolutions": [8]},
    "train": {
        "batch_size": 2,
        "views_per_object": 4,
        "stages": [{"iterations": 4, "lr": 1e-4, "losses": {"l2": 1.0}}],
    },
    "eval": {"lpips": "alex"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    prepare("chairs", OPTIONS, home, workers=1)
    return home


@pytest.fixture
def store(home) -> Store:
    return Store.open(prepare("chairs", OPTIONS, home))


def config(**sections) -> TrialConfig:
    """The configuration with these sections merged in; a section `model` with a name replaces the whole section."""
    merged = {key: {**CONFIG.get(key, {}), **sections.get(key, {})} for key in {*CONFIG, *sections}}
    if "name" in sections.get("model", {}):
        merged["model"] = sections["model"]
    return TrialConfig.model_validate(merged)


def without(store: Store, split: str) -> Store:
    return replace(store, objects=store.objects[store.objects["split"] != split])


def judged_from(store: Store, **evaluation) -> Store:
    return replace(store, manifest=store.manifest.model_copy(update={"evaluation": evaluation}))


def test_what_can_be_done_is_no_problem(store):
    assert Requirements(store).problems(config(eval={"every": 2, "lpips": "alex"}, depth={"model": "oracle"})) == []


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"data": {"resolution": 64}}, "data.resolution 64: dataset 'chairs' has images of 32 px"),
        (
            {"train": {"views_per_object": 7}},
            "train.views_per_object 7: object 'chair_00000' of the",
        ),
        ({"train": {"batch_size": 4}}, "train.batch_size 4: the train split has 3 objects, which is the most"),
        ({"model": {"input_views": 7}, "train": {"views_per_object": 7}}, "model.input_views 7: object 'chair_00000'"),
    ],
)
def test_requirements_beyond_the_training_split_are_problems(store, sections, problem):
    found = Requirements(store).problems(config(**sections))
    assert any(entry.startswith(problem) for entry in found), found


@pytest.mark.parametrize(
    ("split", "sections", "problem"),
    [
        ("train", {}, "data.name chairs: there is nothing to train on; it has 1 in val, 2 in test"),
        ("test", {}, "eval.split test: the dataset has no objects in the test split; it has 3 in train, 1 in val"),
        ("val", {"eval": {"split": "val"}}, "eval.split val: the dataset has no objects in the val split"),
        ("val", {"eval": {"every": 2}}, "eval.every 2: the dataset has no objects in the val split"),
    ],
)
def test_a_split_without_objects(store, split, sections, problem):
    (found,) = Requirements(without(store, split)).problems(config(**sections))
    assert found.startswith(problem)
    assert Requirements(without(store, "val")).problems(config()) == [], "nobody asks for that one"


def test_source_frames_of_the_protocol_that_are_not_there(store):
    protocol = judged_from(store, source_frames=[64, 128])
    (found,) = Requirements(protocol).problems(config())
    assert found.startswith("eval.split test: source frame 64 is not within the 6 frames of object 'chair_00004'")
    found = Requirements(protocol).problems(config(model={"name": "blank", "input_views": 3}))
    assert "3 input views requested, which is not within source_frames [64, 128]" in found[0]
    only_first = judged_from(store, source_frame=0, objects={"chair_00005": 99})
    assert Requirements(only_first).problems(config(eval={"objects": 1})) == [], "the first object alone is judged"
    assert len(Requirements(only_first).problems(config())) == 1


def test_frozen_models_see_the_sources_of_all_objects(store):
    """This holds whatever the evaluation uses, because their features are computed once for all trials."""
    odd = judged_from(store, source_frame=0, objects={"chair_00005": 99})
    sections = {"eval": {"objects": 1}, "depth": {"model": "midas_small"}}
    (found,) = Requirements(odd).problems(config(**sections))
    assert found.startswith("depth.model midas_small: source frame 99 is not within")
    assert Requirements(odd).problems(config(eval={"objects": 1}, depth={"model": "constant"})) == []


def test_views_that_are_all_sources_leave_nothing_to_evaluate(store):
    (found,) = Requirements(store).problems(config(model={"name": "blank", "input_views": 6}))
    assert "has views beside its 6 sources" in found


def test_a_scene_before_the_near_plane_is_refused_where_gaussians_are_drawn(store):
    def of(near, far, **facts):
        return replace(store, manifest=store.manifest.model_copy(update={"near": near, "far": far, **facts}))

    (found,) = Requirements(of(0.05, 0.15)).problems(config())
    assert found.startswith("data.name chairs: its depth bounds are 0.05 and 0.15 scene units, and rasterisers draw no")
    assert "leave out data.options.normalised: false" in found
    field = {"name": "pixelnerf", "pretrained": False}
    assert Requirements(of(0.05, 0.15)).problems(config(model=field)) == []
    assert Requirements(of(0.1, 3.9)).problems(config()) == []
    assert Requirements(of(-2.0, 2.0, bounds_from_origin=True)).problems(config()) == []


@pytest.mark.parametrize("model", ["oracle", "oracle_noisy"])
def test_depth_that_the_dataset_does_not_have(store, model):
    (found,) = Requirements(replace(store, depth=None)).problems(config(depth={"model": model}))
    assert found.startswith(
        f"depth.model {model}: it reads the dataset's own depth, and chairs as it is prepared has none"
    )


def test_a_trial_refuses_before_it_trains(home):
    wanted = config(train={"views_per_object": 8})
    with pytest.raises(TrialFailedError, match=r"train.views_per_object 8: object 'chair_00000'"):
        run_trial(wanted, home)
    (folder,) = (home / "trials").iterdir()
    assert trial_status(folder) == "failed"
    assert "train/loss" not in (folder / "journal.jsonl").read_text()


def test_planning_refuses_all_rows_at_once_and_names_them(home, tmp_path):
    (tmp_path / "own.yaml").write_text(
        "name: own\n"
        "base:\n"
        "  data: {name: chairs, resolution: 32, options: {train: 3, val: 1, test: 2, views: 6, image_size: 32,"
        " supersampling: 1}}\n"
        "  model: {base_dim: 8, num_blocks: 1, channel_mult: [1, 2], attention_resolutions: [8]}\n"
        "  train: {batch_size: 2, views_per_object: 4, stages: [{iterations: 4, lr: 1e-4, losses: {l2: 1.0}}]}\n"
        "  eval: {lpips: alex}\n"
        "trials:\n"
        "  base: {}\n"
        "  more_views: {train.views_per_object: 8}\n"
        "  again: {train.views_per_object: 8, train.stages.0.lr: 1.0e-3}\n"
        "  large: {train.batch_size: 9}\n"
    )
    with pytest.raises(PlanError) as caught:
        make_plan(load_sweep(tmp_path / "own.yaml"), home)
    first, second = str(caught.value).splitlines()
    assert first.startswith("train.views_per_object 8:")
    assert first.endswith("(required by more_views, again)")
    assert second.startswith("train.batch_size 9:")
    assert second.endswith("(required by large)")


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"depth": {"model": "oracle", "resolution": 64}}, "depth.resolution 64 for a depth control; allowed: null"),
        ({"depth": {"model": "constant", "resolution": 64}}, "depth.resolution 64 for a depth control"),
        (
            {"depth": {"model": "dpt_large", "resolution": 100}},
            "depth.resolution 100 for dpt_large; allowed: mult",
        ),
        (
            {"depth": {"model": "random", "resolution": 100, "options": {"of": "depth_anything_v2_small"}}},
            "depth.resolution 100 for depth_anything_v2_small; allowed: multiples of 14",
        ),
        ({"semantic": {"encoder": "dinov2_small", "resolution": 100}}, "semantic.resolution 100 for dinov2_small"),
        ({"semantic": {"encoder": "clip_vit_b32", "resolution": 100}}, "allowed: multiples of 32"),
        (
            {"semantic": {"encoder": "random", "resolution": 100, "options": {"of": "clip_vit_l14"}}},
            "semantic.resolution 100 for clip_vit_l14; allowed: multiples of 14",
        ),
    ],
)
def test_what_a_frozen_model_refuses_is_refused_at_validation(section, reason):
    with pytest.raises(ValueError, match=reason):
        TrialConfig.model_validate(section)


def test_a_metric_needs_its_truth_in_the_dataset(store):
    chosen = config(eval={"metrics": ["psnr", "iou", "abs_rel"]})
    assert Requirements(store).problems(chosen) == []
    (problem,) = Requirements(replace(store, mask=None)).problems(chosen)
    assert problem == (
        "eval.metrics iou: dataset 'chairs' has no mask; allowed: psnr, ssim, lpips, dists, abs_rel, delta1"
    )
    assert Requirements(replace(store, mask=None)).problems(config(model={"name": "blank"})) == []
