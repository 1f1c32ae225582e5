# SPDX-License-Identifier: Apache-2.0
"""`bozzetto view`: Gaussians or a model in the browser, by viser, until Ctrl-C.

viser serves one page with all that it needs (no address outside is asked) to this machine alone. It sorts and blends Gaussians itself and
knows no harmonics: colours are those of degree 0. Everything stands in our frame, z up.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bozzetto.camera import rotations
from bozzetto.errors import InputError
from bozzetto.formats.ply import from_ply
from bozzetto.kernels import harmonics
from bozzetto.shapes.gaussians import Gaussians

HOST = "127.0.0.1"
UPRIGHT = (0.5, 0.5, 0.5, 0.5)  # glTF's frame in ours: (x, y, z) -> (z, x, y), the inverse of `camera.to_gltf`


@dataclass(frozen=True)
class Viewer:
    """A running server: its address, and the scene's node in viser's terms."""

    server: Any
    url: str
    node: Any

    def stop(self) -> None:
        """Close the server; browsers that look at it say that they lost it."""
        self.server.stop()


def view(path: Path, port: int = 8080, *, announce: Any = print) -> None:
    """Serve until Ctrl-C.

    raises  InputError for what cannot be shown, a port that is taken, or without viser
    """
    viewer = serve(path, port)
    try:
        announce(f"{path}: {viewer.url} (Ctrl-C ends it)")
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        viewer.stop()


def serve(path: Path, port: int = 8080) -> Viewer:
    """Begin to serve a `.ply` of Gaussians, a `.glb`, or a folder that holds asset.glb; port 0 takes a free one.

    raises  as `view`
    """
    shown = path / "asset.glb" if path.is_dir() else path
    if path.is_dir() and not shown.is_file():
        raise InputError(f"{path}: holds no asset.glb; give an asset's folder, a .glb or a .ply of Gaussians")
    if shown.suffix.lower() not in (".ply", ".glb"):
        raise InputError(f"{path}: expected a .ply of Gaussians, a .glb, or an asset's folder")
    g = from_ply(shown) if shown.suffix.lower() == ".ply" else None
    data = b"" if g is not None else _glb(shown)
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: expected a number from 0 to 65535")
    try:
        import viser
    except ImportError:
        raise InputError("the viewer needs viser; pip install 'bozzetto[view]'") from None
    _check_free(port)
    server = viser.ViserServer(host=HOST, port=port, verbose=False, label=f"bozzetto: {path.name}")
    server.scene.set_up_direction("+z")
    if g is not None:
        node, centre, radius = _add_splats(server, g)
    else:
        node, centre, radius = server.scene.add_glb("/model", data, wxyz=UPRIGHT), np.zeros(3), 0.8
        server.scene.configure_default_lights()
    server.initial_camera.look_at = centre
    server.initial_camera.position = centre + radius * np.array([2.0, 0.8, 0.8])  # the front, from a little above
    return Viewer(server, f"http://{HOST}:{server.get_port()}", node)


def _glb(path: Path) -> bytes:
    from bozzetto.formats.gltf import load

    load(path)  # says what is wrong with it
    return path.read_bytes()


def _check_free(port: int) -> None:
    """viser would go on to the next port without a word."""
    with contextlib.closing(socket.socket()) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((HOST, port))
        except OSError as error:
            raise InputError(f"--port {port}: cannot be used ({error.strerror}); give another, or 0 for any that is free") from None


def _add_splats(server: Any, g: Gaussians) -> tuple[Any, np.ndarray, float]:
    """The node, and where and how large most of it is."""
    with torch.no_grad():
        M = rotations(g.quats) * g.scales[:, None]
        colours = (0.5 + g.sh0[:, 0] * float(harmonics.basis(torch.zeros(3), 0))).clamp(0, 1)
        node = server.scene.add_gaussian_splats(
            "/gaussians",
            centers=g.means.numpy(),
            covariances=(M @ M.mT).numpy(),
            rgbs=colours.numpy(),
            opacities=g.opacities[:, None].numpy(),
        )
        centre = g.means.median(0).values
        radius = 2 * (g.means - centre).norm(dim=1).median()  # a few may be far away
    return node, centre.numpy().astype(np.float64), float(radius) + 1e-6
