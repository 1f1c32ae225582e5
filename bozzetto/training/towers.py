# SPDX-License-Identifier: Apache-2.0
"""Training of the small CLIP: an image tower and a text tower that agree on what a picture shows.

Contrastive (Radford et al. 2021, arXiv:2103.00020) on an album's pictures and captions, in transformers' CLIP layout. Captions
repeat, so that a batch may hold one twice: all rows of the same caption count as right answers. The towers are frozen afterwards:
the image tower gives the priors their token, the text tower what text-to-image attends to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.data.captions import COLOURS, caption
from bozzetto.priors.zero123 import clip_pixels
from bozzetto.training.loop import LoopSettings, train

SIZE, WORDS = 64, 24  # pixels a side that the image tower sees; tokens that the text tower reads
WIDTH, EMBED = 128, 128


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.towers --album FOLDER --validation FOLDER --out FOLDER`"""

    album: Path
    """of `training.album`"""
    validation: Path
    """an album of objects that nobody trains on"""
    out: Path
    """the run's folder; the towers are written into it at the end"""
    words: int = 1500
    """entries of the tokenizer's vocabulary"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(samples=200_000, batch=128, lr=0.01, cooldown=0.6, ema=0.99, workers=0, validate_every=25_000)
    )


@dataclass(frozen=True)
class Captioned:
    """An album's pictures, small, and what captions are made of.

    pictures  (N, V, SIZE, SIZE, 4) uint8 premultiplied; azimuth (N, V)
    about     N rows: noun, source, colours
    """

    pictures: Tensor
    azimuth: Tensor
    about: list[dict[str, Any]]

    @classmethod
    def of(cls, album: Path) -> Captioned:
        """All of an album's chunks that are there."""
        from safetensors import safe_open

        pictures, azimuth, about = [], [], []
        for path in sorted(album.glob("chunk_*.safetensors")):
            with safe_open(path, "pt") as file:
                large = file.get_tensor("pictures")
                small = F.avg_pool2d(large.flatten(0, 1).movedim(-1, 1).float(), large.shape[2] // SIZE).round().to(torch.uint8)
                pictures.append(small.movedim(1, -1).reshape(*large.shape[:2], SIZE, SIZE, 4))
                azimuth.append(file.get_tensor("azimuth"))
                about += json.loads(file.metadata()["about"])
        return cls(torch.cat(pictures), torch.cat(azimuth), about)

    def pixels(self, k: Any, view: Any) -> Tensor:
        """(..., 3, SIZE, SIZE) over white, normalised as CLIP's towers see it."""
        x = self.pictures[k, view].float() / 255
        return clip_pixels((x[..., :3] + 1 - x[..., 3:]).reshape(-1, SIZE, SIZE, 3), SIZE)


class Pairs(Dataset[dict[str, Tensor]]):
    """Sample i: a picture (3, SIZE, SIZE) and its caption's tokens (WORDS,), a function of i."""

    def __init__(self, album: Captioned, tokenizer: Any, seed: int) -> None:
        self.album, self.tokenizer, self.seed = album, tokenizer, seed

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, 71, i])
        k, view = int(rng.integers(len(self.album.pictures))), int(rng.integers(self.album.pictures.shape[1]))
        row = self.album.about[k]
        said = caption(row["noun"], row["colours"], float(self.album.azimuth[k, view]), rng)
        return {"pixels": self.album.pixels(k, view)[0], "tokens": tokens(self.tokenizer, [said])[0]}


def make_tokenizer(about: list[dict[str, Any]], words: int) -> Any:
    """Byte-pair encoding of the captions' words with CLIP's special tokens, as transformers keeps it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    first, last = "<|startoftext|>", "<|endoftext|>"
    made = Tokenizer(models.BPE(unk_token=last))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=[first, last], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    lines = sorted({row["noun"] for row in about}) + [f"a photo of a {c} 3d model, front side back view and" for c in COLOURS]
    made.train_from_iterator(lines, trainer)
    ends = [(first, made.token_to_id(first)), (last, made.token_to_id(last))]
    made.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=first, eos_token=last, pad_token=last, unk_token=last, model_max_length=WORDS
    )


def tokens(tokenizer: Any, texts: list[str]) -> Tensor:
    """(B, WORDS) int64, padded with the end token, cut where longer."""
    made: Tensor = tokenizer(texts, padding="max_length", truncation=True, max_length=WORDS, return_tensors="pt").input_ids
    return made


class Towers(nn.Module):
    """Both towers and the temperature, whose inverse is learnt."""

    def __init__(self, words: int, first: int, last: int) -> None:
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

        self.vision: Any = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=160,
                intermediate_size=480,
                projection_dim=EMBED,
                num_hidden_layers=4,
                num_attention_heads=5,
                image_size=SIZE,
                patch_size=8,
                hidden_act="gelu",
            )
        )
        self.text: Any = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=words,
                hidden_size=WIDTH,
                intermediate_size=384,
                projection_dim=EMBED,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=WORDS,
                hidden_act="gelu",
                bos_token_id=first,
                eos_token_id=last,
                pad_token_id=last,
            )
        )
        self.scale = nn.Parameter(torch.tensor(2.66))  # exp: 1 / 0.07

    def forward(self, pixels: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit embeddings (B, EMBED) of pictures and texts, and the factor on their cosines."""
        seen = F.normalize(self.vision(pixel_values=pixels).image_embeds.float(), dim=-1)
        said = F.normalize(self.text(input_ids=words).text_embeds.float(), dim=-1)
        return seen, said, self.scale.float().exp().clamp(max=100)


def loss(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of who belongs to whom, both ways; rows with one caption share it. Empty captions belong to nobody."""
    seen, said, scale = network(batch["pixels"], batch["tokens"])
    words = batch["tokens"]
    told = words[:, 1] != words[:, 2]  # "" is the start and nothing but ends
    seen, said, words = seen[told], said[told], words[told]
    logits = scale * seen @ said.T
    same = (words[:, None] == words[None]).all(-1).float()
    aim = same / same.sum(1, keepdim=True)
    total = (F.cross_entropy(logits, aim) + F.cross_entropy(logits.T, aim)) / 2
    return total, {"total": total, "scale": scale}


@torch.no_grad()
def retrieval(network: Any, album: Captioned, tokenizer: Any) -> dict[str, float]:
    """How often the picture's own noun is among the one, five nearest of all nouns of an album; chance beside it."""
    network.eval()
    nouns = sorted({row["noun"] for row in album.about})
    device = network.scale.device
    said = F.normalize(network.text(input_ids=tokens(tokenizer, [f"a photo of a {n}" for n in nouns]).to(device)).text_embeds, dim=-1)
    first = five = 0
    for k, row in enumerate(album.about):
        seen = F.normalize(network.vision(pixel_values=album.pixels(k, [0, 2]).to(device)).image_embeds, dim=-1)
        best = (seen @ said.T).topk(min(5, len(nouns)), -1).indices.cpu()
        first += int((best[:, 0] == nouns.index(row["noun"])).sum())
        five += int((best == nouns.index(row["noun"])).any(-1).sum())
    network.train()
    count = 2 * len(album.about)
    return {"first": first / count, "five": five / count, "chance": 1 / len(nouns)}


def main(settings: Settings) -> None:
    """Train, then write `OUT/image_encoder`, `OUT/text_encoder` and `OUT/tokenizer`."""
    album, unseen = Captioned.of(settings.album), Captioned.of(settings.validation)
    settings.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(album.about, settings.words)
    with torch.random.fork_rng():
        torch.manual_seed(settings.loop.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        network = Towers(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    pairs = Pairs(album, tokenizer, settings.loop.seed)
    average = train(network, pairs, loss, settings.out, settings.loop, lambda n: retrieval(n, unseen, tokenizer))
    assert isinstance(average, Towers)
    average.vision.half().save_pretrained(settings.out / "image_encoder", safe_serialization=True)
    average.text.half().save_pretrained(settings.out / "text_encoder", safe_serialization=True)
    tokenizer.save_pretrained(settings.out / "tokenizer")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
