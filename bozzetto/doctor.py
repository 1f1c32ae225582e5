# SPDX-License-Identifier: Apache-2.0
"""What this machine can do: `bozzetto doctor`.

No kernel is compiled, no picture lifted, no weight of a diffusion prior read. What a lift and a drawing take is planned (`verbs.plan`), by
the speed of this machine, which a third of a second measures.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bozzetto import memory

if TYPE_CHECKING:
    from bozzetto.priors.plan import Plan

GB = 1e9
PRIOR = Path(__file__).parent / "priors" / "mini" / "first_guess"
BACKENDS = {
    "nvdiffrast": "rasterises on CUDA, for programs; licence for non-commercial use only, see docs/licences.md",
    "gsplat": "draws Gaussians on CUDA, for programs; the command line does not use it",
    "rembg": "finds objects before busy backgrounds; pip install 'bozzetto[rembg]'",
}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    state  "ok"; "note": works, but read this; "absent": optional and not there; "broken": a lift will fail, `value` says why
    """

    name: str
    value: str
    state: Literal["ok", "note", "absent", "broken"] = "ok"


def main() -> int:
    """Print the report. Returns 0 if a lift can run here, else 2."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    checks = report()
    colours = {"ok": "green", "note": "yellow", "absent": "dim", "broken": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        table.add_row(Text(check.state, colours[check.state]), Text(check.name), Text(check.value))
    Console().print(table)
    return 2 if any(check.state == "broken" for check in checks) else 0


def report(out: str | Path = ".") -> list[Check]:
    """Every check, in reading order. out: the folder where assets would go."""
    total, available = memory.machine()
    return [
        _python(),
        Check("cores", f"{cores()} for this process"),
        Check("memory", "unknown", "note") if total is None else Check("memory", f"{_gb(total)}, {_gb(available or 0)} available"),
        *_torch(),
        *_kernels(),
        _prior(),
        *_plans(),
        _disk(Path(out)),
        *(_backend(name, purpose) for name, purpose in BACKENDS.items()),
        _validator(),
    ]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _python() -> Check:
    value = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("Python", value) if sys.version_info >= (3, 11) else Check("Python", f"{value}; 3.11 or newer is needed", "broken")


def _torch() -> list[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Check("torch", f"cannot be imported ({error}); pip install torch", "broken")]
    checks = [Check("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(i)
            checks.append(Check(f"cuda:{i}", f"{device.name}, {_gb(device.total_memory)}"))
    else:
        checks.append(Check("CUDA", "no device", "absent"))
    if torch.backends.mps.is_available():
        checks.append(Check("mps", "there; not tested by the project", "note"))
    return checks


def _kernels() -> list[Check]:
    try:
        import numba

        from bozzetto.kernels.pool import cache_folder, num_threads

        folder = cache_folder()
    except (ImportError, OSError) as error:
        return [Check("numba", f"cannot be imported ({error}); pip install numba", "broken")]
    found = Check("numba", f"{numba.__version__}, {num_threads()} threads")
    compiled = sum(1 for _ in folder.rglob("*.nbc"))
    state = f"{compiled} compiled" if compiled else "empty: first use compiles"
    chosen = os.environ.get("BOZZETTO_CACHE")
    if folder.is_relative_to(tempfile.gettempdir()) and not (chosen and folder.is_relative_to(chosen)):
        return [found, Check("kernel cache", f"{folder}, {state}; a lasting place could not be written, set BOZZETTO_CACHE to one", "note")]
    return [found, Check("kernel cache", f"{folder}, {state}")]


def _prior() -> Check:
    from bozzetto.errors import InputError

    try:
        from bozzetto.priors.first_guess import load
        from bozzetto.priors.small import digest

        count = sum(p.numel() for p in load(PRIOR).parameters())
        size = (PRIOR / "model.safetensors").stat().st_size
    except (InputError, ImportError, OSError) as error:
        return Check("embedded prior", str(error), "broken")
    return Check("embedded prior", f"first_guess {digest(PRIOR)}, {count / 1e6:.1f} M parameters, {size / 1e6:.1f} MB")


def _plans() -> list[Check]:
    """What the presets take, and one picture of each diffusion prior that is here."""
    from bozzetto.errors import InputError
    from bozzetto.fit.drawings import Drawing
    from bozzetto.priors.loading import LAYOUTS
    from bozzetto.priors.published import PUBLISHED, lacking
    from bozzetto.recipes import RECIPES
    from bozzetto.verbs.plan import for_drawing, for_lift

    guess = RECIPES["guess"]
    asked: dict[str, Callable[[], Plan]] = {
        f"--preset {name}": functools.partial(for_lift, guess, name, settings, {}) for name, settings in guess.presets.items()
    }
    here = {"mini": "zero123-mini"} | {name: prior.kind for name, prior in PUBLISHED.items() if prior.kind and not lacking(prior)[1]}
    for name, kind in here.items():
        if (role := LAYOUTS[kind].role) != "pictures":
            asked[f"--prior {name}"] = functools.partial(for_drawing, role, name, Drawing(), 1)
    checks = []
    for name, plan in asked.items():
        try:
            checks.append(Check(name, plan().sentence()))
        except InputError as error:  # too little memory, or diffusers is missing
            checks.append(Check(name, str(error), "note"))
    return checks


def _disk(out: Path) -> Check:
    while not out.exists():
        out = out.parent
    free = shutil.disk_usage(out).free
    if not os.access(out, os.W_OK):
        return Check("output", f"{out.resolve()} is not writable; give another --out", "note")
    return Check("output", f"{_gb(free)} free at {out.resolve()}", "ok" if free > 0.2 * GB else "note")


def _backend(name: str, purpose: str) -> Check:
    if importlib.util.find_spec(name) is None:
        return Check(name, f"not installed ({purpose})", "absent")
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return Check(name, f"{version} ({purpose})")


def _validator() -> Check:
    """Khronos's glTF validator, for the tests: BOZZETTO_NODE_MODULES, or `.node/node_modules` of the repository."""
    modules = Path(os.environ.get("BOZZETTO_NODE_MODULES") or Path(__file__).parent.parent / ".node" / "node_modules")
    if shutil.which("node") is None:
        return Check("glTF validator", "node is not installed; only the tests need it", "absent")
    if not (modules / "gltf-validator" / "package.json").is_file():
        return Check("glTF validator", "not installed; only the tests need it: make node-tools", "absent")
    return Check("glTF validator", "there, for the tests")


def _gb(count: float) -> str:
    return f"{count / GB:.1f} GB"


if __name__ == "__main__":
    raise SystemExit(main())
