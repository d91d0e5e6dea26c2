import math

import torch
from scipy.spatial.transform import Rotation

from model.geometry import invert_rigid, matrix_to_quaternion, pixel_rays, quaternion_multiply, rotate_sh1
from model.official import PUBLISHED


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

    rotated = evaluate(rotate_sh1(sh[None], rotation)[0], directions @ rotation.T)
    torch.testing.assert_close(rotated, evaluate(sh, directions))


def test_the_real_part_is_positive():
    found = matrix_to_quaternion(torch.from_numpy(random_rotations(200).as_matrix()))
    expected = torch.from_numpy(random_rotations(200).as_quat(canonical=True)[:, [3, 0, 1, 2]].copy())
    torch.testing.assert_close(found, expected)


def test_quaternions_are_those_of_the_reference(fixtures):
    reference = torch.load(fixtures / "cameras.pt", weights_only=True)
    for matrices, quaternions in (
        (reference["v2w_T"], reference["quat_abs"]),
        (reference["relative"]["view_to_world_transforms"], reference["quat_rel"]),
    ):
        found = matrix_to_quaternion(matrices.double().transpose(-1, -2)[:, :3, :3])
        # The matrices are in single precision, and the reference's formula is ill-conditioned near half turns.
        assert (found - quaternions).abs().max() < 1e-5
    product = reference["quat_mul"]
    torch.testing.assert_close(quaternion_multiply(product["a"], product["b"]), product["ab"])


def test_cameras_are_those_of_the_reference(fixtures):
    reference = torch.load(fixtures / "cameras.pt", weights_only=True)
    world_to_view = reference["w2v_T"].double().transpose(-1, -2)
    view_to_world = invert_rigid(world_to_view)
    torch.testing.assert_close(view_to_world.transpose(-1, -2).float(), reference["v2w_T"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(view_to_world[:, :3, 3].float(), reference["centers"], atol=1e-6, rtol=1e-5)
    relative = reference["relative"]
    ours = (world_to_view @ view_to_world[0]).transpose(-1, -2).float()
    torch.testing.assert_close(ours, relative["world_view_transforms"], atol=5e-6, rtol=1e-5)
    # The origin's z in each camera, which is what CO3D's bounds of depth are counted from.
    torch.testing.assert_close(world_to_view[:, 2, 3].float(), reference["origin_distance_abs"], atol=1e-6, rtol=1e-5)


def test_rays_undo_the_reference_projection(fixtures):
    """Points that the reference projects onto a pixel's centre lie on our ray through that pixel."""
    reference = torch.load(fixtures / "cameras.pt", weights_only=True)
    side = 128
    focal = side / 2 * reference["proj_T_cars"].double()[(0, 1), (0, 1)]
    rays = pixel_rays(side, side, focal, torch.full((2,), side / 2).double()).flatten(1).T  # (HW, 3)
    clip = torch.cat([1.3 * rays, torch.ones(len(rays), 1).double()], dim=1) @ reference["proj_T_cars"].double()
    pixels = ((clip[:, :2] / clip[:, 3:] + 1) * side / 2).unflatten(0, (side, side))
    centres = torch.arange(side).double() + 0.5
    torch.testing.assert_close(pixels[..., 0], centres.expand(side, side), atol=1e-9, rtol=0)
    torch.testing.assert_close(pixels[..., 1], centres[:, None].expand(side, side), atol=1e-9, rtol=0)
    torch.testing.assert_close(focal[0].item(), PUBLISHED["cars"].focal(side), atol=1e-4, rtol=0)


def test_rotated_harmonics_agree_with_the_reference(fixtures):
    sh = torch.load(fixtures / "cameras.pt", weights_only=True)["sh"]
    coefficients, directions = sh["coeffs_rgb_by_coef"].double(), sh["dirs"].double()
    rotation = torch.from_numpy(random_rotations(len(directions)).as_matrix())
    turned = rotate_sh1(coefficients[..., 1:].transpose(1, 2)[:, None], rotation)[:, 0]  # (P, k, rgb)
    x, y, z = (rotation @ directions[..., None]).squeeze(-1)[..., None].unbind(1)
    colours = 0.28209479177387814 * coefficients[..., 0]
    colours += 0.4886025119029199 * (-y * turned[:, 0] + z * turned[:, 1] - x * turned[:, 2])
    torch.testing.assert_close(colours.float(), sh["eval_deg1"], atol=1e-6, rtol=1e-5)
