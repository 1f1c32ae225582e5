# SPDX-License-Identifier: Apache-2.0
"""The same network and noise through diffusers' schedulers and ours: DDPM, DDIM both ways, Euler, Heun, DPM-Solver++; a training step.

diffusers keeps its schedules in float32, where 1 - alpha_bar of the first steps has lost four digits; ours are float64 and put in
their place: what is compared is the arithmetic.
"""

import pytest
import torch

from bozzetto.denoiser import VPDenoiser, sigma_of
from bozzetto.diffusion.ddpm import process_of, reverse
from bozzetto.diffusion.losses import noised, prediction_loss
from bozzetto.diffusion.network import UNet
from bozzetto.diffusion.samplers import ancestral, ddim, ddim_inversion, dpm_solver_2m, euler, heun
from bozzetto.diffusion.schedules import alpha_bar, cosine_betas, ladder, linear_betas, scaled_linear_betas, spaced, zero_terminal_snr
from tests.twins.worlds import F64, seeded

diffusers = pytest.importorskip("diffusers")

BETAS = {
    "linear": linear_betas(),
    "scaled": scaled_linear_betas(),
    "cosine": cosine_betas(most=0.1),
}  # Euler's state is float32: a sigma of 2e4 has no 1e-5
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
N = 10


def network(x_t, step):
    """Smooth in both, so that a step's rounding does not matter; any function will do."""
    t = step.double().view(-1, 1) / 1000
    return 0.7 * torch.sin(x_t) * (1 + t) + 0.3 * torch.cos(2 * x_t - t)


def theirs(kind, schedule, prediction, **more):
    made = kind(1000, trained_betas=BETAS[schedule].numpy(), prediction_type=NAMES[prediction], **more)
    made.betas, made.alphas, made.alphas_cumprod = BETAS[schedule], 1 - BETAS[schedule], alpha_bar(BETAS[schedule])
    return made


def run(scheduler, x_T, **step):
    """A loop as diffusers' pipelines have it, in float64, from x_T on the variance-preserving scale."""
    scheduler.set_timesteps(N)
    x = x_T
    for t in scheduler.timesteps:
        made = network(scheduler.scale_model_input(x, t).double(), torch.as_tensor(float(t)).expand(len(x)))
        x = scheduler.step(made, t, x, **step).prev_sample.double()
    return x


def start(seed=0):
    return torch.randn(5, 3, generator=seeded(seed), dtype=F64)


def close(got, want, rtol=1e-5):
    """1e-5, where the largest is about 1: diffusers' sigmas and Euler's state are float32."""
    off = float((got - want).abs().max())
    assert off < rtol * max(1.0, float(want.abs().max())), off


every = pytest.mark.parametrize(("schedule", "prediction"), [(s, p) for s in BETAS for p in NAMES])


def ours(schedule, prediction, spacing="trailing"):
    a = alpha_bar(BETAS[schedule])
    steps = spaced(1000, N, spacing)
    return VPDenoiser(network, a, prediction), ladder(a, steps), float(a[steps[0]]) ** -0.5


@every
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim_is_theirs(schedule, prediction, spacing):
    denoiser, sigmas, scale = ours(schedule, prediction, spacing)
    scheduler = theirs(diffusers.DDIMScheduler, schedule, prediction, clip_sample=False, timestep_spacing=spacing)
    close(ddim(denoiser, start() * scale, sigmas), run(scheduler, start()))


@pytest.mark.parametrize("schedule", list(BETAS))
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim_inversion_is_theirs(schedule, spacing):
    """Of eps alone: v and x0 they turn into eps by the level that the step comes from, not by the one that was asked about."""
    denoiser, sigmas, scale = ours(schedule, "eps", spacing)
    scheduler = theirs(diffusers.DDIMInverseScheduler, schedule, "eps", clip_sample=False, timestep_spacing=spacing)
    want = run(scheduler, start())
    close(ddim_inversion(denoiser, start(), sigmas) / scale, want)
    assert float((ddim_inversion(denoiser, start(), sigmas, at="start") / scale - want).abs().max()) > 1e-2


@every
def test_ddim_with_noise_is_theirs(schedule, prediction):
    scheduler = theirs(diffusers.DDIMScheduler, schedule, prediction, clip_sample=False, timestep_spacing="leading")
    denoiser, sigmas, scale = ours(schedule, prediction, "leading")
    scheduler.set_timesteps(N)
    x, g = start(), seeded(1)
    for t in scheduler.timesteps:
        noise = torch.randn(5, 3, generator=g, dtype=F64)
        x = scheduler.step(network(x, t.expand(5)), t, x, eta=1.0, variance_noise=noise).prev_sample.double()
    close(ancestral(denoiser, start() * scale, sigmas, generator=seeded(1)), x)


@every
def test_euler_is_theirs(schedule, prediction):
    denoiser, sigmas, _ = ours(schedule, prediction)
    scheduler = theirs(diffusers.EulerDiscreteScheduler, schedule, prediction, timestep_spacing="trailing")
    x = start() * float(sigmas[0])
    close(euler(denoiser, x, sigmas), run(scheduler, x))


@every
def test_heun_is_theirs(schedule, prediction):
    denoiser, sigmas, _ = ours(schedule, prediction)
    scheduler = theirs(diffusers.HeunDiscreteScheduler, schedule, prediction, timestep_spacing="trailing")
    x = start() * float(sigmas[0])
    close(heun(denoiser, x, sigmas), run(scheduler, x))


@every
def test_dpm_solver_is_theirs(schedule, prediction):
    denoiser, sigmas, scale = ours(schedule, prediction)
    scheduler = theirs(diffusers.DPMSolverMultistepScheduler, schedule, prediction, timestep_spacing="trailing")
    close(dpm_solver_2m(denoiser, start() * scale, sigmas), run(scheduler, start()))


@every
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_theirs(schedule, prediction, variance):
    """Each step's mean and variance over all of the chain, clipped as theirs is; the draws themselves are a generator's."""
    p = process_of(alpha_bar(BETAS[schedule]))
    scheduler = theirs(diffusers.DDPMScheduler, schedule, prediction, variance_type=f"fixed_{variance}", clip_sample=True)
    for k in (999, 500, 20, 1, 0):
        x_t = start(k)
        want = scheduler.step(network(x_t, torch.full((5,), k)), k, x_t, generator=seeded(k)).prev_sample
        mean, log_variance, _ = reverse(p, network, x_t, torch.full((5,), k), prediction=prediction, variance=variance, clip=1.0)
        z = torch.randn(5, 3, generator=seeded(k), dtype=F64)
        close(mean + (log_variance / 2).exp() * z if k else mean, want)


def test_zero_terminal_snr_is_theirs():
    scheduler = diffusers.DDIMScheduler(1000, trained_betas=BETAS["scaled"].numpy(), rescale_betas_zero_snr=True)
    close(zero_terminal_snr(alpha_bar(BETAS["scaled"]), last=0.0), scheduler.alphas_cumprod.double())
    assert float(sigma_of(zero_terminal_snr(alpha_bar(BETAS["scaled"])))[-1]) == pytest.approx(4096, rel=1e-6)


@pytest.mark.parametrize("prediction", NAMES)
def test_a_training_step_has_their_loss_and_gradient(prediction):
    scheduler = theirs(diffusers.DDPMScheduler, "scaled", prediction)
    net = torch.nn.Linear(3, 3)
    torch.nn.init.normal_(net.weight, generator=seeded(2))
    torch.nn.init.zeros_(net.bias)
    x0, noise, k = torch.randn(64, 3, generator=seeded(3)), torch.randn(64, 3, generator=seeded(4)), torch.arange(0, 960, 15)
    x_t = scheduler.add_noise(x0, noise, k)
    target = {"eps": noise, "x0": x0, "v": scheduler.get_velocity(x0, noise, k)}[prediction]
    want = torch.nn.functional.mse_loss(net(x_t), target)
    (want_gradient,) = torch.autograd.grad(want, net.weight)
    loss = prediction_loss(lambda x, k: net(x), x0, noise, k, alpha_bar(BETAS["scaled"]), prediction).mean()
    (gradient,) = torch.autograd.grad(loss, net.weight)
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-5, atol=1e-6)


def test_the_u_net_is_theirs():
    """The same weights, by name, in diffusers' UNet2DModel of DDPM's layout: the same output and the same training step."""
    theirs_net = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=None,
        norm_num_groups=8,
        norm_eps=1e-6,
        freq_shift=1,
        flip_sin_to_cos=False,
        downsample_padding=0,
    )
    net = UNet(3, (16, 32), 2, (1,), groups=8)
    with torch.no_grad():
        for i, q in enumerate(net.parameters()):  # nothing is left at 0
            torch.nn.init.normal_(q, 0.0, 0.15, generator=seeded(i))
    theirs_net.load_state_dict(dict(renamed(net, blocks=2, levels=2)))
    x0, noise = (torch.randn(4, 3, 8, 8, generator=seeded(s)) for s in (40, 41))
    k = torch.tensor([0, 3, 500, 999])
    x_t = noised(x0, noise, alpha_bar(BETAS["linear"])[k])
    want = theirs_net(x_t, k).sample
    torch.testing.assert_close(net(x_t, k), want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    their_loss = torch.nn.functional.mse_loss(want, noise)
    loss = prediction_loss(net, x0, noise, k, alpha_bar(BETAS["linear"])).mean()
    torch.testing.assert_close(loss, their_loss, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(loss, net.first.weight)
    (want_gradient,) = torch.autograd.grad(their_loss, theirs_net.conv_in.weight)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-5, atol=1e-5 * float(want_gradient.abs().max()))


def renamed(net, blocks, levels):
    """Our parameters under diffusers' names; its attention has matrices where ours has 1 x 1 kernels."""
    part = {f"{kind}_{i}": f"{kind}{i}" for kind in ("norm", "conv") for i in (1, 2)}
    part |= {"time": "time_emb_proj", "shortcut": "conv_shortcut"}
    attention = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    plain = {"time.0": "time_embedding.linear_1", "time.2": "time_embedding.linear_2"}
    plain |= {"first": "conv_in", "norm": "conv_norm_out", "last": "conv_out"}
    places = {"middle.0": "mid_block.resnets.0", "middle.1": "mid_block.attentions.0", "middle.2": "mid_block.resnets.1"}
    for side, count, sampler in (("down", blocks, "downsamplers"), ("up", blocks + 1, "upsamplers")):
        for level in range(levels):
            for i in range(count):
                for kind, name in enumerate(("resnets", "attentions")):
                    places[f"{side}.{level * (count + 1) + i}.{kind}"] = f"{side}_blocks.{level}.{name}.{i}"
            plain[f"{side}.{level * (count + 1) + count}"] = f"{side}_blocks.{level}.{sampler}.0.conv"
    for name, value in net.state_dict().items():
        path, leaf = name.rsplit(".", 1)
        if path in plain:
            yield f"{plain[path]}.{leaf}", value
            continue
        place, inner = path.rsplit(".", 1)
        is_attention = ".attentions." in places[place]
        value = value[:, :, 0, 0] if is_attention and value.ndim == 4 else value
        yield f"{places[place]}.{(attention if is_attention else part)[inner]}.{leaf}", value
