# SPDX-License-Identifier: Apache-2.0
"""What several tests share: thread settings, Hypothesis's profile, the Khronos validator, an interpreter with bpy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads slow the kernels' own

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent

# No deadline: a first call compiles. Derandomised: a failure is the same for everyone.
hypothesis.settings.register_profile("bozzetto", deadline=None, derandomize=True)
hypothesis.settings.load_profile("bozzetto")


@pytest.fixture(scope="session")
def validate_gltf() -> Callable[[Path], dict[str, Any]]:
    """A function from a GLB's path to the Khronos validator's report; fails, rather than skips, where the validator is missing."""
    node = shutil.which("node")
    modules = Path(os.environ.get("BOZZETTO_NODE_MODULES") or ROOT / ".node" / "node_modules")
    if node is None or not (modules / "gltf-validator" / "package.json").is_file():
        pytest.fail("the Khronos glTF validator is missing; install Node.js and npm, then: make node-tools")

    def validate(path: Path) -> dict[str, Any]:
        done = subprocess.run([node, str(ROOT / "tests" / "gltf_validate.mjs"), str(path)], capture_output=True, text=True, check=True)
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    return validate


@pytest.fixture(scope="session")
def bpy_python() -> str:
    """An interpreter that can `import bpy` (Blender): this one, or the one BOZZETTO_BLENDER_PYTHON names; skips where there is none."""
    for python in (os.environ.get("BOZZETTO_BLENDER_PYTHON"), sys.executable):
        if python and subprocess.run([python, "-c", "import bpy"], capture_output=True).returncode == 0:
            return python
    pytest.skip("no interpreter with bpy; pip install bpy into one and name it in BOZZETTO_BLENDER_PYTHON")
