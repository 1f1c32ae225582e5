# SPDX-License-Identifier: Apache-2.0
"""What the package defines for others, and nobody uses: a list with reasons, so that dead code does not gather.

Public functions, classes and their methods in `bozzetto/` (without the families of `data/procedural`) against the names that code in
`bozzetto/` and `benchmarks/`, the Makefile and fenced code in README and docs say, outside the definition itself. Tests do not count as
use. Names alone are compared: of two things with one name, either hides the other.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

UNUSED = {
    "diffusion.guidance.autoguidance": "library of the paper: Karras et al. 2024",
    "diffusion.guidance.classifier": "library of the paper: Dhariwal & Nichol 2021",
    "diffusion.guidance.limited": "library of the paper: Kynkäänniemi et al. 2024",
    "diffusion.improved.hybrid_loss": "library of the paper: Nichol & Dhariwal 2021",
    "diffusion.improved.no_losses": "library of the paper: Nichol & Dhariwal 2021, where drawing steps begins",
    "diffusion.improved.space_timesteps": "library of the paper: Nichol & Dhariwal 2021",
    "diffusion.likelihood.log_likelihood": "library of the paper: Song et al. 2021, the exact likelihood",
    "diffusion.losses.edm_sigma": "library of the paper: EDM, Table 1",
    "diffusion.losses.snr_weight": "library of the paper: Hang et al. 2023, Min-SNR",
    "diffusion.schedules.ve_sde_sigma": "library of the paper: Song et al. 2021",
    "diffusion.schedules.vp_sde_alpha_bar": "library of the paper: Song et al. 2021",
    "distill.bsd.norms_apart": "library of the paper: DreamCraft3D's appendix; its pictures come from a ControlNet",
    "distill.sds.fantasia": "library of the paper: Fantasia3D's weight",
    "fit.reference.variation": "library of the paper: what Magic123's released code adds",
    "scores.frechet.finite_sample_bias": "library of a measure: what FID comes to by the number of samples alone",
    "scores.ladder.largest_distance": "library of the paper: Song & Ermon 2020, technique 1",
    "scores.ladder.step_size": "library of the paper: Song & Ermon 2020, technique 4",
    "scores.ladder.transition_bound": "library of the paper: Song & Ermon 2020, Proposition 1",
    "scores.langevin.from_b": "library of the paper: NCSNv2's step sizes in our convention",
    "scores.langevin.mala": "library of the paper: Roberts & Tweedie 1996",
    "scores.matching.explicit": "library of the paper: Hyvärinen 2005",
    "scores.parzen.epanechnikov": "library of the book: Silverman 1986, the other kernel",
    "shapes.loop.LoopSurface": "library of the paper: DMTet's last step without a network",
}


def definitions(root: Path) -> Iterator[tuple[Path, str, ast.FunctionDef | ast.ClassDef]]:
    """File, dotted name below the package, and node of each function, class and method."""
    for path in sorted((root / "bozzetto").rglob("*.py")):
        where = path.relative_to(root / "bozzetto").with_suffix("").parts
        if "procedural" in where:
            continue
        module = ".".join(where).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield path, f"{module}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from ((path, f"{module}.{node.name}.{m.name}", m) for m in node.body if isinstance(m, ast.FunctionDef))


def uses(root: Path) -> dict[str, list[tuple[Path, int]]]:
    """Where each name is said, by file and line; an import alone is no use, except under another name."""
    found: dict[str, list[tuple[Path, int]]] = defaultdict(list)
    for path in (p for room in ("bozzetto", "benchmarks") for p in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                found[node.id].append((path, node.lineno))
            elif isinstance(node, ast.Attribute):
                found[node.attr].append((path, node.lineno))
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.asname:
                        found[alias.name].append((path, node.lineno))
    for page in (root / "Makefile", *root.glob("*.md"), *(root / "docs").rglob("*.md")):
        text = page.read_text() if page.exists() else ""
        for code in [text] if page.name == "Makefile" else re.findall(r"```.*?```", text, re.S):
            for word in re.findall(r"\w+", code):
                found[word].append((page, 0))
    return found


def unused(root: Path) -> set[str]:
    """Dotted names of what is public and said nowhere but in its own body."""
    said, found = uses(root), set()
    for path, name, node in definitions(root):
        short = name.rsplit(".", 1)[1]
        elsewhere = any(p != path or not node.lineno <= line <= node.end_lineno for p, line in said[short])
        if not short.startswith("_") and not elsewhere:
            found.add(name)
    return found


def test_what_nobody_uses_is_listed_with_its_reason():
    found = unused(ROOT)
    assert sorted(found - set(UNUSED)) == [], "used nowhere: delete it, or list it with a reason"
    assert sorted(set(UNUSED) - found) == [], "used now, or gone: take it from the list"


def test_the_scan_sees_recursion_imports_methods_and_pages(tmp_path):
    (tmp_path / "bozzetto" / "data" / "procedural").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "bozzetto" / "a.py").write_text(
        "def again(n): return again(n - 1)\n"
        "def shown(): ...\n"
        "def listed(): ...\n"
        "def renamed(): ...\n"
        "def imported(): ...\n"
        "def _private(): ...\n"
        "class Thing:\n    def asked(self): ...\n    def silent(self): return self.silent\n"
    )
    (tmp_path / "bozzetto" / "data" / "procedural" / "b.py").write_text("def family(): ...\n")
    (tmp_path / "benchmarks" / "c.py").write_text("from bozzetto.a import Thing, imported, renamed as r\nThing().asked\n")
    (tmp_path / "docs" / "page.md").write_text("`listed`, and\n```python\nshown()\n```\n")
    assert unused(tmp_path) == {"a.again", "a.listed", "a.imported", "a.Thing.silent"}
