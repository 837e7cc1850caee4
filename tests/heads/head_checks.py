"""What holds for every head that turns cost volumes into logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from head_inputs import Inputs, in_double

from ovrs.heads import Head

# Biases that move all keys of a softmax, and so all its logits, alike: their gradients are zero but for rounding.
BLIND = ("attn.k.bias", "attn.norm_k.bias")  # in space ...
BLIND_CLASSES = ("classes.k.bias",)  # ... and over classes, where that attention is a softmax


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    actual, expected = actual.detach(), expected.detach()
    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def assert_trains_all_it_has(head: Head, inputs: Inputs, unread: Sequence[str] = ()) -> None:
    """One step of gradient descent changes every parameter but those whose names start with one of ``unread``."""
    own = {name: parameter for name, parameter in head.named_parameters() if not name.startswith(tuple(unread))}
    before = {name: parameter.detach().clone() for name, parameter in own.items()}
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    (head.train()(*inputs) * torch.randn(2, 3, 1, 1)).square().mean().backward()
    for name, parameter in own.items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    optimizer.step()
    still = [name for name, parameter in own.items() if torch.equal(parameter, before[name])]
    assert [name for name in still if not name.endswith(BLIND + BLIND_CLASSES)] == []


def assert_gradients_equal(
    head: Head, naive: Callable[..., torch.Tensor], inputs: Inputs, blind: Sequence[str]
) -> None:
    """The head's gradients are those of ``naive(head, *inputs)``, but for names that end with one of ``blind``.

    In float64: some are small differences of large sums.
    """
    head, inputs = head.double(), in_double(inputs)
    target = torch.randn_like(head(*inputs))
    gradients = [
        torch.autograd.grad((run(*inputs) * target).mean(), list(head.parameters()))
        for run in (head, lambda *parts: naive(head, *parts))
    ]
    for (name, _), fast, expected in zip(head.named_parameters(), *gradients, strict=True):
        if not name.endswith(tuple(blind)):
            assert (fast - expected).norm() <= 1e-3 * expected.norm(), name
            assert expected.norm() > 0, name
