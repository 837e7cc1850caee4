import pytest
import torch
import torch.nn.functional as F
from heads.head_inputs import filled
from heads.hg_reference import naive_attention

from ovrs.heads.blocks.text_attention import TextAttention

CHANNELS, TEXT, KEYS = 16, 24, 20


@pytest.fixture
def attention() -> TextAttention:
    return filled(TextAttention(CHANNELS, TEXT, KEYS)).double()


def make_inputs(classes: int, grid: tuple[int, int] = (5, 7)) -> tuple[torch.Tensor, torch.Tensor]:
    text = F.normalize(torch.randn(classes, TEXT, dtype=torch.float64), dim=-1)
    return torch.randn(2, CHANNELS, *grid, dtype=torch.float64), text


def all_guidance(attention: TextAttention, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return attention.guidance(attention(image, text), slice(None))


# At scale 1 the second norm sees variances far above its epsilon, at 1e-3 far below it: both regimes are in use.
@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("classes", [2, 5, 40])
def test_factored_form_and_its_gradients_equal_the_published_one(attention, classes, scale):
    with torch.no_grad():
        attention.mix.weight.mul_(scale)
    image, text = make_inputs(classes)
    image.requires_grad_()
    wanted = [image, *attention.parameters()]
    actual = all_guidance(attention, image, text)
    expected = naive_attention(attention, image, text).unflatten(0, (2, classes))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)

    weights = torch.randn_like(actual)
    actual_gradients = torch.autograd.grad((actual * weights).sum(), wanted, allow_unused=True)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), wanted)
    for (name, _), one, other in zip(
        [("image", None), *attention.named_parameters()], actual_gradients, expected_gradients, strict=True
    ):
        one = torch.zeros_like(other) if one is None else one
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", ["query", "key", "mix"])
def test_biases_that_the_norms_and_the_softmax_remove_change_nothing(attention, name):
    image, text = make_inputs(4)
    before = all_guidance(attention, image, text)
    with torch.no_grad():
        getattr(attention, name).bias.add_(0.5)
    torch.testing.assert_close(all_guidance(attention, image, text), before)


def test_guidance_of_some_classes_is_a_part_of_the_guidance_of_all(attention):
    image, text = make_inputs(6)
    attended = attention(image, text)
    together = attention.guidance(attended, slice(None))
    torch.testing.assert_close(attention.guidance(attended, slice(2, 5)), together[:, 2:5])


def test_classes_compete_so_another_class_changes_the_guidance(attention):
    image, text = make_inputs(4)
    assert not torch.allclose(all_guidance(attention, image, text)[:, :3], all_guidance(attention, image, text[:3]))


def test_a_single_class_has_no_competition_and_gets_constant_guidance(attention):
    image, text = make_inputs(1)
    guidance = all_guidance(attention, image, text)
    constant = F.gelu(attention.fuse.bias)[:, None, None].expand_as(guidance)
    torch.testing.assert_close(guidance, constant, atol=1e-7, rtol=0)


def test_norms_stay_in_fp32_under_bf16(attention):
    attention.float()
    image, text = (x.float() for x in make_inputs(3))
    reference = attention(image, text)
    with torch.autocast("cpu", torch.bfloat16):
        attended = attention(image, text)
        guidance = attention.guidance(attended, slice(None))
    for one, other in zip(attended, reference, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(guidance, attention.guidance(reference, slice(None)), atol=0.05, rtol=0.05)
