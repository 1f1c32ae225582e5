# SPDX-License-Identifier: Apache-2.0
"""Triples of a language model: what is refused, a server on this machine, and a folder of transformers'."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from bozzetto.data.instructions import ASKS, ENDS, SAYS, Triple
from bozzetto.data.language import endpoint, local, triples
from bozzetto.errors import InputError

GOOD = f"make it blue{SAYS}a blue chair"


def test_ip_7_bad_answers_are_counted_and_asked_for_again_three_times_and_no_more():
    answers = iter(["nothing", GOOD + ENDS, "a", "b", "c", GOOD + ENDS])
    asked: list[str] = []

    def complete(prompt: str) -> str:
        asked.append(prompt)
        return next(answers)

    made, refused = triples(complete, ["a red chair", "a table", "a red chair"])
    assert made == [Triple("a red chair", "make it blue", "a blue chair")] and refused == 4  # said twice, kept once
    assert asked == ["a red chair" + ASKS] * 2 + ["a table" + ASKS] * 3 + ["a red chair" + ASKS]


def test_a_server_is_asked_as_openai_has_it():
    seen: list[dict[str, object]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(asked | {"path": self.path, "key": self.headers.get("Authorization")})
            said = b"[]" if asked["model"] == "odd" else json.dumps({"choices": [{"text": GOOD, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        made, refused = triples(endpoint(url, "small", key="secret"), ["a red chair"])
        assert made == [Triple("a red chair", "make it blue", "a blue chair")] and not refused
        assert seen[0]["path"] == "/v1/completions" and seen[0]["key"] == "Bearer secret" and seen[0]["stop"] == [ENDS]
        assert seen[0]["prompt"] == "a red chair" + ASKS
        with pytest.raises(InputError, match="gives no completions"):
            endpoint(url, "odd")("x")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(InputError, match="gives no completions"):
        endpoint(url, "small", timeout=2)("x")


def test_a_folder_of_transformers_goes_on_by_its_seed(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 — layers draw their weights from the global state
        GPT2LMHeadModel(GPT2Config(vocab_size=len(letters), n_positions=48, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    first, again, other = (local(tmp_path, seed=s)("a red chair" + ASKS) for s in (0, 0, 1))
    assert first and first == again != other
    assert triples(local(tmp_path), ["a red chair"], tries=2) == ([], 2)  # random weights write no triple
    with pytest.raises(InputError, match="holds no language model"):
        local(tmp_path / "nothing")
