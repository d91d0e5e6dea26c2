import torch

from model.losses.ssim import Ssim, ssim
from model.types import Rendering


def test_gradient_is_the_references(reference, weights, ordinary):
    # The reference stores the gradient of SSIM itself.
    render = reference["img1"].clone().requires_grad_()
    Ssim(weights)(Rendering(render[None]), Rendering(reference["img2"][None]), ordinary).backward()
    torch.testing.assert_close(-render.grad, reference["f32"]["ssim_grad"], rtol=1e-3, atol=1e-8)


def test_gradient_is_that_of_finite_differences(weights, ordinary):
    generator = torch.Generator().manual_seed(0)
    render, target = (torch.rand(1, 2, 12, 12, generator=generator).double() for _ in range(2))
    loss = Ssim(weights)
    assert torch.autograd.gradcheck(
        lambda x: loss(Rendering(x[None]), Rendering(target[None]), ordinary),
        (render.requires_grad_(),),
        fast_mode=True,
    )


def test_matches_a_direct_sum_over_one_window(weights, ordinary):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, 1, 11, 11, generator=generator).double() for _ in range(2))
    offsets = torch.arange(-5, 6).double()
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def at(row, column):
        """SSIM at a pixel, computed with zero padding around the image."""
        padded = [torch.nn.functional.pad(z, (5, 5, 5, 5))[0, 0, row : row + 11, column : column + 11] for z in (x, y)]
        (mx, my), (a, b) = [(window * z).sum() for z in padded], padded
        vx, vy, cov = (window * a * a).sum() - mx**2, (window * b * b).sum() - my**2, (window * a * b).sum() - mx * my
        return (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))

    expected = torch.stack([at(row, column) for row in range(11) for column in range(11)]).mean()
    torch.testing.assert_close(ssim(x, y)[0], expected)
    torch.testing.assert_close(Ssim(weights)(Rendering(x[None]), Rendering(y[None]), ordinary), 1 - expected)
