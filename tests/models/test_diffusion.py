import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from models.diffusion import NoiseSchedule, add_noise, ddim_step, ddpm_step, predicted_x0

COSINE = NoiseSchedule("cosine", 1000, 1e-6, 0.01)
LINEAR = NoiseSchedule("linear", 2000, 1e-6, 0.01)
OPTIONS = {"clip_sample": True, "prediction_type": "epsilon"}


def test_cosine_golden_values():
    gammas = COSINE.alphas_cumprod(1000)
    assert gammas[0] == pytest.approx(0.9999587, abs=1e-7)
    assert gammas[500] == pytest.approx(0.49229, abs=1e-5)
    assert gammas[999] == pytest.approx(2.43e-9, rel=2e-3)
    assert COSINE.alphas_cumprod(100)[0] == pytest.approx(0.99937, abs=1e-5)


def test_linear_golden_values():
    assert LINEAR.alphas_cumprod(2000)[-1] == pytest.approx(4.4e-5, rel=0.02)
    for steps in (10, 50, 250, 1000):
        assert LINEAR.alphas_cumprod(steps)[-1] < 5e-5, "fewer steps must end in noise too"


@pytest.mark.parametrize("schedule, name", [(COSINE, "squaredcos_cap_v2"), (LINEAR, "linear")])
def test_schedules_are_those_of_diffusers(schedule, name):
    theirs = DDPMScheduler(schedule.timesteps, beta_start=1e-6, beta_end=0.01, beta_schedule=name)
    assert torch.allclose(schedule.alphas_cumprod(schedule.timesteps).float(), theirs.alphas_cumprod, atol=2e-6)


@pytest.mark.parametrize("step", [0, 1, 17, 49])
def test_steps_are_those_of_diffusers(step):
    options = {"beta_schedule": "squaredcos_cap_v2", **OPTIONS}
    gammas = COSINE.alphas_cumprod(50).tolist()
    gamma, gamma_next = gammas[step], gammas[step - 1] if step else 1.0
    x_t, output = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    epsilon = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(2))
    x0 = predicted_x0(output, "epsilon", x_t, gamma)

    ddpm = DDPMScheduler(50, variance_type="fixed_small", **options)
    theirs = ddpm.step(output, step, x_t, generator=torch.Generator().manual_seed(2)).prev_sample
    assert torch.allclose(ddpm_step(x_t, x0, gamma, gamma_next, epsilon), theirs, atol=2e-5)

    ddim = DDIMScheduler(50, set_alpha_to_one=True, **options)
    ddim.set_timesteps(50)
    theirs = ddim.step(output, step, x_t, use_clipped_model_output=True).prev_sample
    assert torch.allclose(ddim_step(x_t, x0, gamma, gamma_next), theirs, atol=2e-5)


def test_the_last_step_gives_x0_exactly():
    x_t, x0, epsilon = torch.randn(3, 1, 3, 8, 8)
    assert torch.equal(ddpm_step(x_t, x0, 0.999, 1.0, epsilon), x0)
    assert torch.equal(ddim_step(x_t, x0, 0.999, 1.0), x0)


def test_both_predictions_recover_x0():
    x0, epsilon = torch.rand(1, 3, 8, 8) * 2 - 1, torch.randn(1, 3, 8, 8)
    x_t = add_noise(x0, epsilon, 0.3)
    assert torch.allclose(predicted_x0(epsilon, "epsilon", x_t, 0.3), x0, atol=1e-6)
    assert torch.equal(predicted_x0(x0, "x0", x_t, 0.3), x0)
