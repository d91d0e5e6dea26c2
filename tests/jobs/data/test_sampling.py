import numpy as np
import pandas as pd
import pytest

from jobs.data.sampling import evaluation_frames, training_frames


@pytest.fixture
def objects() -> pd.DataFrame:
    """Seven objects with 5..11 frames each."""
    counts = np.arange(5, 12)
    firsts = np.concatenate([[100], 100 + counts.cumsum()[:-1]])
    names = [f"object {i}" for i in range(7)]
    return pd.DataFrame({"object": names, "first_frame": firsts, "num_frames": counts})


def owners(objects: pd.DataFrame, frames: np.ndarray) -> np.ndarray:
    """The row of the object that each frame belongs to."""
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


def test_every_object_comes_once_an_epoch_across_batch_borders(objects):
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
    with pytest.raises(ValueError, match=r"source_frame 5 .* 5 frames"):
        evaluation_frames(objects.iloc[0], {"source_frame": 5})
