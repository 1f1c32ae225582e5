# SPDX-License-Identifier: Apache-2.0
"""Does a public web viewer show a `.ply` of ours as we do? `python -m benchmarks.web_viewer scene.ply --out shown.webp`.

The viewer is Spark (npm `@sparkjsdev/spark`, MIT) on three.js, in a Chromium without a window, on the processor alone. A page of this
machine loads the file as it is, looks through the same camera, and sends back what is on its canvas once the splats are sorted.
`make viewer-tools` installs Spark.

Spark's own settings but for two: a file that was fitted without antialiasing is widened by 0.3 square pixels and keeps its opacity, as
its documentation says of such files. It packs a Gaussian into 16 bytes and cuts it off at sqrt(8) standard deviations, where we go on
to an alpha of 1/255; so pictures agree closely, not exactly.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.formats.ply import from_ply
from bozzetto.render.ssim import psnr
from bozzetto.shapes.gaussians import Gaussians

PACKAGES = ("@sparkjsdev/spark", "three", "fflate")
FLAGS = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking")
TYPES = {".js": "text/javascript", ".json": "application/json", ".wasm": "application/wasm"}
PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<script type="importmap">{"imports": {
  "three": "/modules/three/build/three.module.js", "three/addons/": "/modules/three/examples/jsm/",
  "fflate": "/modules/fflate/esm/browser.js", "@sparkjsdev/spark": "/modules/@sparkjsdev/spark/dist/spark.module.js"}}</script>
<script type="module">
const job = JOB;
const tell = (where, body) => fetch(where, {method: "POST", body});
addEventListener("error", e => tell("/failed", e.message || "a script or its part was not found"));
addEventListener("unhandledrejection", e => tell("/failed", String(e.reason)));
const THREE = await import("three");
const {SparkRenderer, SplatMesh} = await import("@sparkjsdev/spark");
const renderer = new THREE.WebGLRenderer({antialias: false, preserveDrawingBuffer: true});
renderer.setPixelRatio(1);
renderer.setSize(job.width, job.height);
renderer.setClearColor(0xffffff, 1);
document.body.append(renderer.domElement);
const camera = new THREE.PerspectiveCamera(job.fov, job.width / job.height, 0.01, 1000);
new THREE.Matrix4().fromArray(job.pose).decompose(camera.position, camera.quaternion, camera.scale);
const scene = new THREE.Scene();
const spark = new SparkRenderer({renderer, preBlurAmount: job.widened, blurAmount: 0.3 - job.widened});
const mesh = new SplatMesh({fileBytes: await (await fetch("/scene")).arrayBuffer(), fileType: job.kind});
await mesh.initialized;
scene.add(spark, mesh);
let calm = 0;
renderer.setAnimationLoop(() => {
  renderer.render(scene, camera);
  calm = spark.activeSplats > 0 && !spark.sorting && !spark.sortDirty ? calm + 1 : 0;
  if (calm == 8) renderer.domElement.toBlob(picture => tell("/shown", picture));
});
</script>"""


class _Handler(BaseHTTPRequestHandler):
    """The page, the scene, what the page imports; and what it sends back."""

    def __init__(self, answers: dict[str, bytes], told: dict[str, bytes], done: threading.Event, modules: Path, *args: object) -> None:
        self.answers, self.told, self.done, self.modules = answers, told, done, modules
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        data, kind = self.answers.get(path), "text/html"
        if data is None and path.startswith("/modules/"):
            file = (self.modules / path.removeprefix("/modules/")).resolve()
            if file.is_file() and file.is_relative_to(self.modules.resolve()):
                data, kind = file.read_bytes(), TYPES.get(file.suffix, "application/octet-stream")
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(data or b"")

    def do_POST(self) -> None:
        self.told[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.done.set()

    def log_message(self, *args: object) -> None:
        """Silent."""


def missing(modules: Path) -> str | None:
    """What lacks here, in one sentence, or None."""
    if shutil.which("chromium") is None:
        return "no chromium (Debian and Ubuntu: apt-get install chromium)"
    lost = [p for p in PACKAGES if not (modules / p / "package.json").is_file()]
    return f"{modules}: {', '.join(lost)} missing; make viewer-tools" if lost else None


def shown(data: bytes, camera: Camera, modules: Path, *, kind: str = "ply", antialiased: bool = False, patience: float = 300) -> Tensor:
    """What Spark has on its canvas: (H, W, 3) sRGB in [0, 1] over white.

    data     content of a file of a kind that Spark knows: ply, spz, splat
    camera   one, with square pixels, its axis in the middle of the picture
    raises   RuntimeError with what the page said, or nothing within `patience` seconds
    """
    h, w = camera.size
    pose = torch.cat([camera.c2w[0].double(), torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)])
    fov = math.degrees(2 * math.atan(h / 2 / float(camera.K[0, 1, 1])))
    job = {"width": w, "height": h, "fov": fov, "pose": pose.T.flatten().tolist(), "widened": 0.0 if antialiased else 0.3, "kind": kind}
    answers = {"/": PAGE.replace("JOB", json.dumps(job)).encode(), "/scene": data}
    told: dict[str, bytes] = {}
    done = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, answers, told, done, modules))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            address = f"http://127.0.0.1:{server.server_port}/"
            command = ["chromium", *FLAGS, f"--user-data-dir={profile}", f"--window-size={w},{h}", address]
            browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            try:
                done.wait(patience)
            finally:
                os.killpg(browser.pid, signal.SIGKILL)
                browser.wait()
    finally:
        server.shutdown()
        server.server_close()
    if "/shown" not in told:
        raise RuntimeError(f"the viewer showed nothing: {told.get('/failed', b'no word from its page').decode(errors='replace')}")
    pixels = np.asarray(Image.open(io.BytesIO(told["/shown"])).convert("RGB"))
    return torch.from_numpy(pixels.copy()).float() / 255


def ours(g: Gaussians, camera: Camera) -> tuple[Tensor, Tensor]:
    """Our own picture over white (H, W, 3), and its coverage (H, W)."""
    with torch.no_grad():
        drawn = g.draw(camera, background=torch.ones(3))
    return drawn.rgb[0].clamp(0, 1), drawn.alpha[0, ..., 0]


def node_modules() -> Path:
    """Where the tests look for their npm packages."""
    return Path(os.environ.get("BOZZETTO_NODE_MODULES") or Path(__file__).parent.parent / ".node" / "node_modules")


def main() -> None:
    """Render, compare, print one line; write ours, Spark's and four times their difference side by side."""
    parser = argparse.ArgumentParser(description="Compare Spark's picture of a .ply with ours.")
    parser.add_argument("ply", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/web-viewer.webp"))
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--azimuth-deg", type=float, default=35)
    parser.add_argument("--elevation-deg", type=float, default=15)
    parser.add_argument("--distance", type=float, default=2.4)
    args = parser.parse_args()
    if lacks := missing(node_modules()):
        raise SystemExit(f"error: {lacks}")
    try:
        g = from_ply(args.ply)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    camera = orbit([math.radians(args.azimuth_deg)], [math.radians(args.elevation_deg)], args.distance, size=args.size, fov=0.6)
    mine, alpha = ours(g, camera)
    theirs = shown(args.ply.read_bytes(), camera, node_modules())
    version = json.loads((node_modules() / PACKAGES[0] / "package.json").read_text())["version"]
    print(f"{args.ply}: {len(g)} Gaussians; Spark {version} against ours, over what they cover: {psnr(mine, theirs, alpha > 0.05):.2f} dB")
    sheet = torch.cat([mine, theirs, (1 - 4 * (mine - theirs).abs()).clamp(0, 1)], 1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((sheet * 255).round().to(torch.uint8).numpy()).save(args.out, quality=85)


if __name__ == "__main__":
    main()
