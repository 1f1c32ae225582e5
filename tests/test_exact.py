# SPDX-License-Identifier: Apache-2.0
"""The exact prior against Bayes' rule written out in float64, one window at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from bozzetto.camera import in_camera, in_world
from bozzetto.denoiser import score
from bozzetto.distill.sds import Levels, Ramp, residual, sds_gradient
from bozzetto.fit.finish import Finish
from bozzetto.fit.recipe import Priors
from bozzetto.fit.run import Run
from bozzetto.fit.silhouette import Silhouette
from bozzetto.priors import sample
from bozzetto.priors.exact import REMEMBERED, Exact, Flaws
from bozzetto.priors.prior import Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.recipes import zero123
from tests.twins import block
from tests.twins.bank import BANK, CAPTIONS, ring

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def exact(**settings):
    return Exact(BANK, ring(8), CAPTIONS, **{"size": 16, "width": 0.3, **settings})


def by_hand(x, windows, log_weights, sigma, width):
    """E[x0 | x] of one x and K windows of its shape, in float64, one after another."""
    logs = [float(w) - float((x - y).square().sum()) / (2 * (sigma**2 + width**2)) for y, w in zip(windows, log_weights, strict=True)]
    top = max(logs)
    shares = [math.exp(one - top) for one in logs]
    means = [(width**2 * x + sigma**2 * y) / (width**2 + sigma**2) for y in windows]
    return sum(share * mean for share, mean in zip(shares, means, strict=True)) / sum(shares)


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("knows_cameras", [True, False])
def test_its_denoiser_is_bayes_rule_one_window_at_a_time(together, knows_cameras):
    prior = exact(together=together, knows_cameras=knows_cameras)
    cameras = ring(2 * together, elevation=0.1, start=0.4)
    cond = prior.condition(Reference(BANK[1](ring(1, 0.2)).over(1.0), ring(1, 0.2)), cameras)
    x = 3 * torch.randn(2, *prior.shape, generator=seeded(), dtype=F64)
    sigma = torch.tensor([0.6, 14.0], dtype=F64)
    got = prior.denoiser.denoise(x, sigma, cond)
    windows, weights = cond["windows"].double(), cond["log_weights"].expand(2, -1)
    assert windows.shape[0] == (2 if knows_cameras else 1)
    for k in range(2):
        one = by_hand(x[k], windows.expand(2, *windows.shape[1:])[k], weights[k], float(sigma[k]), 0.3)
        torch.testing.assert_close(got[k], one, rtol=1e-10, atol=1e-10)


def test_windows_are_the_objects_at_the_cameras_in_their_order():
    """View by view a row a camera; together V cameras a row; unsaid, every object from every stored group, object by object."""
    prior, joint, cameras = exact(), exact(together=4), ring(4, 0.1, 0.7)
    want = torch.stack([2 * BANK[i](cameras).over(1.0).movedim(-1, 1) - 1 for i in range(4)], 1)  # (V, N, ...)
    torch.testing.assert_close(prior.condition(cameras=cameras)["windows"], want, rtol=0, atol=1e-6)
    torch.testing.assert_close(joint.condition(cameras=cameras)["windows"][0], want.transpose(0, 1), rtol=0, atol=1e-6)
    stored = torch.stack([2 * BANK[i](ring(8)).over(1.0).movedim(-1, 1) - 1 for i in range(4)])  # (N, M, ...)
    torch.testing.assert_close(prior.condition()["windows"][0], stored.flatten(0, 1), rtol=0, atol=1e-6)
    groups = torch.stack([stored.roll(-k, 1)[:, ::2] for k in range(8)], 1)  # azimuths 0, 90, 180, 270; then 45, 135, ...; 90, 180, ...
    torch.testing.assert_close(joint.condition()["windows"][0], groups.flatten(0, 1), rtol=0, atol=1e-6)
    assert torch.equal(exact(knows_cameras=False).condition(cameras=cameras)["windows"], prior.condition()["windows"])


def test_its_score_is_the_gradient_of_the_log_density():
    prior, sigma = exact(), 0.8
    cond = prior.condition(text="box", cameras=ring(1))
    x = torch.randn(1, *prior.shape, generator=seeded(1), dtype=F64).requires_grad_()
    r2 = (x[:, None] - cond["windows"].double()).square().flatten(2).sum(-1)
    (gradient,) = torch.autograd.grad(torch.logsumexp(cond["log_weights"] - r2 / (2 * (sigma**2 + 0.3**2)), 1).sum(), x)
    torch.testing.assert_close(score(prior.denoiser, x.detach(), sigma, cond), gradient, rtol=1e-10, atol=1e-10)


def test_a_picture_says_which_object_by_its_likelihood():
    """Of a picture a share t of the way from object 0 to object 1 the odds are exp((1 - 2 t) |y_0 - y_1|**2 / (2 p**2))."""
    camera = ring(1, 0.2, 0.5)
    prior = exact(picture_width=6.0)
    a, b = (BANK[i](camera).over(1.0) for i in (0, 1))
    apart = float((2 * a - 2 * b).double().square().sum())
    for t in (0.0, 0.3, 0.5, 1.0):
        logs = prior.condition(Reference((1 - t) * a + t * b, camera), ring(3))["log_weights"]
        assert logs.shape == (1, 4)
        assert float(logs[0, 0] - logs[0, 1]) == pytest.approx((1 - 2 * t) * apart / (2 * 6.0**2), abs=1e-4)
    # seen from behind by mistake, another object fits the picture best, or the odds are far lower
    behind = ring(1, 0.2, 0.5 + math.pi)
    right, wrong = (prior.encode_reference(Reference(a, c)).softmax(1)[0, 0] for c in (camera, behind))
    assert right > 0.5 > wrong


def test_pictures_and_texts_multiply_and_a_text_keeps_the_objects_with_most_of_its_words():
    prior = exact()
    for text, kept in (("a red box", [0]), ("box", [0, 1]), ("", [0, 1, 2, 3]), ("the zebra", [0, 1, 2, 3]), ("a tower or slab", [2, 3])):
        shares = prior.condition(text=text)["log_weights"].softmax(1).view(4, 8).sum(1)
        assert [i for i in range(4) if shares[i] > 0] == kept
        torch.testing.assert_close(shares[kept], torch.full((len(kept),), 1 / len(kept), dtype=F64))
    camera = ring(1)
    two = Reference(torch.cat([BANK[0](camera).over(1.0), BANK[1](camera).over(1.0)]), camera)
    both = prior.condition(two, ring(2), "box")["log_weights"]
    torch.testing.assert_close(both[:, :2], prior.encode_reference(two)[:, :2]) and bool(torch.isinf(both[:, 2:]).all())


def drawn(prior, cameras, seed):
    """Which object each of the V views is that were drawn from some cameras."""
    n = len(cameras) // prior.together
    x0 = sample(prior, prior.condition(cameras=cameras), count=n, sampler=Sampler(20, 1.0, 1.0), generator=seeded(seed))
    truth = torch.stack([2 * render(cameras).over(1.0).movedim(-1, 1) - 1 for render in BANK], 1)
    return (x0.view(-1, 1, 3, 16, 16) - truth).flatten(2).norm(dim=2).argmin(1)


def test_views_drawn_together_are_of_one_object_and_drawn_alone_they_are_not():
    """Four views of four objects drawn by themselves are of one in about 1 of 64 cases: never in all of ten."""
    joint, alone = exact(width=0.05, together=4), exact(width=0.05)
    agree = [[len(drawn(prior, ring(4), seed).unique()) == 1 for seed in range(10)] for prior in (joint, alone)]
    assert all(agree[0]) and sum(agree[1]) <= 3
    seen = {int(drawn(joint, ring(4), seed)[0]) for seed in range(10)}
    assert len(seen) > 1  # and not always the same one


def test_distilled_without_noise_to_speak_of_a_picture_goes_to_the_nearest_object():
    prior, camera, g = exact(width=0.05), ring(1), seeded(2)
    cond = prior.condition(cameras=camera)
    y = cond["windows"][0]
    x = (y[2] + 0.5 * torch.randn(y[2].shape, generator=g))[None]
    levels = torch.tensor([0.3], dtype=F64)
    for _ in range(40):
        x = x - 0.3 * sds_gradient(prior.denoiser, x, levels, cond, generator=g, weight=residual)[0]
    away = [float((x[0] - one).norm()) for one in y]
    assert min(range(4), key=lambda i: away[i]) == 2 and away[2] < 0.1 * float((y[0] - y[2]).norm())


def test_flaws_are_what_they_say():
    cameras = ring(2)
    plain = exact().windows(cameras)
    tinted = exact(flaws=Flaws(bias=(0.1, 0.0, -0.05))).windows(cameras)
    want = torch.tensor([0.2, 0.0, -0.1]).view(3, 1, 1).expand_as(plain)
    torch.testing.assert_close(tinted - plain, want, rtol=0, atol=1e-6)
    blurred = exact(flaws=Flaws(blur=1.5)).windows(cameras)
    rough = [float(y.diff(dim=-1).square().mean()) for y in (plain, blurred)]
    assert rough[1] < 0.3 * rough[0]
    torch.testing.assert_close(blurred.mean((-2, -1)), plain.mean((-2, -1)), rtol=0, atol=0.05)  # the border is paper nearly all over
    stained = exact(flaws=Flaws(disagreement=0.1))
    off = stained.windows(cameras) - plain
    assert float(off.std()) == pytest.approx(0.2, rel=4 / (2 * 2 * 4 * 3 * 16) ** 0.5)  # so many stains; four standard errors
    assert torch.equal(stained.windows(cameras), exact(flaws=Flaws(disagreement=0.1)).windows(cameras))  # a camera's own for good
    assert (off[0] - off[1]).abs().max() > 0.1  # and another's in another camera


def test_a_blurred_spike_is_a_gaussian():
    from bozzetto.priors.exact import _blurred

    spike = torch.zeros(1, 1, 21, 21, dtype=F64)
    spike[..., 10, 10] = 1
    at = torch.arange(-10, 11, dtype=F64)
    bell = torch.exp(-(at**2) / (2 * 1.3**2)) * (at.abs() <= 4)  # cut at three standard deviations
    torch.testing.assert_close(_blurred(spike, 1.3)[0, 0], torch.outer(bell, bell) / bell.sum() ** 2, rtol=1e-12, atol=1e-15)


def test_the_views_of_a_joint_prior_turn_with_the_reference():
    prior = exact(together=4)
    assert exact().views() is None
    first = prior.views()
    torch.testing.assert_close(first.position, ring(8)[[0, 2, 4, 6]].position)
    turned = prior.views(Reference(torch.ones(1, 8, 8, 3), ring(1, 0.1, 0.6)))
    torch.testing.assert_close(turned.position, ring(4, start=0.6).position)
    torch.testing.assert_close(turned.c2w, ring(4, start=0.6).c2w)


def test_normals_and_colours_together_are_of_one_object_and_in_the_first_cameras_axes():
    """Normals of V views and then their colours, as Wonder3D's batch has them; a normal pointing at the first camera is (.5, .5, 1)."""
    group = ring(4, 0.2, 0.5)
    prior = exact(together=4, with_normals=True, width=0.05)
    cameras = prior.views(Reference(torch.ones(1, 8, 8, 3), group[0]))
    assert prior.shape == (8, 3, 16, 16) and len(cameras) == 8
    torch.testing.assert_close(cameras.position, ring(4, start=0.5).position.repeat(2, 1))
    both = group[[0, 1, 2, 3, 0, 1, 2, 3]]
    windows = prior.windows(both)[0]  # (N, 8, ...)
    torch.testing.assert_close(windows[:, 4:], exact(together=4).windows(group)[0])
    views = BANK[1](both)
    torch.testing.assert_close(prior.encode(views)[0], windows[1], rtol=0, atol=1e-6)
    pictures = prior.decode(prior.encode(views))[:4]
    on = views.alpha[:4, ..., 0] > 0.99
    told = in_world(2 * pictures - 1, group)
    torch.testing.assert_close(told[on], views.normal[:4][on], rtol=0, atol=1e-5)
    own = in_world(2 * pictures[2:3] - 1, group[2])  # taken for the third view's own axes: from behind, so most have the wrong sign
    assert float((own * views.normal[2:3]).sum(-1)[on[2:3]].mean()) < 0
    facing = (in_camera(views.normal[0], group) * torch.tensor([0.0, 0, 1])).sum(-1)
    assert float((pictures[0, ..., 2] - 0.5 - facing / 2)[on[0]].abs().max()) < 1e-5
    x0 = sample(prior, prior.condition(cameras=both), count=1, sampler=Sampler(20, 1.0, 1.0), generator=seeded(3))
    off = (x0 - windows).flatten(2).norm(dim=2)  # (N, 8)
    assert len(off.argmin(0).unique()) == 1  # normals and colours of one object
    stained = exact(together=4, with_normals=True, flaws=Flaws(disagreement=0.1)).windows(both)[0] - windows
    assert (stained[:, :4] - stained[:, 4:]).abs().max() > 0.1  # each has its own


def test_a_camera_is_rendered_once():
    asked = []
    bank = [lambda cameras: asked.append(len(cameras)) or BANK[0](cameras)]
    prior = Exact(bank, ring(4), size=16)
    assert asked == [1] * 4
    for _ in range(3):
        prior.condition(cameras=ring(4, size=40))  # of any size: pictures have the prior's
    assert len(asked) == 4
    prior.condition(cameras=ring(REMEMBERED, 0.5))
    prior.condition(cameras=ring(4))
    assert len(asked) == 4 + REMEMBERED + 4  # the oldest have been forgotten


@pytest.mark.slow
def test_recipes_run_under_it_as_they_are(tmp_path):
    """Recipe `zero123` on the block that its own test has: red where the picture shows it, blue behind. The guess is red all over; the
    picture picks the block from a bank of five, whose renderings tell the hidden side."""
    source = block.picture()
    prior = Exact([*BANK, block.truth], ring(8), size=32, width=0.05)
    settings = zero123.Zero123(
        guess=Silhouette(cells=32, steps=20, picture=192),
        steps=100,
        picture=64,
        guidance=1.0,
        levels=Levels(Ramp(0.3, 0.3), Ramp(0.7, 0.7)),
        colours=32,
        colour_lr=0.1,
        finish=Finish(faces=10_000, texture=256),
    )
    job = replace(block.job(source, settings, Run(tmp_path, {}), deep=1.0), priors=Priors(None, prior))
    mesh = zero123.lift(job).mesh
    behind = (mesh.normals[:, 0] < -0.95) & (mesh.vertices[:, 0] < 0)
    uv = (mesh.uv[behind] * len(mesh.texture)).long().clamp(0, len(mesh.texture) - 1)
    assert (mesh.texture[uv[:, 1], uv[:, 0]].mean(0) - block.BLUE).norm() < 0.15


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Exact([], ring(4)), "bank"),
        (lambda: Exact(BANK, ring(4), ["one"]), "captions"),
        (lambda: Exact(BANK, ring(6), together=4), "multiple of 4"),
        (lambda: exact(together=4).condition(cameras=ring(3)), "multiple of 4"),
        (lambda: exact(together=4, with_normals=True).condition(cameras=ring(4)), "multiple of 8"),
        (lambda: exact(together=4, with_normals=True, background=0.5), "stand on white"),
        (lambda: exact(together=4).encode_pictures(torch.ones(3, 16, 16, 3)), "multiple of 4"),
    ],
)
def test_wrong_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
