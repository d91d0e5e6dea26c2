import numpy as np

from jobs.data.meshes.geometry import describe_shape, group_shapes


def test_only_objects_with_an_equal_number_of_triangles_are_described():
    generator = np.random.default_rng(0)
    corners = {name: generator.random((size, 3, 3)) for name, size in {"a": 2, "b": 3, "c": 2, "d": 4}.items()}
    corners["e"] = 5 * corners["a"][::-1] + 1
    described = []

    def describe(name: str) -> np.ndarray:
        described.append(name)
        return describe_shape(corners[name])

    sizes = {name: len(triangles) for name, triangles in corners.items()} | {"f": None, "g": None}
    assert group_shapes(sizes, describe) == {name: name for name in "abcdfg"} | {"e": "a"}
    assert described == ["a", "c", "e"]
