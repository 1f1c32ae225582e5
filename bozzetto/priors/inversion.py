# SPDX-License-Identifier: Apache-2.0
"""Textual inversion (Gal et al. 2022, arXiv:2208.01618): a text-to-image prior learns one word, and nothing else of it changes.

    min over v of  E over pictures, texts, sigma, noise of  |prediction - target|**2,    under texts in which a new word's embedding is v

v is one row more below the table of CLIP's text tower. It begins as the mean of the rows of words that are known. Magic123
(arXiv:2306.17843) learns its text so from the one picture: here from parts of it, half of them mirrored, under texts of TEXTS.

The file is diffusers': `learned_embeds.safetensors`, one tensor (D,) by the name of the word, which
`StableDiffusionPipeline.load_textual_inversion` reads, and AUTOMATIC1111's web UI.

Letters: D width of the tower; N pictures, S pixels a side; L tokens of a text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto import image
from bozzetto.errors import InputError
from bozzetto.files import replacing
from bozzetto.priors.text2image import TextToImage

FILE = "learned_embeds.safetensors"
LR = 5e-3  # the paper's, of Adam
TEXTS = ("{}", "a photo of {}", "a rendering of {}", "a cropped photo of {}", "a close-up photo of {}", "a good photo of {}")
SMALLEST = 0.8  # side of a part, of its picture's


class Extended(nn.Module):
    """A table of embeddings with one row more, which alone is a parameter of this module's own."""

    def __init__(self, table: Any, row: Tensor) -> None:
        super().__init__()
        self.table, self.row = table, nn.Parameter(row.detach().float().clone(), requires_grad=False)
        self.num_embeddings: int = table.num_embeddings + 1

    def forward(self, ids: Tensor) -> Tensor:
        is_new = ids == self.num_embeddings - 1
        known: Tensor = self.table(ids.masked_fill(is_new, 0))
        return torch.where(is_new[..., None], self.row.to(known), known)


def teach(prior: TextToImage, word: str, row: Tensor) -> nn.Parameter:
    """Gives a prior's tower and tokenizer one word more, in place; returns its row (D,). What the prior was made of is left as it was.

    raises  InputError for a word that it knows, or a row of another width
    """
    from tokenizers import Tokenizer

    old = prior.text_encoder
    if row.shape != (width := old.config.hidden_size,):
        raise InputError(f"{word}: is {list(row.shape)} numbers, and this prior's words are {width}; it was learnt on another")
    tokens = Tokenizer.from_str(prior.tokenizer.to_str())
    if tokens.token_to_id(word) is not None or not tokens.add_tokens([word]):
        raise InputError(f"{word}: is a word that this prior knows; choose another")
    kept: dict[int, Any] = {id(t): t for t in [*old.parameters(), *old.buffers()]}
    tower: Any = copy.deepcopy(old, kept)  # modules of its own, which hold the very tensors
    table = Extended(tower.get_input_embeddings(), row.to(old.device))
    tower.set_input_embeddings(table)
    prior.text_encoder, prior.tokenizer = tower, tokens
    return table.row


def knowing(prior: TextToImage, word: str, row: Tensor) -> TextToImage:
    """A prior that shares all with another, and knows one word more; raises InputError as `teach`."""
    made = type(prior)(prior.unet, prior.codec, prior.text_encoder, prior.tokenizer, prior.schedule).eval()
    teach(made, word, row)
    return made


class Inversion:
    """A prior that learns a word, as a `denoiser.Trainable`: conditions hold `ids` (1 or B, L), the tokens of texts.

    word  the new one, such as "<chair>"
    like  words that are known, of whose rows the mean is where it begins
    raises  InputError as `teach`
    """

    def __init__(self, prior: TextToImage, word: str, like: str) -> None:
        told = prior.tokenizer.encode(like, add_special_tokens=False)
        known = torch.tensor([i for i, is_said in zip(told.ids, told.attention_mask, strict=True) if is_said])
        table = prior.text_encoder.get_input_embeddings()
        self.word, self.prior = word, knowing(prior, word, table(known.to(prior.text_encoder.device)).float().mean(0))
        self.row = self.prior.text_encoder.get_input_embeddings().row.requires_grad_(True)
        self.denoiser, self.sigmas = self.prior.denoiser, self.prior.denoiser.sigmas

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        return self.denoiser.denoise(x, sigma, self._told(cond))

    def loss(self, x0: Tensor, noise: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        """(B,): `VPDenoiser.loss`."""
        return self.denoiser.loss(x0, noise, sigma, self._told(cond))

    def parameters(self) -> Iterator[nn.Parameter]:
        """The row (D,)."""
        return iter((self.row,))

    def ids(self, text: str) -> Tensor:
        """(1, L), for a condition."""
        return torch.tensor([self.prior.tokenizer.encode(text).ids])

    def _told(self, cond: Any) -> dict[str, Tensor]:
        tower = self.prior.text_encoder
        return {"token": tower(input_ids=cond["ids"].to(tower.device)).last_hidden_state.float()}


def varied(pictures: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """(count, S, S, 3): square parts of pictures (N, S, S, 3), of SMALLEST of their side or more, half of them mirrored."""
    side, made = pictures.shape[1], []
    for k in range(count):
        share, left, top, turn = torch.rand(4, generator=generator).tolist()
        part = side * (SMALLEST + (1 - SMALLEST) * share)
        cut = image.resample(pictures[k % len(pictures)], (left * (side - part), top * (side - part), part), side)
        made.append(cut.flip(1) if turn < 0.5 else cut)
    return torch.stack(made)


def save(word: str, row: Tensor, folder: Path) -> None:
    """Write FILE."""
    from safetensors.torch import save_file

    with replacing(folder / FILE) as part:
        save_file({word: row.detach().float().cpu().clone()}, part, metadata={"format": "pt"})


def read(path: Path) -> tuple[str, Tensor]:
    """The word and its row (D,); raises InputError for a file that is damaged, or holds more than one word of one row."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({' '.join(str(error).split())[:120]}); fetch it again") from None
    rows = [row for row in found.values() if row.ndim == 1 or (row.ndim == 2 and len(row) == 1)]
    if len(found) != 1 or not rows:
        raise InputError(f"{path}: expected one word of one row, got {len(found)} tensors; give an embedding that is one token")
    return next(iter(found)), rows[0].flatten().float()
