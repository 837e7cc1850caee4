"""ProxyCLIP's attention weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ovrs.heads.blocks.proxy_attention import proxy_attention


def test_weights_are_the_softmax_of_what_is_alike_enough():
    features = torch.randn(1, 16, 3, 4, generator=torch.Generator().manual_seed(0))
    patches = F.normalize(features[0].flatten(1).T, dim=-1)
    similarity = patches @ patches.T
    logits = 3.0 * (similarity - 1.2 * similarity.mean())
    logits[logits < 0] = -torch.inf
    torch.testing.assert_close(proxy_attention(features)[0], logits.softmax(dim=-1))


def test_images_of_a_batch_do_not_influence_each_other():
    features = torch.randn(3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    features[1] += 2  # another mean similarity
    alone = torch.cat([proxy_attention(one) for one in features.split(1)])
    torch.testing.assert_close(proxy_attention(features), alone)


def test_patches_that_are_all_alike_see_themselves():
    weights = proxy_attention(torch.ones(1, 8, 3, 3))  # cosine 1 everywhere, below 1.2 times the mean
    torch.testing.assert_close(weights[0], torch.eye(9))
