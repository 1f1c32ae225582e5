# SPDX-License-Identifier: Apache-2.0
"""What several tests share: thread settings, Hypothesis's profile, the Khronos validator, Blender."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads slow the kernels' own
if "PYTEST_XDIST_WORKER" in os.environ:  # `make test` has a worker a core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent

# No deadline: a first call compiles. Derandomised: a failure is the same for everyone.
hypothesis.settings.register_profile("bozzetto", deadline=None, derandomize=True)
hypothesis.settings.load_profile("bozzetto")


@pytest.fixture(scope="session", autouse=True)
def small_drawings() -> Iterator[None]:
    """Sheets and turntables of a few small pictures: at their true sizes they take most of a small lift's time. Child processes draw
    them as users see them."""
    from bozzetto.fit import asset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asset, "SIZE", 32)
        patch.setattr(asset, "FRAMES", 3)
        yield


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


BLENDER = """
import bpy, json, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[-1], merge_vertices=False)
(thing,) = [o for o in bpy.data.objects if o.type == "MESH"]
mesh = thing.data
world = [thing.matrix_world @ v.co for v in mesh.vertices]
shader = next(n for n in mesh.materials[0].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
image = shader.inputs["Base Color"].links[0].from_node.image
pixels, (w, h) = list(image.pixels), image.size
seen = []
for loop, uv in zip(list(mesh.loops)[::97], list(mesh.uv_layers[0].data)[::97]):
    x, y = min(int(uv.uv[0] * w), w - 1), min(int(uv.uv[1] * h), h - 1)  # Blender's row 0 is the lowest
    seen.append([*world[loop.vertex_index], *pixels[4 * (y * w + x):][:3]])
out = {"vertices": len(mesh.vertices), "triangles": len(mesh.polygons), "image": [w, h], "space": image.colorspace_settings.name}
out |= {"metallic": shader.inputs["Metallic"].default_value, "roughness": shader.inputs["Roughness"].default_value, "seen": seen}
out |= {"size": [max(v[k] for v in world) - min(v[k] for v in world) for k in range(3)]}
print("RESULT" + json.dumps(out))
"""


@pytest.fixture(scope="session")
def open_in_blender() -> Callable[[Path], dict[str, Any]]:
    """What Blender finds in a GLB of one textured mesh: counts, sizes, material, and colours `seen` at some corners (x, y, z, r, g, b).

    Runs in an interpreter that can `import bpy`: the one that BOZZETTO_BLENDER_PYTHON names, or this one; skips where there is none.
    """
    for python in (os.environ.get("BOZZETTO_BLENDER_PYTHON"), sys.executable):
        if python and subprocess.run([python, "-c", "import bpy"], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no interpreter with bpy; pip install bpy into one and name it in BOZZETTO_BLENDER_PYTHON")

    def look(path: Path) -> dict[str, Any]:
        run = subprocess.run([python, "-c", BLENDER, str(path)], capture_output=True, text=True, check=False)
        lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT")]
        assert lines, run.stdout + run.stderr
        found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT"))
        return found

    return look
