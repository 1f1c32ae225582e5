# SPDX-License-Identifier: Apache-2.0
"""What TripoSR takes on this machine: `python -m benchmarks.triposr [--tiny]`.

Random weights of the published sizes: from picture to planes once (a minute on two cores, 3 GB). Random planes hold no object, so the
field is an object by rule, in planes and a decoder of the published sizes: an ellipsoid with ripples and three bars. Its lattice is
computed coarse to fine, whole by tables, and vertex by vertex as published; where the last would take minutes, a share of the vertices
is timed and the rest reckoned. The meshes of all must be one.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine
from bozzetto.fit.run import peak_gb
from bozzetto.priors.triplane import Triplane
from bozzetto.priors.triposr import TripoSR, TripoSRConfig, ViTConfig, costs

TINY = TripoSRConfig(ViTConfig(96, 2, 3, 384), picture=128, plane=16, channels=128, heads=4, layers=2, neurons=32, hidden=4)


def an_object(config: TripoSRConfig, steep: float = 60.0) -> Triplane:
    """In planes of 2 P pixels a side and a decoder as deep and wide as `config` says, with weights that pass a sum of features on.

    steep  raw d a unit of length near the surface, about: a published field goes from air to solid within two pixels of its planes
    """
    size, r = 2 * config.plane, config.radius
    u = ((2 * torch.arange(size) + 1) / size - 1) * r
    second, first = torch.meshgrid(u, u, indexing="ij")
    ripple = 0.01 * torch.sin(17 * first + 1) * torch.cos(13 * second)
    planes = 0.05 * torch.randn(3, config.features, size, size, generator=torch.Generator().manual_seed(0))
    for n in range(3):  # channel 0: half of (x^2 + y^2 + z^2) in all; channel 1: a bar across each plane
        planes[n, 0] = (first**2 + second**2) / 2 + ripple
        planes[n, 1] = torch.relu(0.05 - torch.hypot(first - 0.1 * n, second + 0.1)) * 10
    first_weight = torch.zeros(3, config.features)
    first_weight[:, 0] = -steep / 0.8
    first_weight[:, 1] = steep
    pass_on = torch.zeros(config.neurons, config.neurons)
    pass_on[0, 0] = pass_on[1, 1] = 1.0
    pass_on[0, 1] = pass_on[1, 0] = -1.0  # silu(x) - silu(-x) = x
    entry = torch.zeros(config.neurons, 3 * config.features)
    entry[0], entry[1] = first_weight.flatten(), -first_weight.flatten()
    out = torch.zeros(4, config.neurons)
    out[:, 0], out[:, 1] = 1.0, -1.0
    zeros = torch.zeros(config.neurons)
    layers = [(entry, zeros), *[(pass_on, zeros)] * (config.hidden - 1), (out, torch.zeros(4))]
    level = math.log(config.threshold) - config.bias
    layers[-1] = (out, torch.tensor([level + steep / 0.8 * 0.4**2, 0.0, 0.0, 0.0]))
    return Triplane(planes, layers, r, config.bias, config.threshold)


def timed(fn: Callable[[], Any]) -> tuple[Any, float, float]:
    """What fn gives, wall seconds, and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = fn()
    return out, time.perf_counter() - wall, time.process_time() - cpu


def peak() -> float:
    """GB that this process has taken at most."""
    return (peak_gb() or math.nan) * 1024**3 / 1e9


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small sizes throughout, a few seconds")
    parser.add_argument("--field", action="store_true", help="the field alone, without the network")
    parser.add_argument("--resolution", type=int, default=0, help="lattice vertices a side; 256, or 64 with --tiny")
    parser.add_argument("--share", type=float, default=0.0, help="of the lattice that is asked vertex by vertex; 1/32, or all with --tiny")
    args = parser.parse_args()
    config = TINY if args.tiny else TripoSRConfig()
    n = args.resolution or (64 if args.tiny else 256)
    share = args.share or (1.0 if args.tiny else 1 / 32)
    plan = costs(config, n)
    print(machine("torch", "diffusers", "transformers"))
    planned = f"planned {plan.network / 1e12:.2f} TFLOP and {plan.peak / 1e9:.2f} GB"
    print(f"{torch.get_num_threads()} threads; {plan.parameters:,} parameters; {planned}\n")
    print("| part | wall, s | CPU, s | peak so far, GB |")
    print("|---|---|---|---|")

    def row(part: str, wall: float, cpu: float) -> None:
        print(f"| {part} | {wall:.2f} | {cpu:.2f} | {peak():.2f} |", flush=True)

    if not args.field:
        with torch.device("meta"):
            network = TripoSR(config)
        generator = torch.Generator().manual_seed(0)
        state = {k: 0.02 * torch.randn(v.shape, generator=generator) for k, v in network.state_dict().items()}
        network.load_state_dict(state, assign=True)
        del state
        row("random weights made", 0, 0)
        picture = torch.rand(1, config.picture, config.picture, 3, generator=generator)
        planes, wall, cpu = timed(lambda: network.eval()(picture))
        assert bool(torch.isfinite(planes).all())
        row("network, picture to planes", wall, cpu)
    field = an_object(config)
    field.mesh(17)  # compiles
    quick, wall_quick, cpu_quick = timed(lambda: field.lattice(n))
    row(f"lattice {n}³, coarse to fine", wall_quick, cpu_quick)
    full, wall, cpu = timed(lambda: field.lattice(n, 1))
    row(f"lattice {n}³, whole by tables", wall, cpu)
    axis = field.axis(n)
    xs = torch.linspace(0, n - 1, max(round(share * n), 1)).round().long()

    def pointwise() -> Tensor:
        out = torch.empty(len(xs), n, n)
        for i, x in enumerate(xs):
            points = torch.stack(torch.meshgrid(axis[x : x + 1], axis, axis, indexing="ij"), -1).view(-1, 3)
            out[i] = field.raw(points)[:, 0].view(n, n)
        return out

    each, wall, cpu = timed(pointwise)
    times = n / len(xs)
    row(
        f"lattice {n}³, vertex by vertex" + ("" if len(xs) == n else f" (1 in {times:.0f} timed, the rest reckoned)"),
        wall * times,
        cpu * times,
    )
    surface, wall_mesh, cpu_mesh = timed(lambda: field.surface(quick))
    row(f"its surface, {len(surface.faces):,} triangles with colours", wall_mesh, cpu_mesh)
    whole = field.surface(full)
    assert torch.equal(surface.faces, whole.faces) and torch.equal(surface.vertices, whole.vertices), "another mesh"
    assert float((each - full[xs]).abs().max()) < 1e-3
    computed = 100 * float((quick == full).float().mean())
    times_wall, times_cpu = wall * times / wall_quick, cpu * times / cpu_quick
    print(f"\nCoarse to fine is {times_wall:.1f} times as fast as vertex by vertex by wall, {times_cpu:.1f} by CPU;")
    print(f"the same mesh to the bit; {computed:.1f} % of the vertices are computed.")


if __name__ == "__main__":
    main()
