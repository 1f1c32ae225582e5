# SPDX-License-Identifier: Apache-2.0
"""Triples of a language model: any function from a prompt to what it goes on to write, and two adapters to make one.

The model is one that was fine-tuned on a few hundred of our triples (`instructions.write_lines`), as InstructPix2Pix's was
(arXiv:2211.09800): the prompt is a caption and the first mark, nothing else. Lines that are no triple are counted and refused; a caption
is asked for a few times, no more.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from bozzetto.data.instructions import ASKS, ENDS, Triple, parsed
from bozzetto.errors import InputError

Complete = Callable[[str], str]
"""A prompt to its continuation; different ones when asked again"""
TEMPERATURE, TOKENS, PENALTY = 0.7, 256, 0.1  # the paper's


def triples(complete: Complete, captions: Iterable[str], *, tries: int = 3) -> tuple[list[Triple], int]:
    """A triple for each caption for which one of `tries` answers is one, each said once; and how many answers were refused."""
    found: dict[tuple[str, str], Triple] = {}
    refused = 0
    for caption in captions:
        for _ in range(tries):
            said = parsed(caption, complete(caption + ASKS))
            if said is not None:
                found.setdefault((said.caption, said.instruction), said)
                break
            refused += 1
    return list(found.values()), refused


def endpoint(url: str, model: str, *, key: str | None = None, timeout: float = 60.0) -> Complete:
    """A server that speaks OpenAI's completions, at `url`/completions, such as vLLM's or llama.cpp's.

    key     sent as the bearer's, if there is one
    raises  InputError, when asked, for a server that does not answer, or not so
    """

    def complete(prompt: str) -> str:
        body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": TEMPERATURE, "frequency_penalty": PENALTY}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(f"{url.rstrip('/')}/completions", json.dumps(body | {"stop": [ENDS]}).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                said = json.loads(answer.read())["choices"][0]
            text, ended = str(said["text"]), said.get("finish_reason") == "stop"
        except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            line = " ".join(str(error).split())[:120]
            raise InputError(f"{url}: gives no completions ({line}); give the address of an OpenAI-compatible server, .../v1") from None
        return text + ENDS if ended and ENDS not in text else text  # servers leave out where they stopped

    return complete


def local(folder: Path, *, seed: int = 0, device: str = "cpu") -> Complete:
    """A causal language model in a folder, as transformers saves it: weights as safetensors, tokenizer.json.

    raises  InputError for a folder that holds none
    """
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder}: holds no language model; give a folder with config.json, tokenizer.json and safetensors")
    try:
        how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **how).to(device).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no language model can be read ({' '.join(str(error).split())[:120]}); save it again") from None
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def complete(prompt: str) -> str:
        ids = tokenizer(prompt, return_tensors="pt").input_ids.to(device)
        begun, most = ids.shape[1], int(getattr(model.config, "max_position_embeddings", 1 << 20))
        for _ in range(min(TOKENS, most - begun)):
            odds = (model(ids).logits[0, -1].float() / TEMPERATURE).softmax(-1).cpu()
            ids = torch.cat([ids, torch.multinomial(odds, 1, generator=generator)[None].to(device)], 1)
            text = str(tokenizer.decode(ids[0, begun:]))
            if ENDS in text:
                return text
        return str(tokenizer.decode(ids[0, begun:]))

    return complete
