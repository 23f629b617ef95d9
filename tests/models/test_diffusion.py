import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from models.diffusion import NoiseSchedule, Step, add_noise, corrected, ddim_step, ddpm_step, multistep, predicted_x0

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
    x0 = predicted_x0(output, "epsilon", x_t, gamma).clamp(-1, 1)

    ddpm = DDPMScheduler(50, variance_type="fixed_small", **options)
    theirs = ddpm.step(output, step, x_t, generator=torch.Generator().manual_seed(2)).prev_sample
    assert torch.allclose(ddpm_step(x_t, x0, gamma, gamma_next, epsilon), theirs, atol=2e-5)

    ddim = DDIMScheduler(50, set_alpha_to_one=True, **options)
    ddim.set_timesteps(50)
    theirs = ddim.step(output, step, x_t, use_clipped_model_output=True).prev_sample
    assert torch.allclose(ddim_step(x_t, x0, gamma, gamma_next), theirs, atol=2e-5)


def pretended(output, x_t, gamma):
    """What a network might answer: it depends on all it is told."""
    return torch.sin(output + x_t * gamma**0.5 + 3 * gamma)


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
@pytest.mark.parametrize("schedule", [COSINE, LINEAR])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20, 50])
@pytest.mark.parametrize("sampler, theirs", [("dpm++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)])
def test_samplers_of_second_order_are_those_of_diffusers(sampler, theirs, steps, schedule, prediction):
    alphas_cumprod = schedule.alphas_cumprod(steps)
    scheduler = theirs(steps, beta_schedule="squaredcos_cap_v2", solver_order=2, timestep_spacing="trailing")
    scheduler.register_to_config(prediction_type="sample" if prediction == "x0" else "epsilon", final_sigmas_type="zero")
    scheduler.alphas_cumprod = alphas_cumprod
    scheduler.set_timesteps(steps)
    # They keep noise levels in single precision; it is the rule that is compared, not their rounding.
    scheduler.sigmas = torch.cat([((1 - alphas_cumprod) / alphas_cumprod).sqrt().flip(0), torch.zeros(1)])

    bias, ours = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other, before, earlier = ours, None, None
    for timestep in scheduler.timesteps:
        step = int(timestep)
        gamma, gamma_next = float(alphas_cumprod[step]), float(alphas_cumprod[step - 1]) if step else 1.0
        output = pretended(bias, ours, gamma)
        x0 = output if prediction == "x0" else (ours - (1 - gamma) ** 0.5 * output) / gamma**0.5
        now = Step(gamma, ours, x0)
        if sampler == "unipc":
            now = corrected(now, before, earlier)
        ours, before, earlier = multistep(now, before, gamma_next), now, before
        other = scheduler.step(pretended(bias, other, gamma), timestep, other).prev_sample
        assert torch.allclose(ours, other.double(), atol=1e-5, rtol=1e-5)


def test_second_order_comes_nearer_with_few_steps():
    """Of Gaussian data, whose x0 is known in closed form, all samplers have the same limit."""
    variance, start = 0.04, torch.linspace(-2, 2, 101, dtype=torch.float64)

    def sampled(sampler, steps):
        x_t, before, earlier = start, None, None
        gammas = COSINE.alphas_cumprod(steps).tolist()
        for gamma, gamma_next in zip(reversed(gammas), [*reversed(gammas[:-1]), 1.0], strict=True):
            now = Step(gamma, x_t, gamma**0.5 * variance / (gamma * variance + 1 - gamma) * x_t)
            if sampler == "unipc":
                now = corrected(now, before, earlier)
            x_t, before, earlier = multistep(now, None if sampler == "ddim" else before, gamma_next), now, before
        return x_t

    exact = start * variance**0.5
    errors = {name: (sampled(name, 20) - exact).abs().max() for name in ("ddim", "dpm++", "unipc")}
    assert errors["unipc"] < errors["dpm++"] < 0.6 * errors["ddim"]


def test_the_last_step_gives_x0_exactly():
    x_t, x0, epsilon = torch.randn(3, 1, 3, 8, 8)
    assert torch.equal(ddpm_step(x_t, x0, 0.999, 1.0, epsilon), x0)
    assert torch.equal(ddim_step(x_t, x0, 0.999, 1.0), x0)
    assert torch.equal(multistep(Step(0.999, x_t, x0), Step(0.9, x_t, epsilon), 1.0), x0)


def test_both_predictions_recover_x0():
    x0, epsilon = torch.rand(1, 3, 8, 8) * 2 - 1, torch.randn(1, 3, 8, 8)
    x_t = add_noise(x0, epsilon, 0.3)
    assert torch.allclose(predicted_x0(epsilon, "epsilon", x_t, 0.3), x0, atol=1e-6)
    assert torch.equal(predicted_x0(x0, "x0", x_t, 0.3), x0)
