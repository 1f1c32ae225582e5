# SPDX-License-Identifier: Apache-2.0
"""What every `Prior` does alike, embedded, published or of pixels, for one picture at a time or for several views together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import published
from bozzetto.camera import Camera, orbit
from bozzetto.priors import domains, load, sample
from bozzetto.priors.convert import convert
from bozzetto.priors.coordinates import UNIT
from bozzetto.priors.exact import Exact
from bozzetto.priors.exact_maps import ExactMaps
from bozzetto.priors.hint import PLANES, Hint
from bozzetto.priors.instruct import EXTENDED
from bozzetto.priors.loading import LAYOUTS, MINI, TEXT, load_as
from bozzetto.priors.prior import Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.text2image import TextToImage
from bozzetto.priors.unconditional import NAMES
from bozzetto.priors.zero123 import Zero123
from bozzetto.views import Views
from tests.twins import deepfloyd, mvdream, sweetdreamer, sync, wonder3d
from tests.twins import zero123 as twin
from tests.twins.bank import BANK, CAPTIONS, ring
from tests.twins.priors import Joint
from tests.twins.text import text_folder


def converted(folder: Path) -> Path:
    """A legacy checkpoint's folder."""
    folder.mkdir()
    _, state = twin.original_checkpoint()
    ckpt, config = twin.write_original(folder, state)
    convert(ckpt, folder / "made", "zero123-xl", config)
    return folder / "made"


@dataclass
class Case:
    """A prior, what its conditions read ("picture", "text"), whether it has learnt what a background is, whether half of its pictures are
    normals, and whether its x0 are pictures at all, not maps of where things are."""

    prior: Any
    reads: tuple[str, ...]
    is_trained: bool = False
    has_normals: bool = False
    has_pictures: bool = True

    @property
    def together(self) -> int:
        """Views of one x0."""
        return self.prior.shape[0] if len(self.prior.shape) == 4 else 1

    def pictures(self, views: Views) -> Tensor:
        """What it encodes of views."""
        return domains.to_pictures(views, self.together) if self.has_normals else views.over(self.prior.background)


CASES = (
    "mini",
    "mini in words",
    "port 1",
    "port 2, stable",
    "converted",
    "stable diffusion",
    "deepfloyd",
    "edits",
    "extended",
    "wonder3d",
    "coordinates",
    "mvdream",
    "sixteen views",
    *NAMES,
    "joint",
    "exact",
    "exact, cameras unknown",
    "exact, together",
    "exact coordinates",
)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, folder = request.param, tmp_path_factory.mktemp("prior") / "folder"
    if name == "mini":
        return Case(load("mini"), ("picture",), True)
    if name == "mini in words":
        return Case(load("mini", TEXT), ("text",), True)
    if name.startswith("port"):
        kind = "stable-zero123" if "stable" in name else "zero123"
        return Case(load(twin.write_port(folder, twin.port_parts(), int(name[5])), kind), ("picture",))
    if name == "converted":
        return Case(load(converted(folder)), ("picture",))
    if name == "stable diffusion":
        return Case(load(text_folder(folder)), ("text",))
    if name == "deepfloyd":
        return Case(load(deepfloyd.write(folder)), ("text",))
    if name == "edits":
        return Case(load(published.write("instruct-pix2pix", folder, "tiny")), ("picture", "text"))
    if name == "extended":
        return Case(load("mini", EXTENDED), ("picture", "text"))
    if name == "wonder3d":
        return Case(load(wonder3d.write(folder, wonder3d.parts())), ("picture",), has_normals=True)
    if name == "coordinates":
        return Case(load(sweetdreamer.write(folder)), ("text",), has_pictures=False)
    if name == "exact coordinates":
        return Case(ExactMaps(BANK, [UNIT] * 4, ring(8), CAPTIONS, size=16), ("text",), True, has_pictures=False)
    if name == "mvdream":
        return Case(load(mvdream.converted(folder)[1]), ("text",))
    if name == "sixteen views":
        sixteen: Any = load(sync.folder(folder))
        sixteen.network.batch = 16  # in one turn: fewer calls
        return Case(sixteen, ("picture",))
    if name == "joint":
        return Case(Joint(), ("text",))
    if name.startswith("exact"):
        together, knows_cameras = 4 if "together" in name else 1, "unknown" not in name
        bank = Exact(BANK, ring(8), CAPTIONS, size=16, knows_cameras=knows_cameras, together=together)
        return Case(bank, ("picture", "text"), True)
    return Case(load(name), (), name != "digits-ncsn")  # an NCSN draws by Langevin dynamics; DDIM leaves its paper grey


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cameras(n: int, size: int = 20) -> Camera:
    return orbit([0.4 * k for k in range(n)], 0.2, 2.0, size=size, fov=0.6)


def views_of(case: Case, n: int = 2, size: int = 20) -> Views:
    """n x0's worth of random pictures with holes, of another size than the prior's."""
    n *= case.together
    alpha = (torch.rand(n, size, size, 1, generator=seeded(0)) > 0.5).float()
    rgb = torch.rand(n, size, size, 3, generator=seeded(1)) * alpha
    normal = torch.nn.functional.normalize(torch.randn(n, size, size, 3, generator=seeded(2)), dim=-1) * alpha
    return Views(rgb, alpha, alpha, normal, cameras(n, size))


def noise(case: Case, n: int) -> Tensor:
    return torch.randn(n, *case.prior.shape, generator=seeded(3))


def rows(cond: Any) -> set[int]:
    return {len(v) for v in cond.values()}


def test_it_says_what_it_is(case: Case):
    prior = case.prior
    assert 0 <= prior.background <= 1 and prior.size > 0 and len(prior.shape) in (3, 4)
    assert prior.sampler.steps <= len(prior.denoiser.sigmas) and 0 <= prior.sampler.eta <= 1
    together = prior.views()
    assert (together is None) == (len(prior.shape) == 3) and (together is None or len(together) == prior.shape[0])
    if case.has_normals:  # each camera twice
        half = len(together) // 2
        assert torch.equal(together.c2w[:half], together.c2w[half:])


def test_pictures_of_any_size_go_to_x0_and_back(case: Case):
    prior, views = case.prior, views_of(case)
    rgb = views.over(prior.background)
    for x0 in (prior.encode_pictures(rgb), prior.encode(views)) if case.has_pictures else (prior.encode(views),):
        assert x0.shape == (2, *prior.shape) and x0.dtype == torch.float32 and torch.isfinite(x0).all()
    made = prior.decode(x0)
    assert made.shape == (2 * case.together, prior.size, prior.size, 3) and made.dtype == torch.float32
    assert made.min() >= 0 and made.max() <= 1
    if case.has_pictures:
        assert prior.encode_pictures(made).shape == x0.shape
    else:
        with pytest.raises(ValueError, match="rgb: colours do not say"):
            prior.encode_pictures(made)


def test_views_are_encoded_over_its_background_and_no_other(case: Case):
    prior, views = case.prior, views_of(case)
    if not case.has_pictures:
        empty = replace(views, alpha=0 * views.alpha, depth=0 * views.depth)
        assert bool((prior.decode(prior.encode(empty)) == prior.background).all())
        return
    torch.testing.assert_close(prior.encode(views), prior.encode_pictures(case.pictures(views)), rtol=0, atol=1e-6)
    empty = Views(0 * views.rgb, 0 * views.alpha, views.depth, 0 * views.normal, views.cameras)
    paper = torch.full_like(views.rgb, prior.background)
    torch.testing.assert_close(prior.encode(empty), prior.encode_pictures(paper), rtol=0, atol=1e-6)
    other = torch.full_like(views.rgb, prior.background - 0.5 if prior.background > 0.5 else prior.background + 0.5)
    assert (prior.encode(empty) - prior.encode_pictures(other)).abs().max() > 1e-3


def test_what_a_trained_prior_draws_stands_on_its_background(case: Case):
    if not case.is_trained:
        pytest.skip("random weights, or drawn otherwise")
    prior = case.prior
    made = prior.decode(sample(prior, prior.condition(), count=4, generator=seeded(0)))
    edge = max(prior.size // 28, 1)
    rim = torch.cat([made[:, :edge].flatten(), made[:, -edge:].flatten(), made[:, :, :edge].flatten(), made[:, :, -edge:].flatten()])
    assert abs(float(rim.median()) - prior.background) < 0.1


def test_gradients_reach_the_rendering_and_no_weights(case: Case):
    views = views_of(case)
    rgb, alpha, depth = (x.clone().requires_grad_() for x in (views.rgb, views.alpha, views.depth))
    case.prior.encode(Views(rgb, alpha, depth, views.normal, views.cameras)).square().sum().backward()
    moved = rgb.grad if case.has_pictures else depth.grad
    assert moved is not None and bool(moved.any()) and torch.isfinite(moved).all()
    assert alpha.grad is not None and (bool(alpha.grad.any()) or case.prior.background == 0)
    if isinstance(case.prior, torch.nn.Module):
        assert not case.prior.training and not any(p.requires_grad for p in case.prior.parameters())


@pytest.mark.parametrize("end", [0, -1])
def test_its_denoiser_is_finite_at_both_ends_and_the_null_serves_any_batch(case: Case, end: int):
    prior, null = case.prior, case.prior.condition()
    assert rows(null) <= {1}
    sigma = prior.denoiser.sigmas[end]
    x = noise(case, 3) * float(1 + sigma)
    with torch.no_grad():
        made = prior.denoiser.denoise(x, sigma, null)
        first = prior.denoiser.denoise(x[:1], sigma, null)
    assert made.shape == x.shape and made.dtype == x.dtype and torch.isfinite(made).all()
    # a sample does not depend on its batch, but for sums; what rounds the noise by 1e-6 rounds x0 sigma times as much
    torch.testing.assert_close(made[:1], first, rtol=1e-3, atol=max(1e-3, 1e-6 * float(sigma)))


def test_a_condition_has_one_row_for_all_or_one_for_each(case: Case):
    prior, n = case.prior, 3
    there = prior.views() if case.together > 1 else cameras(n)
    picture = Reference(views_of(case).over(prior.background)[:1], cameras(1))
    asked: dict[str, dict[str, Any]] = {"cameras alone": {"cameras": there}}
    if "picture" in case.reads:
        asked["a picture"] = {"reference": picture, "cameras": there}
        asked["an encoded picture"] = {"reference": prior.encode_reference(picture), "cameras": there}
    if "text" in case.reads:
        asked["a text"] = {"text": "a red chair", "cameras": there}
    conditions = {name: prior.condition(**arguments) for name, arguments in asked.items()}
    for name, cond in conditions.items():
        count = n if case.together == 1 else 1
        assert rows(cond) <= {1, count}, name
        assert torch.isfinite(prior.denoiser.denoise(noise(case, count), 1.0, cond)).all()
    if "picture" in case.reads:
        one, two = conditions["a picture"], conditions["an encoded picture"]
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_hint_is_asked_for_by_those_that_use_one(case: Case):
    prior = case.prior
    there = prior.views() if case.together > 1 else cameras(2, prior.size)
    asked: list[Camera] = []

    def hint(at: Camera) -> Hint:
        asked.append(at)
        n, (h, w) = len(at), at.size
        return Hint(torch.rand(n, h, w, 3, generator=seeded(4)), torch.rand(n, h, w, PLANES, generator=seeded(5)))

    told = prior.condition(cameras=there, hint=hint)
    assert len(asked) == (1 if prior.uses_hint else 0) and all(at is there for at in asked)
    prior.condition(hint=hint)  # no cameras, nothing to render
    assert len(asked) == (1 if prior.uses_hint else 0)
    plain = prior.condition(cameras=there)
    x = noise(case, 1 if case.together > 1 else 2)
    same = torch.equal(prior.denoiser.denoise(x, 2.0, told), prior.denoiser.denoise(x, 2.0, plain))
    assert same != prior.uses_hint


def test_a_seed_is_a_sample(case: Case):
    prior = case.prior
    sampler = Sampler(3, 1.5, 0.5)

    def made(seed: int) -> Tensor:
        return sample(prior, prior.condition(), count=2, sampler=sampler, generator=seeded(seed))

    first = made(0)
    assert first.shape == (2, *prior.shape) and torch.equal(first, made(0))
    assert (first - made(1)).abs().max() > 1e-2 and (first[0] - first[1]).abs().max() > 1e-2
    both = sample(prior, prior.condition(), count=2, sampler=sampler, generator=[seeded(5), seeded(6)])
    alone = sample(prior, prior.condition(), sampler=sampler, generator=[seeded(6)])
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3)  # its own generator: the batch plays no part, but for sums


def test_wrong_arguments_are_refused(case: Case):
    prior, reference = case.prior, Reference(torch.ones(1, 8, 8, 3), cameras(1))
    if "picture" not in case.reads:
        for ask in (lambda: prior.encode_reference(reference), lambda: prior.condition(reference)):
            with pytest.raises(ValueError, match="reference"):
                ask()
    else:
        with pytest.raises(ValueError, match="cameras"):
            prior.condition(Reference(torch.ones(2, 8, 8, 3), cameras(1)), cameras(3))
    if "text" not in case.reads:
        with pytest.raises(ValueError, match="text"):
            prior.condition(text="a chair")
    with pytest.raises(ValueError, match="rgb"):
        prior.encode_pictures(torch.ones(case.together, 3, 8, 8))
    null = prior.condition()
    with pytest.raises(ValueError, match="noise: expected"):
        sample(prior, null, noise=torch.zeros(1, 2, 2), generator=seeded(0))
    with pytest.raises(ValueError, match="steps of sampling"):
        sample(prior, null, sampler=Sampler(100_000, 1.0, 0.0), generator=seeded(0))


# ---- the battery itself ----


def test_every_kind_is_in_the_battery():
    opened = {"mini": "zero123-mini", "mini in words": TEXT, "port 1": "zero123", "port 2, stable": "stable-zero123"}
    opened |= {
        "converted": "zero123-xl",
        "digits-ddpm": "ddpm",
        "digits-ncsn": "ncsn",
        "deepfloyd": "deepfloyd-if",
        "edits": "instruct-pix2pix",
        "extended": EXTENDED,
        "wonder3d": "wonder3d",
        "coordinates": "sweetdreamer",
        "mvdream": "mvdream",
        "sixteen views": "syncdreamer",
    }
    assert set(opened) <= set(CASES) and set(opened.values()) == set(LAYOUTS)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_joint_prior_is_sampled_in_closed_form(guidance: float):
    """Of N(m, c**2) a step of DDIM from s to s' multiplies x - m by (c**2 + s s') / (c**2 + s**2); it begins at sqrt(1 + s**2) noise.

    Guidance moves the mean, from the null's 0 to g m; each of the views has its own.
    """
    prior, n = Joint(), 10
    cond = prior.condition(cameras=prior.views(), text="cat")  # the mean is 1 in view 3
    unit = noise(Case(prior, ("text",)), 5)
    made = sample(prior, cond, noise=unit, sampler=Sampler(n, guidance, 0.0), generator=seeded(0))
    levels = [*prior.denoiser.sigmas.flip(0)[:: 50 // n].tolist(), 0.0]
    mean = guidance * cond["mean"].view(1, prior.V, 1, 1, 1)
    off, c2 = (1 + levels[0] ** 2) ** 0.5 * unit - mean, prior.SPREAD**2
    for s, after in pairwise(levels):
        off = off * (c2 + s * after) / (c2 + s**2)
    torch.testing.assert_close(made, mean + off, rtol=0, atol=1e-5)  # float32


def test_a_caller_that_needs_one_class_of_priors_is_given_no_other(tmp_path: Path):
    from bozzetto.errors import InputError

    assert isinstance(load_as(Zero123, "mini"), Zero123)
    for name, kind in (("mini", TEXT), ("digits-ddpm", None)):
        with pytest.raises(InputError, match="has no use here; give one of kind zero123"):
            load_as(Zero123, name, kind)
    with pytest.raises(InputError, match=r"kind zero123 was asked for, but its config.json says ddpm"):
        load("digits-ddpm", "zero123")
    with pytest.raises(InputError, match="reads no text"):
        load("mini", "zero123-mini", text=MINI / "clip")


def test_a_text_tower_says_that_a_prior_is_told_in_words(tmp_path: Path):
    assert type(load("mini", text=MINI / "clip")) is type(load("mini", TEXT))
    folder = text_folder(tmp_path / "folder")
    tower = tmp_path / "tower"
    tower.mkdir()
    for name in ("text_encoder", "tokenizer"):
        (folder / name).rename(tower / name)
    assert load_as(TextToImage, folder, text=tower).excess("a chair") == 0
