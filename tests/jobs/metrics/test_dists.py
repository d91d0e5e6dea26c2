import torch

from jobs.metrics.dists import shared_dists


def test_dists_is_that_of_the_package_that_its_authors_publish(weights):
    """The expected values are those of DISTS-pytorch 0.1 in double precision, with the same VGG16."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, 3, 48, 40, generator=generator)
    render = target + 0.2 * torch.randn(3, 3, 48, 40, generator=generator)
    render[1], render[2] = target[1].flip(-1), 0.5
    distance = shared_dists(weights)
    found = distance.between(distance.features(target), distance.features(render))
    expected = torch.tensor([0.101080449, 0.177042663, 0.534204425])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    same = distance.between(distance.features(target), distance.features(target))
    torch.testing.assert_close(same, torch.zeros(3), atol=1e-6, rtol=0)
