import numpy as np
import pandas as pd
import pytest

from jobs.data.sampling import evaluation_frames, training_frames, training_pixels


@pytest.fixture
def objects() -> pd.DataFrame:
    """Seven objects with 5..11 frames each."""
    counts = np.arange(5, 12)
    firsts = np.concatenate([[100], 100 + counts.cumsum()[:-1]])
    names = [f"object {i}" for i in range(7)]
    return pd.DataFrame({"object": names, "first_frame": firsts, "num_frames": counts})


def owners(objects: pd.DataFrame, frames: np.ndarray) -> np.ndarray:
    """The row index of the object of each frame."""
    return np.searchsorted(objects["first_frame"].to_numpy(), frames, side="right") - 1


def draw(objects: pd.DataFrame, iteration: int, seed: int = 3) -> np.ndarray:
    return training_frames(objects, seed=seed, iteration=iteration, batch_size=3, views=4)


def test_a_step_depends_on_seed_and_iteration_alone(objects):
    in_order = [draw(objects, i) for i in range(30)]
    for i in (29, 0, 17, 17):  # any order, any number of times
        np.testing.assert_array_equal(draw(objects, i), in_order[i])


def test_seeds_and_iterations_differ(objects):
    assert not np.array_equal(draw(objects, 0), draw(objects, 0, seed=4))
    assert not np.array_equal(draw(objects, 0), draw(objects, 1))


def test_the_draws_of_a_step_never_move(objects):
    """Keys stand for them: where this fails, raise `NUMERICS_VERSION`."""
    assert draw(objects, 2).tolist() == [[103, 102, 101, 100], [127, 132, 126, 129], [119, 123, 125, 118]]
    views, places = training_pixels(seed=3, iteration=2, batch_size=1, views=9, pixels=2)
    assert views.tolist() == [[2, 7]]
    np.testing.assert_allclose(places[0], [[0.67149276, 0.41939289], [0.49090767, 0.69229746]], rtol=1e-6)


def test_every_object_is_drawn_once_per_epoch_across_batches(objects):
    # 7 steps of 3 objects are 3 epochs of 7; no epoch ends with a batch.
    drawn = np.concatenate([owners(objects, draw(objects, i)[:, 0]) for i in range(7)])
    epochs = drawn.reshape(3, 7)
    for epoch in epochs:
        assert sorted(epoch) == list(range(7))
    assert not (epochs[0] == epochs[1]).all()


def test_a_batch_may_be_larger_than_the_split(objects):
    frames = training_frames(objects, seed=0, iteration=0, batch_size=14, views=2)
    assert sorted(owners(objects, frames[:, 0])) == sorted([*range(7), *range(7)])


def test_frames_are_distinct_and_of_one_object(objects):
    for i in range(50):
        for row in draw(objects, i):
            assert len(set(row)) == 4
            assert len(set(owners(objects, row))) == 1
            assert row.dtype == np.int64


def test_every_frame_becomes_a_source(objects):
    sources = {int(f) for i in range(400) for f in draw(objects, i)[:, 0]}
    assert sources == set(range(100, 100 + int(objects["num_frames"].sum())))


def test_too_few_frames_are_refused_by_name(objects):
    with pytest.raises(ValueError, match=r"6 views .* 'object 0' has 5 frames"):
        training_frames(objects, seed=0, iteration=0, batch_size=1, views=6)


def test_evaluation_takes_the_source_first_and_the_others_in_order(objects):
    frames = evaluation_frames(objects.iloc[1], {"source_frame": 2})
    first = int(objects["first_frame"].iloc[1])
    np.testing.assert_array_equal(frames - first, [2, 0, 1, 3, 4, 5])


def test_evaluation_refuses_a_source_outside_the_object(objects):
    for protocol in ({"source_frame": 5}, {"source_frames": [5]}, {"source_frame": -1}):
        with pytest.raises(ValueError, match=r"source frame (5|-1) is not within the 5 frames of object 'object 0'"):
            evaluation_frames(objects.iloc[0], protocol)


def test_published_sources_keep_their_order(objects):
    protocol, first = {"source_frames": [4, 1]}, int(objects["first_frame"].iloc[1])
    np.testing.assert_array_equal(evaluation_frames(objects.iloc[1], protocol) - first, [4, 0, 1, 2, 3, 5])
    np.testing.assert_array_equal(evaluation_frames(objects.iloc[1], protocol, 2) - first, [4, 1, 0, 2, 3, 5])
    with pytest.raises(ValueError, match=r"3 input views .* source_frames \[4, 1\]"):
        evaluation_frames(objects.iloc[1], protocol, 3)


def test_further_sources_go_evenly_around(objects):
    row, first = objects.iloc[3], int(objects["first_frame"].iloc[3])  # 8 frames
    np.testing.assert_array_equal(evaluation_frames(row, {"source_frame": 0}, 2) - first, [0, 4, 1, 2, 3, 5, 6, 7])
    np.testing.assert_array_equal(evaluation_frames(row, {"source_frame": 6}, 4) - first, [6, 0, 2, 4, 1, 3, 5, 7])
    with pytest.raises(ValueError, match=r"9 input views .* 8 frames of object 'object 3'"):
        evaluation_frames(row, {"source_frame": 0}, 9)


def test_objects_may_have_a_source_of_their_own(objects):
    protocol = {"source_frame": 1, "objects": {"object 2": 5}}
    firsts = objects["first_frame"]
    assert evaluation_frames(objects.iloc[2], protocol)[0] - firsts[2] == 5
    assert evaluation_frames(objects.iloc[3], protocol)[0] - firsts[3] == 1


def test_sources_in_training_are_the_first_of_the_targets(objects):
    draws = {"seed": 3, "iteration": 2, "batch_size": 3, "views": 5}
    np.testing.assert_array_equal(
        training_frames(objects, **draws, input_views=2), training_frames(objects, **draws, input_views=1)
    )
    with pytest.raises(ValueError, match="6 input views of 5 views"):
        training_frames(objects, **draws, input_views=6)


def test_sources_apart_stand_in_front_and_the_others_are_drawn_like_without_them():
    objects = pd.DataFrame({"object": ["a", "b"], "first_frame": [0, 6], "num_frames": [6, 6]})
    draws = {"seed": 1, "iteration": 4, "batch_size": 2, "views": 4}
    frames = training_frames(objects, **draws, input_views=2, sources_apart=True)
    assert frames.shape == (2, 6)
    for row in frames:
        assert len(set(row[:2])) == 2
        assert len(set(row[2:])) == 4
    assert training_frames(objects, **draws, input_views=6, sources_apart=True).shape == (2, 10)


def test_places_of_pixels_are_parts_of_a_rectangle():
    draws = {"iteration": 2, "batch_size": 3, "views": 4, "pixels": 50}
    view, place = training_pixels(seed=1, **draws)
    assert view.shape == (3, 50)
    assert set(view.ravel()) == {0, 1, 2, 3}
    assert place.shape == (3, 50, 2)
    assert 0 <= place.min() < 0.05
    assert 0.95 < place.max() < 1
    assert (training_pixels(seed=2, **draws)[1] != place).any()
