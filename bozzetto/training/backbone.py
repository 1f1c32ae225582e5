# SPDX-License-Identifier: Apache-2.0
"""Training of the one backbone of the embedded diffusion priors: three parts novel views, one part text-to-image.

Novel views are Zero-1-to-3's (arXiv:2303.11328) with its dropouts; half of them also see the geometric hint of `priors.hint`. Text
rows put the text tower's tokens where the picture's token stands, and nothing where latents do. v-prediction on Stable Diffusion's
noise levels, shifted to end in noise alone (Lin et al. 2023, arXiv:2305.08891): small latents keep their layout at the levels where
large ones have lost it. Sample i is a function of i, noise and all.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.data.captions import caption
from bozzetto.diffusion.losses import prediction_loss
from bozzetto.priors import components, loading, saving
from bozzetto.priors.hint import PLANES
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.sampling import SMALL, Sampler, sample
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.priors.zero123 import Zero123, moved, pose_projection
from bozzetto.render.ssim import psnr
from bozzetto.training.loop import LoopSettings, samples_seen, train
from bozzetto.training.towers import WIDTH, tokens

SCHEDULE = NoiseSchedule(prediction="v", is_rescaled=True)
WIDTHS = (64, 96, 128)
PAPER = 0.9  # what is brighter in all colours counts as background where a picture has no alpha: codecs ring a little
TEXT_EVERY = 4  # of this many batches, one is text-to-image


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.backbone --latents FOLDER --validation FOLDER --vae FOLDER --towers FOLDER --out FOLDER`"""

    latents: Path
    """of `training.latents`"""
    validation: Path
    """latents of objects that nobody trains on"""
    vae: Path
    """`vae/` of the codec that encoded them"""
    towers: Path
    """a run of `training.towers`"""
    out: Path
    """the run's folder; `OUT/prior` is the prior, `OUT/state.safetensors` where the run stands"""
    start: Path | None = None
    """a prior's folder to begin from where OUT has no state, `mini` for the embedded one; by default OUT/prior if it is there"""
    prediction: Literal["v", "eps"] = "v"
    """what the network says"""
    rescaled: bool = True
    """noise levels shifted to end in noise alone; without, as Stable Diffusion has them. What each does is in docs/benchmarks.md"""
    widths: tuple[int, ...] = WIDTHS
    """channels of the U-Net's levels; half of them make it three times as fast, for comparisons and for a guide"""
    compile: bool = False
    """fuse the U-Net's kernels before the first step: worth it on a GPU; on two CPU cores it took six minutes and was given up"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(samples=4_000_000, lr=0.01, cooldown=0.4, ema=0.999, workers=0, validate_every=40_000)
    )


@dataclass(frozen=True)
class Encoded:
    """Objects as the codec and the image tower see them.

    latents (N, V, C, h, w), hint (N, G, V, C, h, w), planes (N, G, V, PLANES, h, w), embedding (N, V, E): float16
    azimuth, elevation  (N, V) radians; about: N rows of noun, source, colours
    """

    latents: Tensor
    hint: Tensor
    planes: Tensor
    embedding: Tensor
    azimuth: Tensor
    elevation: Tensor
    about: list[dict[str, Any]]

    @classmethod
    def of(cls, folder: Path) -> Encoded:
        """All chunks of a folder, in memory: 200 kB an object."""
        from safetensors import safe_open

        names = ("latents", "hint", "planes", "embedding", "azimuth", "elevation")
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        about: list[dict[str, Any]] = []
        for path in sorted(folder.glob("chunk_*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in names:
                    parts[name].append(file.get_tensor(name))
                about += json.loads(file.metadata()["about"])
        if not about:
            raise FileNotFoundError(f"{folder}: no chunk_*.safetensors; write them with bozzetto.training.latents")
        return cls(**{name: torch.cat(parts[name]) for name in names}, about=about)

    def pose(self, k: int, seen: int, wanted: int) -> Tensor:
        """`zero123.relative_pose` (4,) of one view of an object to another, on one sphere."""
        polar, turn = self.elevation[k, seen] - self.elevation[k, wanted], self.azimuth[k, wanted] - self.azimuth[k, seen]
        return moved(polar, turn, torch.zeros(()))


class Rows(Dataset[dict[str, Tensor]]):
    """Sample i of training, a function of i: a latent, its noise and level, and what it is asked under.

    is_text is the same for all rows of a batch; rows of novel views have no tokens, rows of text no picture.
    """

    def __init__(self, data: Encoded, words: Tensor | None, scale: float, seed: int, batch: int) -> None:
        self.data, self.words, self.scale, self.seed, self.batch = data, words, scale, seed, batch

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, 81, i])
        return self.row(rng, is_text=self.words is not None and i // self.batch % TEXT_EVERY == TEXT_EVERY - 1)

    def row(self, rng: np.random.Generator, *, is_text: bool = False, hinted: bool | None = None, whole: bool = False) -> dict[str, Tensor]:
        """hinted: whether to show the hint, or as it falls; whole: without the dropouts."""
        data = self.data
        n, views, channels, h, w = data.latents.shape
        k, wanted = int(rng.integers(n)), int(rng.integers(views))
        made = {
            "x0": data.latents[k, wanted].float() * self.scale,
            "noise": torch.from_numpy(rng.standard_normal((channels, h, w), np.float32)),
            "k": torch.tensor(int(rng.integers(SCHEDULE.steps))),
            "is_text": torch.tensor(is_text),
        }
        if is_text:
            assert self.words is not None
            said = self.words[k, int(rng.integers(self.words.shape[1]))]
            return made | {"tokens": said, "azimuth": data.azimuth[k, wanted]}
        guessed = data.hint.shape[1]
        seen = int(rng.integers(guessed)) if rng.random() < 0.7 else int(rng.integers(views))
        if seen == wanted:
            wanted = (wanted + 1 + int(rng.integers(views - 1))) % views
            made["x0"] = data.latents[k, wanted].float() * self.scale
        u, shown = float(rng.random()), float(rng.random()) < 0.7 if hinted is None else hinted
        u = 1.0 if whole else u
        image, embedding = data.latents[k, seen].float(), data.embedding[k, seen].float()
        hint = torch.zeros(channels + PLANES, h, w)
        if shown and seen < guessed and not 0.05 <= u < 0.10:  # both dropped: nothing is known at all
            hint = torch.cat([data.hint[k, seen, wanted].float() * self.scale, data.planes[k, seen, wanted].float()])
        return made | {
            "image": image if u < 0.05 or u >= 0.15 else torch.zeros_like(image),
            "embedding": embedding if u >= 0.10 else torch.zeros_like(embedding),
            "pose": data.pose(k, seen, wanted),
            "hint": hint,
        }


class Backbone(nn.Module):
    """What is trained: the U-Net and the projection of [embedding, pose] to a token."""

    def __init__(
        self, channels: int, side: int, embed: int, prediction: str = SCHEDULE.prediction, widths: tuple[int, ...] = WIDTHS
    ) -> None:
        super().__init__()
        self.prediction = prediction
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel(
            sample_size=side,
            in_channels=3 * channels + PLANES,
            out_channels=channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=widths,
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=16,
        )
        with torch.no_grad():
            unet.conv_in.weight[:, 2 * channels :] = 0  # the hint is learnt as an addition
        self.network, self.projection = ConditionedUNet(unet), pose_projection(embed, WIDTH)

    def forward(self, batch: dict[str, Tensor], alpha_bar: Tensor, words: Tensor | None = None) -> Tensor:
        """(B,) losses of a batch of `Rows`; words (B, L, WIDTH), the text tower's states, where it is text."""
        if words is not None:
            cond: dict[str, Tensor] = {"token": words}
        else:
            token = self.projection(torch.cat([batch["embedding"], batch["pose"]], -1))[:, None]
            cond = {"image_latent": batch["image"], "token": token, "hint": batch["hint"]}
        return prediction_loss(self.network, batch["x0"], batch["noise"], batch["k"], alpha_bar, self.prediction, cond)


def text_tower(folder: Path) -> Any:
    """The frozen text tower and its tokenizer, of a run of `training.towers`."""
    from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

    tower = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32, local_files_only=True)
    return tower.eval().requires_grad_(False), PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True)


def captions(data: Encoded, tokenizer: Any, count: int = 8, seed: int = 0) -> Tensor:
    """(N, count, L) tokens: ways to say each object. Captions name no side, so that they fit all of its views."""
    rng = np.random.default_rng([seed, 82])
    said = [caption(row["noun"], row["colours"], 0.0, rng).split(",")[0] for row in data.about for _ in range(count)]
    return tokens(tokenizer, said).view(len(data.about), count, -1)


def fixed(rows: Rows, count: int, *, hinted: bool, is_text: bool = False) -> dict[str, Tensor]:
    """Rows that are the same at each validation, levels spread evenly."""
    made = [rows.row(np.random.default_rng([83, i]), is_text=is_text, hinted=hinted, whole=True) for i in range(count)]
    batch = {key: torch.stack([m[key] for m in made]) for key in made[0]}
    batch["k"] = (torch.arange(count) * 997) % SCHEDULE.steps
    return batch


@torch.no_grad()
def drawn(prior: Zero123, batch: dict[str, Tensor], sampler: Sampler = SMALL, *, seed: int = 0) -> Tensor:
    """Latents (B, C, h, w), scaled, that the prior samples under a batch of `Rows`."""
    token = prior.projection(torch.cat([batch["embedding"], batch["pose"]], -1))[:, None]
    cond = {"image_latent": batch["image"], "token": token, "hint": batch["hint"]}
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch["x0"].shape, generator=generator).to(batch["x0"])
    return sample(prior, cond, noise=noise, sampler=sampler, generator=generator)


def pixel_psnr(made: Tensor, truth: Tensor) -> float:
    """Mean over pictures (N, H, W, 3) in [0, 1], over white, of the PSNR over the union of what either shows, dB."""
    return float(psnr(made, truth, (made < PAPER).any(-1) | (truth < PAPER).any(-1)).mean())


def outline_iou(made: Tensor, truth: Tensor) -> float:
    """Mean IoU of what pictures (N, H, W, 3) show on white. PSNR alone is fooled: a pale pattern all round an object raises it."""
    a, b = (made < PAPER).any(-1), (truth < PAPER).any(-1)
    return float(((a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)).mean())


def main(settings: Settings) -> None:
    """Train; after each validation the prior stands in `OUT/prior`."""
    data, unseen = Encoded.of(settings.latents), Encoded.of(settings.validation)
    codec = components.codec(settings.vae, torch.float32, "cpu")
    vision = components.vision(settings.towers / "image_encoder", torch.float32, "cpu")
    text, tokenizer = text_tower(settings.towers)
    scale = codec.scaling_factor
    channels, side = data.latents.shape[2], data.latents.shape[-1]
    with torch.random.fork_rng():
        torch.manual_seed(settings.loop.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        network = Backbone(channels, side, data.embedding.shape[-1], settings.prediction, settings.widths)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    begun = 0
    if not (settings.out / "state.safetensors").exists() and (start := first_weights(settings)) is not None:
        begun = begin_from(start, network)
        print(f"no state in {settings.out}: beginning from {start}, {begun} samples", flush=True)
    if settings.compile:
        network.network.unet.compile()
    schedule = replace(SCHEDULE, prediction=settings.prediction, is_rescaled=settings.rescaled)
    alpha_bar = schedule.alpha_bar().float()
    rows = Rows(data, captions(data, tokenizer), scale, settings.loop.seed, settings.loop.batch)
    held = Rows(unseen, captions(unseen, tokenizer), scale, 0, settings.loop.batch)
    few = fixed(held, 64, hinted=True)
    few = {key: value[few["hint"].flatten(1).any(1)][:32] for key, value in few.items()}  # the first views alone have hints
    batches = {
        "hinted": fixed(held, 256, hinted=True),
        "plain": fixed(held, 256, hinted=False),
        "text": fixed(held, 256, hinted=False, is_text=True),
    }

    def said(batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            words = batch["tokens"]
            states: Tensor = text.to(words.device)(input_ids=words).last_hidden_state
            return states.float()

    def loss(net: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        is_text = bool(batch["is_text"][0])
        total = net(batch, alpha_bar, said(batch) if is_text else None).float().mean()
        return total, {"total": total, "text" if is_text else "views": total}

    def prior_of(average: nn.Module) -> Zero123:
        assert isinstance(average, Backbone)
        made = Zero123(average.network.unet, codec, vision, average.projection, schedule, "zero123-mini")
        return made.to(next(average.parameters()).device)

    def validate(average: nn.Module) -> dict[str, float]:
        average.eval()
        scores = {}
        with torch.no_grad():
            for name, batch in batches.items():
                here = {k: v.to(next(average.parameters()).device) for k, v in batch.items()}
                scores[f"{name}_loss"] = float(average(here, alpha_bar, said(here) if name == "text" else None).mean())
            prior = prior_of(average)
            some = {k: v.to(next(average.parameters()).device) for k, v in few.items()}
            truth = prior.decode(some["x0"])
            scores["hint_psnr"] = pixel_psnr(prior.decode(some["hint"][:, :channels]), truth)
            for name, hint in (("hinted", some["hint"]), ("plain", torch.zeros_like(some["hint"]))):
                made = prior.decode(drawn(prior, {**some, "hint": hint}))
                scores[f"{name}_psnr"], scores[f"{name}_iou"] = pixel_psnr(made, truth), outline_iou(made, truth)
        keep(prior, settings.out / "prior")
        return scores

    def sheet(average: nn.Module) -> Tensor:
        prior = prior_of(average)
        some = {k: v[:12].to(next(average.parameters()).device) for k, v in few.items()}
        images = [some["image"] * scale, some["hint"][:, :channels], drawn(prior, some), some["x0"]]
        with torch.no_grad():
            return torch.cat([torch.cat([*prior.decode(x)], 0) for x in images], 1).permute(2, 0, 1).cpu()

    average = train(network, rows, loss, settings.out, settings.loop, validate, sheet, begun)
    keep(prior_of(average), settings.out / "prior")


def first_weights(settings: Settings) -> Path | None:
    """The prior that a run without a state begins from, if any."""
    if settings.start is not None:
        return loading.MINI / loading.NAMES["mini"] if str(settings.start) == "mini" else settings.start
    return settings.out / "prior" if (settings.out / "prior").is_dir() else None


def begin_from(folder: Path, network: Backbone) -> int:
    """Give the network the averaged weights of a prior's folder; returns the samples that they have seen.

    raises  InputError for weights of another shape
    """
    parts = {"unet": network.network.unet, "cc_projection": nn.ModuleDict({"projection": network.projection})}
    for name, module in parts.items():
        tensors = components.Tensors(folder / name)
        components.check(folder / name, {k: tuple(v.shape) for k, v in module.state_dict().items()}, tensors.shapes)
        module.load_state_dict({k: tensors.read(k, torch.float32, "cpu") for k in tensors.shapes})
    return samples_seen(folder)


def keep(prior: Zero123, folder: Path) -> None:
    """The prior as a folder, in float16, in place of one that is there."""
    from copy import deepcopy

    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    saving.save(deepcopy(prior).half(), new)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
