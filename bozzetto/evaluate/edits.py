# SPDX-License-Identifier: Apache-2.0
"""How good edits are, on pairs whose true edit was rendered: `python -m bozzetto.evaluate.edits --pairs FOLDER --prior FOLDER`.

For each kind of edit: how often the edit is nearer to the true one than the unedited picture is, and, of recolours, than the mask filled
with the colour that was asked for, which knows the colour exactly and no light; and how much changes outside the mask. Distances are
mean absolute differences inside the mask. Then the trade-off over both scales of guidance: how much the picture stays, by CLIP's
similarity of both pictures, against how far it went where the captions did (directional similarity).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bozzetto.data.repaint import named
from bozzetto.diffusion.guidance import dual
from bozzetto.fit.retouched import retouched
from bozzetto.priors import loading, sampling
from bozzetto.priors.clip import Clip
from bozzetto.priors.instruct import InstructPix2Pix
from bozzetto.priors.sampling import Sampler
from bozzetto.training.pairs import Pairs

PAPER = 0.97  # what is brighter in all colours is background, of a rendered picture whose ball comes or goes


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.evaluate.edits --pairs FOLDER --prior FOLDER`"""

    pairs: Path
    """rendered pairs of objects that nobody trains on"""
    prior: str = "mini"
    """of edits"""
    count: int = 160
    """pairs, of all kinds as they come"""
    steps: int = 20
    """of the sampler"""
    image_scale: float = 1.0
    """S_I"""
    text_scale: float = 2.0
    """S_T"""
    scales: tuple[tuple[float, float], ...] = ()
    """S_I and S_T of the trade-off; none without"""
    batch: int = 32
    """pairs at once"""


def drawn(prior: InstructPix2Pix, before: Tensor, texts: list[str], sampler: Sampler, image_scale: float, seed: int = 0) -> Tensor:
    """Edits (B, S, S, 3) of pictures at the prior's size, an instruction each, as the prior's codec makes them."""
    latent = prior.codec.latent(before)
    token = torch.cat([prior.condition(text=t)["token"] for t in texts])
    none = prior.condition()
    guided = dual(prior.denoiser, none, {**none, "image_latent": latent}, image_scale, sampler.guidance)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latent.shape, generator=generator)
    cond = {"token": token, "image_latent": latent}
    with torch.no_grad():
        return prior.decode(sampling.descend(prior.denoiser.sigmas, guided, noise, cond, sampler, generator, None))


def edits(prior: InstructPix2Pix, pairs: Pairs, which: list[int], sampler: Sampler, image_scale: float, batch: int) -> Tensor:
    """(N, S, S, 3): what `bozzetto edit` makes of each, details and all."""
    made = []
    for rows in (which[i : i + batch] for i in range(0, len(which), batch)):
        before = pairs.before[rows].float() / 255
        after = drawn(prior, before, [pairs.said[k].instruction for k in rows], sampler, image_scale)
        with torch.no_grad():
            lost = prior.decode(prior.codec.latent(before) * prior.codec.scaling_factor)
        for x, y, z, k in zip(before, after, lost, rows, strict=True):
            alpha = pairs.mask[k].float() / 255
            if pairs.said[k].kind.startswith("part"):
                alpha = alpha * (x < PAPER).any(-1)  # the mask would say where the ball is to be
            made.append(retouched(x, alpha, z, y))
    return torch.stack(made)


def distances(made: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) mean absolute differences of pictures (N, S, S, 3) inside and outside masks (N, S, S)."""
    off = (made - truth).abs().mean(-1)
    inside, outside = mask, 1 - mask
    return tuple((off * w).sum((1, 2)) / w.sum((1, 2)).clamp(min=1) for w in (inside, outside))  # type: ignore[return-value]


def table(pairs: Pairs, which: list[int], made: Tensor) -> list[str]:
    """Rows of Markdown, one a kind of edit."""
    before, after = (x[which].float() / 255 for x in (pairs.before, pairs.after))
    mask = (pairs.mask[which] > 0).float()
    near, _ = distances(made, after, mask)
    still, _ = distances(before, after, mask)
    _, outside = distances(made, before, mask)
    said = [pairs.said[k] for k in which]
    rows = ["| edit | pairs | nearer than unedited | nearer than filled | change outside, of 255 |", "| --- | ---: | ---: | ---: | ---: |"]
    for kind in ("recolour", "material", "part added", "part removed"):
        here = [j for j, t in enumerate(said) if t.kind == kind]
        if not here:
            continue
        filled = "–"
        if kind == "recolour":
            fill = torch.stack([torch.tensor(named(said[j].asked)).float() for j in here])[:, None, None]
            flat, _ = distances(mask[here][..., None] * fill + (1 - mask[here][..., None]) * before[here], after[here], mask[here])
            filled = f"{100 * float((near[here] < flat).float().mean()):.0f} %"
        better = f"{100 * float((near[here] < still[here]).float().mean()):.0f} %"
        rows.append(f"| {kind} | {len(here)} | {better} | {filled} | {255 * float(outside[here].mean()):.2f} |")
    return rows


def main(settings: Settings) -> None:
    """Print the table, and the trade-off where scales are given."""
    prior = loading.load_as(InstructPix2Pix, settings.prior, role="edits")
    pairs, clip = Pairs.of(settings.pairs), Clip.read()
    which = list(range(min(settings.count, len(pairs.said))))
    made = edits(prior, pairs, which, Sampler(settings.steps, settings.text_scale, 1.0), settings.image_scale, settings.batch)
    print("\n".join(table(pairs, which, made)), flush=True)
    for image_scale, text_scale in settings.scales:
        made = edits(prior, pairs, which, Sampler(settings.steps, text_scale, 1.0), image_scale, settings.batch)
        before = pairs.before[which].float() / 255
        same = (clip.shown(made) * clip.shown(before)).sum(-1)
        turned = clip.directional(before, made, [pairs.said[k].caption for k in which], [pairs.said[k].edited for k in which])
        print(
            f"S_I {image_scale:g}  S_T {text_scale:g}  pictures {float(same.mean()):.3f}  directional {float(turned.mean()):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
