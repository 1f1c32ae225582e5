# SPDX-License-Identifier: Apache-2.0
"""Guidance on Gaussians, where guided scores and guided flows have closed forms."""

import math

import pytest
import torch

from bozzetto.denoiser import Adapted, noise, score
from bozzetto.diffusion.guidance import autoguidance, classifier, classifier_free, dual, limited, perp_neg, thresholded
from bozzetto.diffusion.samplers import dpm_solver_2m, heun
from bozzetto.diffusion.schedules import karras
from tests.twins.worlds import F64, SIGMAS, Gaussian, iso, seeded

X = torch.randn(5, 3, generator=seeded(), dtype=F64)
COND, UNCOND = iso(1.0, 3, 1.0), iso(2.0, 3, -0.5)


def two(cond_world=COND, uncond_world=UNCOND):
    """A denoiser that answers for `cond_world` under "c" and for `uncond_world` under None."""
    return Adapted(lambda x, s, c: (cond_world if c == "c" else uncond_world).denoise(x, s), SIGMAS)


def test_cfg_1_scale_one_is_conditional_zero_is_unconditional_equal_branches_are_any():
    for sigma in (0.1, 3.0):
        assert torch.equal(classifier_free(two(), None, 1.0).denoise(X, sigma, "c"), COND.denoise(X, sigma))
        assert torch.equal(classifier_free(two(), None, 0.0).denoise(X, sigma, "c"), UNCOND.denoise(X, sigma))
        same = classifier_free(two(COND, COND), None, 7.5).denoise(X, sigma, "c")
        torch.testing.assert_close(same, COND.denoise(X, sigma), rtol=1e-13, atol=1e-13)


def test_cfg_2_affine_in_the_scale_and_the_same_in_every_space():
    sigma = 0.8
    for g in (0.5, 3.0, 7.5):
        guided = classifier_free(two(), None, g)
        for what in (score, noise):
            want = what(UNCOND, X, sigma) + g * (what(COND, X, sigma) - what(UNCOND, X, sigma))
            torch.testing.assert_close(what(guided, X, sigma, "c"), want, rtol=1e-12, atol=1e-12)
        third = (1 + 1.0) * COND.denoise(X, sigma) - 1.0 * UNCOND.denoise(X, sigma)  # papers' 1 + w with w = 1
        assert torch.allclose(classifier_free(two(), None, 2.0).denoise(X, sigma, "c"), third, rtol=1e-12)


def test_cfg_3_equal_variances_move_the_mean():
    """N(m_c, v) and N(m_u, v): the guided score is that of N(m_u + g (m_c - m_u), v) at every level."""
    guided = classifier_free(two(iso(0.7, 3, 1.0), iso(0.7, 3, 0.0)), None, 3.0)
    for sigma in (0.01, 0.5, 20.0):
        torch.testing.assert_close(guided.denoise(X, sigma, "c"), iso(0.7, 3, 3.0).denoise(X, sigma), rtol=1e-12, atol=1e-12)


def test_cfg_4_guidance_does_not_sample_the_tilted_density():
    """Variances v_c = 1, v_u = 4, g = 2: the flow's output variance tends to v_c**g v_u**(1 - g) = .25, the tilted density's is .5714."""
    g, s_max, n = 2.0, 200.0, 1000
    guided = classifier_free(two(iso(1.0), iso(2.0)), None, g)
    out = float(heun(guided, torch.ones(1, 1, dtype=F64), karras(n, 0.002, s_max), "c")) ** 2 * s_max**2
    exact = 0.25 * s_max**2 / ((1 + s_max**2) ** g * (4 + s_max**2) ** (1 - g))
    assert out == pytest.approx(exact, rel=2e-4)
    assert exact == pytest.approx(0.2500, abs=1e-4) and 1 / (g / 1 + (1 - g) / 4) == pytest.approx(0.5714, abs=1e-4)


def test_ag_1_of_two_gaussians_the_flow_ends_in_the_product_of_powers():
    """s = 1, S = 2, g = 1.5: standard deviation s**g S**(1 - g) = .7071; a guide that is as good changes nothing; g = 1 asks no guide."""
    good, broad, g, s_max = iso(1.0), iso(2.0), 1.5, 200.0
    out = float(heun(autoguidance(good, broad, g), torch.ones(1, 1, dtype=F64), karras(1000, 0.002, s_max))) * s_max
    exact = s_max / ((1 + s_max**2) ** (g / 2) * (4 + s_max**2) ** ((1 - g) / 2)) * 2 ** (1 - g)
    assert out == pytest.approx(exact, rel=1e-4)
    assert exact == pytest.approx(2**-0.5, abs=1e-4)
    torch.testing.assert_close(autoguidance(good, good, 3.0).denoise(X[:, :1], 0.7), good.denoise(X[:, :1], 0.7), rtol=1e-13, atol=1e-13)
    never = Adapted(lambda x, s, c: pytest.fail("asked"), SIGMAS)
    assert torch.equal(autoguidance(good, never, 1.0).denoise(X[:, :1], 0.7), good.denoise(X[:, :1], 0.7))


def test_perp_neg_of_equal_variances_moves_the_mean_by_what_the_negative_says_alone():
    """With v one for all and differences a = m_c - m_u, b_i = m_i - m_u, the guided score is that of
    N(m_u + g (a - sum_i w_i (b_i - (a.b_i / a.a) a)), v) at every level, in the space of noise and score as well."""
    m_u, m_c = torch.tensor([0.2, -0.1, 0.5], dtype=F64), torch.tensor([1.0, 0.4, -0.6], dtype=F64)
    means = {"u": m_u, "c": m_c, "n": torch.tensor([0.7, 1.5, 0.1], dtype=F64), "k": torch.tensor([-1.0, 0.3, 0.3], dtype=F64)}
    worlds = {name: Gaussian(mean, 0.7 * torch.eye(3, dtype=F64)) for name, mean in means.items()}
    denoiser = Adapted(lambda x, s, c: worlds[c].denoise(x, s), SIGMAS)
    weights, a = {"n": 0.8, "k": 1.7}, m_c - m_u
    left = sum(w * ((means[i] - m_u) - (a @ (means[i] - m_u)) / (a @ a) * a) for i, w in weights.items())
    guided, want = perp_neg(denoiser, "u", list(weights.items()), 3.0), Gaussian(m_u + 3.0 * (a - left), 0.7 * torch.eye(3, dtype=F64))
    for sigma in (0.05, 0.8, 20.0):
        torch.testing.assert_close(guided.denoise(X, sigma, "c"), want.denoise(X, sigma), rtol=1e-11, atol=1e-11)
        for what in (score, noise):
            delta = {i: what(denoiser, X, sigma, i) - what(denoiser, X, sigma, "u") for i in means}
            dot = lambda i, j, d=delta: (d[i] * d[j]).sum(1, keepdim=True)  # noqa: E731
            perps = sum(w * (delta[i] - dot(i, "c") / dot("c", "c") * delta["c"]) for i, w in weights.items())
            by_hand = what(denoiser, X, sigma, "u") + 3.0 * (delta["c"] - perps)
            torch.testing.assert_close(what(guided, X, sigma, "c"), by_hand, rtol=1e-8, atol=1e-10)


def test_perp_neg_leaves_alone_what_both_say_and_is_plain_guidance_without_negatives():
    plain = classifier_free(two(), None, 4.0).denoise(X, 0.8, "c")
    for negatives in ([], [(None, 2.0)], [("c", 2.0)], [("c", torch.arange(5.0))]):
        torch.testing.assert_close(perp_neg(two(), None, negatives, 4.0).denoise(X, 0.8, "c"), plain, rtol=1e-11, atol=1e-11)
    # a condition that says nothing has no direction: the negative counts in full; a weight a sample is its sample's own
    each = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0])
    got = perp_neg(two(), None, [("c", each)], 3.0).denoise(X, 0.8, None)
    null, away = two().denoise(X, 0.8, None), two().denoise(X, 0.8, "c") - two().denoise(X, 0.8, None)
    torch.testing.assert_close(got, null - 3.0 * each.double()[:, None] * away, rtol=1e-12, atol=1e-12)


def test_rescaling_gives_back_the_conditional_spread():
    for sigma in (0.3, 5.0):
        full = noise(classifier_free(two(), None, 7.5, rescale=1.0), X, sigma, "c")
        torch.testing.assert_close(full.std(1), noise(COND, X, sigma).std(1), rtol=1e-10, atol=0)
        plain = noise(classifier_free(two(), None, 7.5), X, sigma, "c")
        half = noise(classifier_free(two(), None, 7.5, rescale=0.5), X, sigma, "c")
        torch.testing.assert_close(half, (plain + full) / 2, rtol=1e-12, atol=1e-12)


def three(a=1.0, b=0.7, tau2=0.5, image=1.2, text=-0.4):
    """z = a I + b T + tau xi: the posterior under nothing, under I, and under both."""
    v2 = tau2
    worlds = {
        "none": iso(math.sqrt(v2 + a**2 + b**2)),
        "image": iso(math.sqrt(v2 + b**2), 1, a * image),
        "both": iso(math.sqrt(v2), 1, a * image + b * text),
    }
    return Adapted(lambda x, s, c: worlds[c].denoise(x, s), SIGMAS), worlds


def test_ip_1_dual_guidance_at_its_corners():
    denoiser, worlds = three()
    x, sigma = X[:, :1], 0.6
    for scales, world in [((1, 1), "both"), ((1, 0), "image"), ((0, 0), "none")]:
        got = dual(denoiser, "none", "image", *scales).denoise(x, sigma, "both")
        torch.testing.assert_close(got, worlds[world].denoise(x, sigma), rtol=1e-13, atol=1e-13)
    plain = classifier_free(denoiser, "none", 3.0).denoise(x, sigma, "both")
    torch.testing.assert_close(dual(denoiser, "none", "image", 3.0, 3.0).denoise(x, sigma, "both"), plain, rtol=1e-12, atol=1e-12)
    without = dual(denoiser, "none", "image", 1.5, 7.5).denoise(x, sigma, "image")  # no text: its scale does nothing
    torch.testing.assert_close(without, dual(denoiser, "none", "image", 1.5, 2.0).denoise(x, sigma, "image"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("image_scale", "text_scale"), [(2.0, 2.0), (1.5, 7.5), (3.0, 1.0)])
def test_ip_2_the_other_order_of_both_scales_is_the_same_where_they_are_or_where_the_conditions_do_not_meet(image_scale, text_scale):
    """e(0,0) + S_T (e(0,T) - e(0,0)) + S_I (e(I,T) - e(0,T)) differs from the paper's by (S_I - S_T) of the mixed difference."""
    a, b, tau2, image, text = 1.0, 0.7, 0.5, 1.2, -0.4
    denoiser, worlds = three(a, b, tau2, image, text)
    alone = iso(math.sqrt(tau2 + a**2), 1, b * text)  # the posterior under the text
    x, sigma = X[:, :1], 0.6
    none, both, told, words = (w.denoise(x, sigma) for w in (worlds["none"], worlds["both"], worlds["image"], alone))
    other = none + text_scale * (words - none) + image_scale * (both - words)
    ours = dual(denoiser, "none", "image", image_scale, text_scale).denoise(x, sigma, "both")
    mixed = both - told - words + none
    torch.testing.assert_close(other - ours, (image_scale - text_scale) * mixed, rtol=1e-11, atol=1e-12)
    assert (float((other - ours).abs().max()) < 1e-12) == (image_scale == text_scale) and float(mixed.abs().max()) > 0.01


def test_ip_5_dual_guidance_of_a_joint_gaussian_has_the_tabled_outcome():
    denoiser, _ = three()
    ends = torch.tensor([[0.0], [200.0]], dtype=F64)  # the map is affine: two points tell mean and variance
    for scales, mean, var in [((1, 1), 0.9167, 0.5), ((1.5, 7.5), 0.6357, 0.004159), ((2, 2), 1.2678, 0.12563), ((1, 0), 1.1940, 0.98997)]:
        a, b = dpm_solver_2m(dual(denoiser, "none", "image", *scales), ends, karras(1500, 0.002, 200.0), "both")[:, 0].tolist()
        assert a == pytest.approx(mean, rel=2e-3) and (b - a) ** 2 == pytest.approx(var, rel=5e-3)


def test_guidance_within_an_interval_only():
    guided = classifier_free(two(), None, 5.0)
    inner = limited(guided, two(), 0.2, 2.0)
    for sigma, inside in [(0.1, False), (0.2, False), (0.3, True), (2.0, True), (3.0, False)]:
        want = (guided if inside else two()).denoise(X, sigma, "c")
        assert torch.equal(inner.denoise(X, sigma, "c"), want)
    each = torch.tensor([0.1, 0.3, 1.0, 2.5, 0.5], dtype=F64)
    rows = Adapted(lambda x, s, c: x * (2.0 if c == "c" else 1.0), SIGMAS)
    got = limited(classifier_free(rows, None, 5.0), rows, 0.2, 2.0).denoise(X, each, "c")
    torch.testing.assert_close(got, X * torch.tensor([2.0, 6.0, 6.0, 2.0, 6.0], dtype=F64)[:, None], rtol=1e-14, atol=0)


def test_a_classifier_turns_the_unconditional_score_into_the_conditional_one():
    """Bayes on Gaussians: log p(y | x) = log q(x | y) - log q(x) + const is a classifier of noisy x, exactly."""

    def log_prob(x, sigma):
        c, u = 1.0 + sigma**2, 4.0 + sigma**2
        return (-(x - 1.0).square() / (2 * c) + (x + 0.5).square() / (2 * u)).sum(1)

    for sigma in (0.1, 2.0):
        got = classifier(UNCOND, log_prob).denoise(X, sigma)
        torch.testing.assert_close(got, COND.denoise(X, sigma), rtol=1e-12, atol=1e-12)
        guided = classifier(UNCOND, log_prob, 3.0).denoise(X, sigma)
        torch.testing.assert_close(guided, classifier_free(two(), None, 3.0).denoise(X, sigma, "c"), rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # as samplers call it
        assert torch.isfinite(classifier(UNCOND, log_prob).denoise(X, 1.0)).all()


def test_dynamic_thresholding_is_diffusers_and_leaves_what_is_within():
    """Samples of four sizes: within [-1, 1]; s between 1 and `most`; s cut at `most`, twice."""
    from diffusers import DDPMScheduler

    share, most = 0.9, 1.5
    theirs = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=share, sample_max_value=most)
    scale = torch.tensor([0.3, 1.2, 2.0, 400.0]).view(4, 1, 1, 1)
    x0 = scale * (2 * torch.rand(4, 3, 8, 8, generator=seeded()) - 1)
    made = thresholded(Adapted(lambda x, sigma, cond: x, torch.ones(1)), share, most).denoise(x0, 1.0)
    torch.testing.assert_close(made, theirs._threshold_sample(x0), rtol=0, atol=1e-6)
    assert torch.equal(made[0], x0[0]) and made.abs().max() == 1
    assert 1.01 < float((x0[1] / made[1]).median()) < most  # divided, not only cut


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: classifier_free(COND, None, 2.0, rescale=1.5), "rescale"),
        (lambda: limited(COND, UNCOND, 2.0, 1.0), "low < high"),
        (lambda: thresholded(COND, 1.0, 1.5), "thresholding"),
        (lambda: thresholded(COND, 0.9, 0.5), "thresholding"),
    ],
)
def test_wrong_guidance_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
