"""Patch embeddings as products: the values and gradients of the convolution, and the convolution where it is one."""

from __future__ import annotations

import torch

from cwdpo.model.patches import embed_patches_by_product


def test_a_patch_is_embedded_as_the_convolution_does_it() -> None:
    plain = torch.nn.Conv3d(3, 7, kernel_size=(2, 4, 4), stride=(2, 4, 4))
    product = torch.nn.Sequential(torch.nn.Conv3d(3, 7, kernel_size=(2, 4, 4), stride=(2, 4, 4)))
    product.load_state_dict({f"0.{name}": value for name, value in plain.state_dict().items()})
    embed_patches_by_product(product)
    patches = torch.randn(11, 3, 2, 4, 4, requires_grad=True)
    expected, found = plain(patches), product(patches)
    assert found.shape == expected.shape == (11, 7, 1, 1, 1)
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn_like(found)
    grads = [torch.autograd.grad((values * weights).sum(), patches)[0] for values in (expected, found)]
    assert torch.allclose(*grads, atol=1e-5)


def test_what_is_more_than_a_patch_is_convolved() -> None:
    module = torch.nn.Sequential(torch.nn.Conv3d(1, 2, kernel_size=2, stride=2, bias=False))
    image = torch.randn(1, 1, 4, 4, 4)
    expected = module(image)
    embed_patches_by_product(module)
    assert torch.equal(module(image), expected)
    assert expected.shape == (1, 2, 2, 2, 2)


def test_overlapping_kernels_are_left_alone() -> None:
    module = torch.nn.Sequential(torch.nn.Conv3d(1, 2, kernel_size=2, stride=1))
    embed_patches_by_product(module)
    assert "forward" not in vars(module[0])
