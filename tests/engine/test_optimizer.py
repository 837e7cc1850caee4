import pytest
import torch
from torch import nn

from ovrs.config import ConfigError
from ovrs.engine import build_model
from ovrs.engine.optimizer import build_optimizer, gradient_clipper, learning_rate_factor, parameter_groups


def test_groups_hold_every_trained_parameter_once_with_its_rate_and_decay(tiny_cfg):
    solver = tiny_cfg.SOLVER
    solver.BASE_LR, solver.VLM_MULTIPLIER, solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM = 0.1, 0.5, 0.3, 0.2
    model = build_model(tiny_cfg)
    found = {}
    for group in parameter_groups(model, tiny_cfg):
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr"], group["weight_decay"])

    norms = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm))
        for part in ("weight", "bias")
    }
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"vlm", "head"}
    assert norms & set(trained)
    for name, parameter in trained.items():
        rate = 0.05 if name.startswith("vlm.") else 0.1
        decay = 0.2 if name in norms else 0.3
        assert found.pop(id(parameter)) == (pytest.approx(rate), decay), name
    assert not found


def test_a_trained_prior_learns_at_its_own_rate(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.FINETUNE = "full"
    tiny_cfg.SOLVER.PRIOR_MULTIPLIER = 0.25
    model = build_model(tiny_cfg)
    rates = {id(p): group["lr"] for group in parameter_groups(model, tiny_cfg) for p in group["params"]}
    assert {rates[id(p)] for p in model.prior.parameters()} == {tiny_cfg.SOLVER.BASE_LR * 0.25}


def test_biases_decay_like_weights_unless_told_otherwise(tiny_cfg):
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert len(parameter_groups(model, tiny_cfg)) == 2
    tiny_cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.5
    decays = {id(p): group["weight_decay"] for group in parameter_groups(model, tiny_cfg) for p in group["params"]}
    assert decays[id(model[0].bias)] == 0.5
    assert decays[id(model[0].weight)] == tiny_cfg.SOLVER.WEIGHT_DECAY
    assert decays[id(model[1].bias)] == tiny_cfg.SOLVER.WEIGHT_DECAY_NORM


@pytest.mark.parametrize(("name", "expected"), [("AdamW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_known_optimizers_are_built_with_their_settings(tiny_cfg, name, expected):
    tiny_cfg.SOLVER.OPTIMIZER = name
    tiny_cfg.SOLVER.BETAS, tiny_cfg.SOLVER.MOMENTUM = [0.8, 0.9], 0.7
    optimizer = build_optimizer(nn.Linear(2, 2), tiny_cfg)
    assert type(optimizer) is expected
    key, value = ("betas", (0.8, 0.9)) if name == "AdamW" else ("momentum", 0.7)
    assert optimizer.param_groups[0][key] == value


def test_unknown_optimizer_lists_the_known_ones(tiny_cfg):
    tiny_cfg.SOLVER.OPTIMIZER = "Adam"
    with pytest.raises(ConfigError, match=r"SOLVER\.OPTIMIZER is 'Adam'.*AdamW, SGD"):
        build_optimizer(nn.Linear(2, 2), tiny_cfg)


def test_nothing_to_train_is_an_error(tiny_cfg):
    with pytest.raises(ConfigError, match="every parameter is frozen"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), tiny_cfg)


def test_cosine_falls_from_one_through_half_to_zero(tiny_cfg):
    tiny_cfg.SOLVER.LR_SCHEDULER_NAME, tiny_cfg.SOLVER.MAX_ITER = "cosine", 100
    factor = learning_rate_factor(tiny_cfg)
    assert [factor(i) for i in (0, 25, 50, 100)] == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0])


def test_poly_is_zero_at_the_last_iteration(tiny_cfg):
    tiny_cfg.SOLVER.LR_SCHEDULER_NAME, tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.POLY_POWER = "poly", 101, 0.9
    factor = learning_rate_factor(tiny_cfg)
    assert [factor(i) for i in (0, 50, 100)] == pytest.approx([1, 0.5**0.9, 0])


def test_warm_up_rises_linearly_to_the_schedule(tiny_cfg):
    solver = tiny_cfg.SOLVER
    solver.LR_SCHEDULER_NAME, solver.MAX_ITER, solver.WARMUP_ITERS, solver.WARMUP_FACTOR = "constant", 100, 10, 0.2
    factor = learning_rate_factor(tiny_cfg)
    assert [factor(i) for i in (0, 5, 10, 99)] == pytest.approx([0.2, 0.6, 1, 1])


def test_unknown_schedule_lists_the_known_ones(tiny_cfg):
    tiny_cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    with pytest.raises(ConfigError, match=r"'WarmupMultiStepLR'.*cosine, poly, constant"):
        learning_rate_factor(tiny_cfg)


def parameters_with_gradients() -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    return parameters


def test_full_model_clipping_bounds_the_norm_over_all_parameters(tiny_cfg):
    tiny_cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    parameters = parameters_with_gradients()
    norm = gradient_clipper(tiny_cfg)(iter(parameters))
    assert norm == pytest.approx(5)
    assert [p.grad.item() for p in parameters] == pytest.approx([0.6, -0.8], abs=1e-5)


def test_value_clipping_bounds_every_element(tiny_cfg):
    tiny_cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, tiny_cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = "value", 3.5
    parameters = parameters_with_gradients()
    gradient_clipper(tiny_cfg)(iter(parameters))
    assert [p.grad.item() for p in parameters] == [3.0, -3.5]


def test_clipping_can_be_switched_off(tiny_cfg):
    tiny_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    parameters = parameters_with_gradients()
    gradient_clipper(tiny_cfg)(iter(parameters))
    assert [p.grad.item() for p in parameters] == [3.0, -4.0]


def test_unknown_clip_type_lists_the_known_ones(tiny_cfg):
    tiny_cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    with pytest.raises(ConfigError, match=r"CLIP_TYPE is 'norm'.*full_model, value"):
        gradient_clipper(tiny_cfg)
