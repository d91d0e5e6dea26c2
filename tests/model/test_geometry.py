import math

import torch
from scipy.spatial.transform import Rotation

from model.geometry import invert_rigid, matrix_to_quaternion, pixel_rays, quaternion_multiply, rotate_sh1


def random_rotations(count: int, seed: int = 0) -> Rotation:
    return Rotation.random(count, random_state=seed)


def real_first(rotations: Rotation) -> torch.Tensor:
    return torch.from_numpy(rotations.as_quat()[:, [3, 0, 1, 2]].copy())


def test_rays_go_through_pixel_centres():
    rays = pixel_rays(2, 4, torch.tensor([8.0, 4.0]), torch.tensor([2.0, 1.0]))
    assert rays.shape == (3, 2, 4)
    assert rays[:, 0, 0].tolist() == [-1.5 / 8, -0.5 / 4, 1.0]
    assert rays[:, 1, 3].tolist() == [1.5 / 8, 0.5 / 4, 1.0]


def test_inverse_of_a_rigid_transform():
    transform = torch.eye(4).double().repeat(5, 1, 1)
    transform[:, :3, :3] = torch.from_numpy(random_rotations(5).as_matrix())
    transform[:, :3, 3] = torch.randn(5, 3).double()
    torch.testing.assert_close(invert_rigid(transform) @ transform, torch.eye(4).double().expand(5, 4, 4))


def test_quaternions_of_random_rotations_and_of_half_turns():
    half_turns = Rotation.from_rotvec(math.pi * torch.eye(3).numpy())
    for rotations in (random_rotations(200), half_turns):
        found = matrix_to_quaternion(torch.from_numpy(rotations.as_matrix()))
        expected = real_first(rotations)
        same = torch.minimum((found - expected).abs().amax(-1), (found + expected).abs().amax(-1))
        assert same.max() < 1e-12


def test_quaternion_product_is_the_product_of_rotations():
    a, b = random_rotations(20, 1), random_rotations(20, 2)
    found = quaternion_multiply(real_first(a), real_first(b))
    expected = real_first(a * b)
    assert torch.minimum((found - expected).abs().amax(-1), (found + expected).abs().amax(-1)).max() < 1e-12


def test_rotating_harmonics_turns_the_function_that_they_are():
    rotation = torch.from_numpy(random_rotations(1).as_matrix()[0].copy())
    sh = torch.randn(3, 3).double()
    directions = torch.nn.functional.normalize(torch.randn(10, 3).double(), dim=-1)

    def evaluate(coefficients: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        # The degree-1 band of the rasteriser's convention: -y, z, -x.
        basis = torch.stack([-d[:, 1], d[:, 2], -d[:, 0]], -1)
        return basis @ coefficients

    rotated = evaluate(rotate_sh1(sh, rotation), directions @ rotation.T)
    torch.testing.assert_close(rotated, evaluate(sh, directions))


def test_quaternions_are_those_of_the_reference(fixtures):
    reference = torch.load(fixtures / "cameras.pt", weights_only=True)
    camera_to_world = reference["v2w_T"].double().transpose(-1, -2)
    found, expected = matrix_to_quaternion(camera_to_world[:, :3, :3]), reference["quat_abs"].double()
    # The reference fixes no sign either, and is ill-conditioned at its three half turns.
    assert torch.minimum((found - expected).abs().amax(-1), (found + expected).abs().amax(-1)).max() < 2e-3
    product = reference["quat_mul"]
    torch.testing.assert_close(quaternion_multiply(product["a"], product["b"]), product["ab"])
