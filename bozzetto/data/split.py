# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: SIM905 (a list of words reads best as a line of words)
"""Which side of the split an object is on, by its name alone, so that near-duplicates stay together.

The key is the family and the model file's stem without digits, versions, sizes, colours and states; its hash decides.
`heldout` is for the final judgement alone: training, tuning and model selection skip all of it. The salt was chosen
once, for balance of categories only, before any model was trained. Never change it.
"""

from __future__ import annotations

import hashlib
import re

SALT = "bozzetto-144"
SIDES = ("train", "validation", "heldout")

_VARIANT = frozenset(
    "left right small large big little tall high low lower upper double triple wall square rounded round white whites black red green "
    "blue yellow brown grey gray clear dark light modern old new regular arched closed open opened bended snow shadows sport rect with "
    "and or the of de set single".split()
)
_HEADS = frozenset(
    "window door table chair sofa armchair lamp bed concept iron induction kitchen parking fleche billet exterior porch mannequin wooden "
    "bottle glass".split()
)
_PLUGS = frozenset("antenna dimmer switch plug rj socket".split())


def key(family: str, stem: str) -> str:
    """What near-duplicates share: `key("Scopia", "little_lamp2") == "scopia:lamp"`."""
    words = [w for w in re.split(r"[^A-Za-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", stem).lower()) if w]
    if _PLUGS & set(words):
        return family.lower() + ":plug"
    kept = [w for w in words if w not in _VARIANT and len(w) > 1] or words or [stem.lower()]  # a name without letters stays itself
    return family.lower() + ":" + " ".join(kept[:1] if kept[0] in _HEADS else kept)


def side(family: str, stem: str, salt: str = SALT) -> str:
    """ "train", "validation" or "heldout" for a catalogue's model; stem: its file's name without folder and suffix."""
    return _side(salt + "|" + key(family, stem))


def side_of_file(stem: str, salt: str = SALT) -> str:
    """The same for a file of a folder without families (an Objaverse folder): by the hash of its stem, 80/10/10."""
    return _side(salt + "|" + stem)


def _side(text: str) -> str:
    h = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100
    return "train" if h < 80 else "validation" if h < 90 else "heldout"
