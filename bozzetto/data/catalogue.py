# SPDX-License-Identifier: Apache-2.0
"""The catalogue inside a Sweet Home 3D furniture library (`.sh3f`, a zip): what each model is, its size, who made it.

`python -m bozzetto.data.catalogue LIBRARY_FOLDER > ATTRIBUTION.md` writes the credit that the licences ask for.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bozzetto.data import split
from bozzetto.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One model of a library.

    number    its number in the catalogue's file, from 1
    name      English, lower case, corrected; a marked product by its kind ("mobile phone")
    title     the catalogue's own English name, for credits
    family    the library's file name without suffix: "Scopia"
    model     path inside the zip; stem: its file name without suffix
    side      "train", "validation" or "heldout"
    size      (width, height, depth) in centimetres: of x, y (up) and z (front) of the file after `rotation`
    rotation  row-major 3x3, to be applied first, or None
    icon      path inside the zip of a picture of it, or ""
    """

    number: int
    name: str
    title: str
    family: str
    model: str
    stem: str
    side: str
    creator: str
    licence: str
    licence_url: str
    category: str
    tags: tuple[str, ...]
    size: tuple[float, float, float]
    rotation: tuple[float, ...] | None
    icon: str

    @property
    def source(self) -> str:
        """ "Scopia/armchair2": unique over all libraries."""
        return f"{self.family}/{self.stem}"

    @property
    def credit(self) -> str:
        """One line: who made it, under which licence, and that it was changed."""
        holder = _HOLDERS.get(self.family, "")
        by = f"{self.creator} ({holder})" if self.family in _OF_MANY and self.creator not in ("", "Blend Swap") else holder or self.creator
        return f'"{self.title}" by {by}, {self.family}, {self.licence} ({self.licence_url}); modified: rescaled, re-rendered'


def libraries(folder: str | Path) -> list[Path]:
    """The `.sh3f` files of a folder, sorted. Raises InputError if there is none."""
    found = sorted(Path(folder).glob("*.sh3f"))
    if not found:
        raise InputError(f"{folder}: no .sh3f library found; give Sweet Home 3D's furniture folder (Debian: sweethome3d-furniture)")
    return found


def entries(path: str | Path) -> list[Entry]:
    """What a library holds, in the catalogue's order. Raises InputError for a file that is not one."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a furniture library ({error}); give a .sh3f file of Sweet Home 3D") from error
    items: dict[int, dict[str, str]] = {}
    for m in re.finditer(r"^(\w+)#(\d+)[ \t]*=[ \t]*(.*)$", text, re.M):
        items.setdefault(int(m[2]), {})[m[1]] = _unescape(m[3].strip())
    return [_entry(path.stem, number, item) for number, item in sorted(items.items()) if item.get("model")]


def attribution(items: Iterable[Entry]) -> str:
    """Markdown: one line a model with creator, family and licence, as CC BY asks."""
    lines = [
        "# Attribution: 3D models",
        "",
        "From the furniture libraries of Sweet Home 3D (https://www.sweethome3d.com). Each was rescaled and re-rendered.",
    ]
    family = ""
    for e in items:
        if e.family != family:
            family = e.family
            lines += ["", f"## {family}: {_HOLDERS.get(family, 'various authors')}, [{e.licence}]({e.licence_url})", ""]
        lines.append(
            f"- {e.title} (`{e.stem}`), {e.creator or 'unknown author'}, {e.family}, {e.licence_url}; modified: rescaled, re-rendered"
        )
    return "\n".join(lines) + "\n"


def corrected(title: str, family: str = "", number: int = 0) -> str:
    """A catalogue's English name, lower case, with its translator's slips mended and brands replaced by what the thing is."""
    name = title.strip().lower()
    if fixed := _BY_NUMBER.get((family, number)):
        return fixed
    if fixed := _NAMES.get(name):
        return fixed
    name = re.sub(r"\bbill \d+ ?€", "banknote", name)
    name = re.sub(r"\bgaz\b", "gas", name)
    return re.sub(r"\s+", " ", name)


_LICENCES = {
    "BlendSwap-CC-0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "BlendSwap-CC-BY": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
    "KatorLegaz": ("CC BY 3.0 US", "https://creativecommons.org/licenses/by/3.0/us/"),
    "Reallusion": ("CC BY 3.0 US", "https://creativecommons.org/licenses/by/3.0/us/"),
    "Scopia": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
}
_HOLDERS = {
    "BlendSwap-CC-0": "Blend Swap, https://www.blendswap.com",
    "BlendSwap-CC-BY": "Blend Swap, https://www.blendswap.com",
    "KatorLegaz": "© 2003–2008 Andrew Kator & Jennifer Legaz",
    "Reallusion": "© Reallusion",
    "Scopia": "Emmanuel Puybaret / eTeks and Scopia Visual Interfaces Systems, s.l., http://www.scopia.es",
}
_OF_MANY = ("BlendSwap-CC-0", "BlendSwap-CC-BY")  # here each model has its own creator
_BY_NUMBER = {
    ("Scopia", 17): "kitchen utensil",
    ("Scopia", 18): "kitchen utensil",
    ("Scopia", 19): "kitchen utensil",
    ("Scopia", 20): "kitchen utensil",
    ("Scopia", 28): "cabinet",
    ("Scopia", 46): "cabinet",
    ("Scopia", 245): "sock",
    ("Scopia", 364): "rice cooker",
    ("BlendSwap-CC-BY", 75): "chest of drawers",
}
_NAMES = {
    "short": "shorts",
    "trunck": "trunk",
    "flipper": "pinball machine",
    "puff": "bean bag",
    "little bank": "bench",
    "wood bank": "wooden bench",
    "hashtray": "ashtray",
    "squeezer": "juicer",
    "barnum": "party tent",
    "letters box": "mailbox",
    "boiler": "kettle",
    "flacon": "bottle",
    "hood": "range hood",
    "teck chair": "teak chair",
    "toilets unit": "toilet",
    "screen": "folding screen",
    "cutting pliers": "bolt cutter",
    "mixer": "stand mixer",
    "puzzle": "house-shaped puzzle",
    "bootie": "ankle boots",
    "joystick": "game controller",
    "mocassin": "moccasin",
    "apple ibook": "laptop",
    "apple imac 1998": "computer",
    "apple imac 2004": "computer",
    "apple iphone": "mobile phone",
    "chevrolet": "car",
    "ford focus": "car",
    "peugeot 308 cc": "convertible car",
    "renault scenic": "car",
    "seat leon": "car",
    "smart car": "small car",
    "vw new beetle": "car",
    "yamaha yzr r6": "motorbike",
    "playstation": "game console",
    "rubik's cube": "puzzle cube",
    "tv 16:9": "tv",
    "frame chambord": "picture frame",
    "concept sedan 01": "car",
    "concept sedan 02": "car",
    "concept sedan 02 sport": "sports car",
    "lip stick": "lipstick",
    "cup cake": "cupcake",
    "table tennis": "table tennis table",
    "fork lift": "forklift",
    "bended coconut tree": "bent coconut tree",
    "mower": "lawn mower",
    "convertible sofa bz": "convertible sofa",
    "opened convertible sofa bz": "opened convertible sofa",
    "cctv": "surveillance camera",
    "text marker": "marker pen",
    "woman shoes": "woman's shoes",
}


def _entry(family: str, number: int, item: dict[str, str]) -> Entry:
    licence, url = _LICENCES.get(family, ("unknown licence", ""))
    model = item["model"].lstrip("/")
    stem = PurePosixPath(model).stem
    rotation = tuple(float(x) for x in item["modelRotation"].split()) if item.get("modelRotation") else None
    title = item.get("name", stem)
    return Entry(
        number=number,
        name=corrected(title, family, number),
        title=title,
        family=family,
        model=model,
        stem=stem,
        side=split.side(family, stem),
        creator=item.get("creator", ""),
        licence=licence,
        licence_url=url,
        category=item.get("category", ""),
        tags=tuple(t.strip() for t in item.get("tags", "").split(",") if t.strip()),
        size=(float(item.get("width", 1)), float(item.get("height", 1)), float(item.get("depth", 1))),
        rotation=rotation if rotation and len(rotation) == 9 else None,
        icon=item.get("icon", "").lstrip("/"),
    )


def _unescape(text: str) -> str:
    return text.encode("latin-1").decode("unicode_escape") if "\\" in text else text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bozzetto.data.catalogue LIBRARY_FOLDER > ATTRIBUTION.md")
    try:
        print(attribution(e for path in libraries(sys.argv[1]) for e in entries(path)), end="")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
