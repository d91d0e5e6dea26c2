import numpy as np
import torch

from model.methods.splatter_image.camera_embedding import POSE_CHANNELS, CameraMapping, embed_pose


def poses(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64).to(dtype)


def test_a_pose_becomes_waves_of_its_centre_and_its_z_axis(functional):
    found = embed_pose(poses())
    assert found.shape == (3, 2, POSE_CHANNELS)
    expected = functional.camera_embedding(poses().transpose(-1, -2).numpy())
    # The published frequencies are rounded to single precision.
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_frequencies_are_single_precision_in_any_precision():
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = 1.0  # its waves are then those of the frequencies themselves
    cosines, sines = embed_pose(pose)[:5], embed_pose(pose)[5:10]
    frequencies = torch.atan2(sines, cosines)
    torch.testing.assert_close(frequencies, 10_000.0 ** -(torch.arange(5).double() / 5), rtol=3e-7, atol=0)
    torch.testing.assert_close(frequencies, frequencies.float().double(), rtol=1e-14, atol=0)


def test_the_network_sees_the_halves_of_the_embedding_swapped():
    mapping, embedding = CameraMapping(6, 8), torch.arange(6.0)[None]
    swapped = CameraMapping(6, 8)
    swapped.load_state_dict(mapping.state_dict())
    with torch.no_grad():
        swapped.layer0.weight.copy_(mapping.layer0.weight.roll(3, dims=1))
    expected = torch.nn.functional.silu(swapped.layer0(embedding))
    torch.testing.assert_close(mapping(embedding), torch.nn.functional.silu(swapped.layer1(expected)))
