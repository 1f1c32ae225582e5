# SPDX-License-Identifier: Apache-2.0
"""Texts to tokens, of CLIP and of T5, from a folder's files: data alone, nothing that a folder holds is run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bozzetto.errors import InputError
from bozzetto.priors.components import one_line, read_json

END = "<|endoftext|>"  # CLIP's last token, which also pads


def tokenizer(folder: Path, length: int, words: int) -> Any:
    """A tokenizers.Tokenizer that pads and cuts to `length` tokens: data alone, no code.

    Of tokenizer.json, or of CLIP's vocab.json and merges.txt, as older folders have it; it pads with the end of text, or with what
    special_tokens_map.json says (Stable Diffusion 2: "!").

    words   how many the text tower knows
    raises  InputError where a file is missing or damaged, has other words, or no end of text
    """
    path = folder / "tokenizer.json"
    is_old = not path.exists() and (folder / "vocab.json").exists()
    made = _tokenizer(folder / "vocab.json", _from_merges) if is_old else _tokenizer(path)
    if made.token_to_id(END) is None or made.get_vocab_size() != words:
        raise InputError(f"{path}: expected {words} words, {END} among them, got {made.get_vocab_size()}; it is another text tower's")
    special = folder / "special_tokens_map.json"
    pad: Any = read_json(special).get("pad_token", END) if special.exists() else END
    pad = pad.get("content", END) if isinstance(pad, dict) else pad
    if (pad_id := made.token_to_id(str(pad))) is None:
        raise InputError(f"{special}: pad_token {pad!r} is none of the tokenizer's words; fetch it again")
    made.enable_truncation(length)
    made.enable_padding(pad_id=pad_id, pad_token=str(pad), length=length)
    return made


def _from_merges(vocabulary: Path) -> Any:
    """CLIP's tokenizer, as transformers has it."""
    from transformers import CLIPTokenizer

    path = vocabulary.with_name("merges.txt")
    if not path.is_file():
        raise InputError(f"{path.parent}: {path.name} is missing; fetch the whole folder again")
    lines = path.read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    return CLIPTokenizer(vocab=read_json(vocabulary), merges=merges).backend_tokenizer


def pieces(folder: Path, words: int, end: int) -> Callable[[str], list[int]]:
    """T5's tokenizer: a text to its tokens, as many as it takes, and the end. Data alone, no code: the folder's tokenizer.json, or else
    its spiece.model, read by SentencePiece.

    words   how many the text tower knows, some of which may be no token's
    raises  InputError where both are missing, one is damaged or another text tower's, or SentencePiece is not installed
    """
    path = next((p for name in ("tokenizer.json", "spiece.model") if (p := folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: tokenizer.json or spiece.model is missing; fetch the whole folder again")
    if path.suffix == ".model":
        if not importlib.util.find_spec("sentencepiece"):
            raise InputError(f"{path}: needs sentencepiece to be read; install it: pip install 'bozzetto[priors]'")
        from sentencepiece import SentencePieceProcessor

        try:
            model = SentencePieceProcessor(model_proto=path.read_bytes())
        except Exception as error:  # a RuntimeError, or what its C++ raises
            raise InputError(f"{path}: no tokenizer can be read from it ({one_line(error)}); fetch it again") from None
        count, tokens = model.get_piece_size(), lambda text: [*model.encode(text), model.eos_id()]
    else:
        made = _tokenizer(path)
        made.no_truncation()
        made.no_padding()
        count, tokens = made.get_vocab_size(), lambda text: list(made.encode(text).ids)
    if count > words or tokens("") != [end]:
        raise InputError(f"{path}: expected at most {words} words, and {end} to end with, got {count}; it is another text tower's")
    return tokens


def _tokenizer(path: Path, read: Callable[[Path], Any] | None = None) -> Any:
    from tokenizers import Tokenizer

    read_json(path)
    try:
        return read(path) if read else Tokenizer.from_file(str(path))
    except InputError:
        raise
    except Exception as error:  # the library raises no class of its own
        raise InputError(f"{path}: no tokenizer can be read from it ({one_line(error)}); fetch it again") from None
