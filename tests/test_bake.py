# SPDX-License-Identifier: Apache-2.0
"""UV-1 to UV-7: unwrapping, baking fields and pictures, dilation."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bozzetto.camera import Camera, focal, look_at
from bozzetto.kernels import pool
from bozzetto.mesh import Mesh
from bozzetto.render import charts
from bozzetto.render import unwrap as unwrapping
from bozzetto.render.bake import Texels, blend, dilate, scatter, seen, texels
from bozzetto.render.clean import decimate, is_watertight_manifold
from bozzetto.render.unwrap import unwrap
from tests.test_mesh import SURFACES, bumpy, sphere, torus
from tests.twins.meshes import bake, overlaps, weld

R = 256


def projected(mesh: Mesh, resolution: int = R) -> Mesh:
    """By the fallback, whatever the size: no processor time at all for the other."""
    return unwrap(mesh, seconds=0, resolution=resolution)


@pytest.fixture(scope="module")
def cut() -> dict[str, Mesh]:
    """Each surface unwrapped both ways; the bumpy one by each of them once."""
    small = {name: decimate(make(), 3000) for name, make in SURFACES.items()}
    return {f"{name}-{how.__name__}": how(mesh, resolution=R) for name, mesh in small.items() for how in (unwrap, projected)}


def plane(lo: float = 0.2, hi: float = 0.7) -> Mesh:
    """The unit square in y, z (facing +x), its uv a square with corners on no texel line."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    vertices = torch.cat([torch.zeros(4, 1), corners - 0.5], 1)
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), uv=lo + (hi - lo) * corners)


def lookup(image: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Bilinear, texel centres at half numbers, as every renderer's: (N, C)."""
    grid = (2 * uv - 1).view(1, 1, -1, 2)
    mode = {"mode": "bilinear", "padding_mode": "border", "align_corners": False}
    return torch.nn.functional.grid_sample(image.movedim(-1, 0)[None].to(grid.dtype), grid, **mode)[0, :, 0].T


def on_surface(mesh: Mesh, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random points of the surface (N, 3) and their uv (N, 2), float64, uniform over faces."""
    g = torch.Generator().manual_seed(0)
    face = torch.randint(len(mesh.faces), (count,), generator=g)
    w = torch.rand(count, 3, generator=g, dtype=torch.float64).log().neg()
    w = (w / w.sum(1, keepdim=True))[..., None]
    return (w * mesh.vertices.double()[mesh.faces[face]]).sum(1), (w * mesh.uv.double()[mesh.faces[face]]).sum(1)


def parts(mesh: Mesh) -> np.ndarray:
    """(F,) the chart of each face."""
    f, n = mesh.faces.numpy(), len(mesh.vertices)
    return connected_components(coo_matrix((np.ones(2 * len(f)), (f[:, :2].ravel(), f[:, 1:].ravel())), (n, n)), directed=False)[1][f[:, 0]]


def test_uv_1_a_constant_field_stays_constant_in_every_mip(cut):
    for mesh in cut.values():
        image = bake(mesh, R, lambda p, n: p.new_tensor([0.25, 0.5, 0.75]).expand(len(p), 3))
        while len(image) > 1:
            assert (image == torch.tensor([0.25, 0.5, 0.75])).all()
            image = image.view(len(image) // 2, 2, len(image) // 2, 2, 3).mean((1, 3))


def test_uv_2_a_linear_field_comes_back_up_to_the_border():
    mesh = plane()
    a = torch.tensor([[0.0, 0.3, -0.7], [0.0, 1.0, 0.2], [0.0, -0.5, 0.9]])
    points, uv = on_surface(mesh, 20000)
    image = bake(mesh, 101, lambda p, n: p @ a.T + 0.1)
    assert (lookup(image, uv) - (points @ a.T.double() + 0.1)).abs().max() < 1e-6  # float32 positions and texels
    t = texels(mesh, 101)
    inside = (t.core.view(-1)[t.index])[:, None]
    nearest_only = dilate(scatter(t, torch.where(inside, t.position @ a.T + 0.1, torch.tensor(0.0))), t.core)
    assert (lookup(nearest_only, uv) - (points @ a.T.double() + 0.1)).abs().max() > 1e-3  # so the ring is needed


def test_uv_3_texels_lie_on_their_triangles(cut):
    for mesh in cut.values():
        t = texels(mesh, R)
        face = t.face.view(-1)[t.index]
        assert (face >= 0).all() and torch.equal(t.mask, t.face >= 0) and len(face) == int(t.mask.sum())
        core = t.core.view(-1)[t.index]
        assert (t.bary[core] > -1e-9).all()  # float32 uv as float64: rounding of the edge functions only
        torch.testing.assert_close(t.bary.sum(1), torch.ones(len(face), dtype=torch.float64), rtol=0, atol=1e-12)
        uv = (t.bary[..., None] * mesh.uv.double()[mesh.faces[face]]).sum(1)
        centre = torch.stack([t.index % R, t.index // R], 1).double().add(0.5) / R
        assert (uv - centre)[core].abs().max() < 1e-12
        point = (t.bary[..., None] * mesh.vertices.double()[mesh.faces[face]]).sum(1)
        torch.testing.assert_close(t.position, point.float(), rtol=0, atol=1e-7)
        torch.testing.assert_close(t.normal.norm(dim=1), torch.ones(len(face)), rtol=0, atol=1e-6)
        ring = (uv - centre).norm(dim=1)[~core] * R
        assert ((ring < 1e-6) | (ring > 1e-3)).all() and (ring < 1e-6).float().mean() > 0.8  # most continue the plane, the rest are clipped


def test_uv_4_texels_belong_to_one_triangle_and_their_area_is_the_charts(cut):
    for mesh in cut.values():
        t = texels(mesh, R)
        q = mesh.uv.double()[mesh.faces]
        d, e = q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
        area = float((d[:, 0] * e[:, 1] - d[:, 1] * e[:, 0]).abs().sum() / 2)
        edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(1).values
        unique, count = edges.unique(dim=0, return_counts=True)
        border = (mesh.uv[unique[count == 1][:, 0]] - mesh.uv[unique[count == 1][:, 1]]).norm(dim=1) * R
        # a border texel is in or out by chance: its error has deviation <= 1/2, and a border of length L crosses <= 2 L + 1 an edge
        assert abs(int(t.core.sum()) - area * R * R) < 4 * 0.5 * math.sqrt(float((2 * border + 1).sum()))
        assert overlaps(mesh.uv.numpy(), mesh.faces.numpy(), R) == 0


@pytest.mark.parametrize("how", [unwrap, projected])
def test_uv_5_baked_looks_up_to_second_order(how):
    """f is quadratic over the surface, faces are flat, so bilinear lookup errs by the texel's square, charts' borders included."""
    mesh = how(decimate(torus(), 1500), resolution=128)
    points, uv = on_surface(mesh, 20000)

    def field(p: torch.Tensor, n: torch.Tensor | None = None) -> torch.Tensor:
        return torch.stack([p[:, 0] * p[:, 1], p[:, 2] ** 2 + p[:, 0], torch.sin(3 * p[:, 1])], 1)

    error = [(lookup(bake(mesh, size, field), uv) - field(points)).abs().mean().item() for size in (128, 256, 512)]
    assert error[0] / error[1] > 3 and error[1] / error[2] > 3 and error[0] < 3e-4  # 4 in the limit; 3.1 to 4.1 so coarse
    t = texels(mesh, 512)
    nearest_only = dilate(scatter(t, field(t.position)), t.core)
    assert (lookup(nearest_only, uv) - field(points)).abs().mean() > 3 * error[2]  # continuing the plane is what does it


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("how", ["unwrap", "projected"])
def test_uv_6_an_atlas_is_in_the_square_apart_and_not_stretched_without_bound(cut, name, how):
    mesh = cut[f"{name}-{how}"]
    assert (mesh.uv >= 0).all() and (mesh.uv <= 1).all()
    assert overlaps(mesh.uv.numpy(), mesh.faces.numpy(), R) == 0
    chart = np.full((R, R), -1)
    t = texels(mesh, R)
    chart[t.core.numpy()] = parts(mesh)[t.face[t.core].numpy()]
    for dr in range(3):
        for dc in range(-2, 3):
            one, other = chart[: R - dr, max(0, -dc) : R - max(0, dc)], chart[dr:, max(0, dc) : R + min(0, dc)]
            assert not ((one != other) & (one >= 0) & (other >= 0)).any()  # two texels between charts, at least
    q, p = mesh.uv.double()[mesh.faces], mesh.vertices.double()[mesh.faces]
    flat = torch.stack([q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]], 2)
    area = torch.linalg.det(flat).abs()
    assert area.min() > 0
    stretch = torch.linalg.svdvals(torch.stack([p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]], 2) @ torch.linalg.inv(flat))
    surface = torch.linalg.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]).norm(dim=1)
    unit = (surface.sum() / area.sum()).sqrt()
    assert stretch[:, 0].max() / unit < (5 if how == "unwrap" else 1.05 / charts.LEAST * 1.2)
    welded = weld(mesh)
    assert is_watertight_manifold(welded.vertices, welded.faces)
    assert len(welded.faces) == len(mesh.faces) and len(welded.vertices) < len(mesh.vertices)
    torch.testing.assert_close(mesh.normals.norm(dim=1), torch.ones(len(mesh.vertices)))


def test_uv_6_a_spiral_is_cut_where_it_would_cover_itself():
    """A strip that winds up twice round the z axis projects twice onto the same ring."""
    angle = torch.linspace(0, 4 * math.pi, 121, dtype=torch.float64)
    rim = torch.stack([angle.cos(), angle.sin(), 0.02 * angle], 1)
    vertices = torch.cat([0.3 * rim * torch.tensor([1, 1, 1 / 0.3]), 0.5 * rim * torch.tensor([1, 1, 2.0])]).float()
    i = torch.arange(120)
    strip = Mesh(vertices, torch.cat([torch.stack([i, i + 121, i + 122], 1), torch.stack([i, i + 122, i + 1], 1)]))
    flat, axis = charts.project(strip.vertices.numpy(), strip.faces.numpy())
    assert len(set(axis)) == 1
    plain = (flat.reshape(-1, 2) - flat.min()) / (flat.max() - flat.min())
    assert overlaps(plain, np.arange(720).reshape(-1, 3), R) > 1000  # so there was something to do
    mesh = projected(strip)
    assert overlaps(mesh.uv.numpy(), mesh.faces.numpy(), R) == 0 and 2 <= parts(mesh).max() + 1 <= 12


def test_unwrapping_gives_the_same_bytes_twice():
    mesh = decimate(bumpy(), 3000)
    for how in (unwrap, projected):
        one, two = how(mesh, resolution=R), how(mesh, resolution=R)
        assert torch.equal(one.uv, two.uv) and torch.equal(one.faces, two.faces) and torch.equal(one.vertices, two.vertices)


HANGS = unwrapping._WORKER.split("import numpy")[0] + "while True: pass"
ILLS = [
    ("PATIENCE", 1e-9, "took more than"),
    ("_WORKER", "raise SystemExit('out of tea')", "out of tea"),
    ("_WORKER", HANGS, "1 s of processor"),
]


@pytest.mark.parametrize(("name", "value", "words"), ILLS)
def test_unwrapping_survives_an_xatlas_that_hangs_or_dies(monkeypatch, name, value, words):
    mesh = sphere(2)
    monkeypatch.setattr(unwrapping, "PATIENCE", 100)  # the clock runs fast on a busy machine
    monkeypatch.setattr(unwrapping, name, value)
    with pytest.warns(UserWarning, match=words):
        fallen = unwrap(mesh, seconds=1, resolution=R)
    assert torch.equal(fallen.uv, projected(mesh).uv)


def test_unwrapping_dust_ends_and_says_that_the_gap_is_gone():
    """Every face on its own: more charts than a small texture has room for."""
    ball = sphere(4)
    apart = Mesh(ball.vertices[ball.faces.view(-1)], torch.arange(3 * len(ball.faces)).view(-1, 3))
    with pytest.warns(UserWarning, match="too many charts"):
        mesh = projected(apart, 128)
    assert overlaps(mesh.uv.numpy(), mesh.faces.numpy(), 128) == 0 and (mesh.uv >= 0).all() and (mesh.uv <= 1).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        projected(apart, 1024)


def test_unwrapping_refuses_what_is_no_surface():
    with pytest.raises(ValueError, match="at least one face"):
        unwrap(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="finite"):
        unwrap(Mesh(torch.full((3, 3), float("nan")), torch.tensor([[0, 1, 2]])))
    with pytest.raises(ValueError, match="unwrap first"):
        texels(sphere(1), R)


def test_faces_smaller_than_a_texel_own_the_texel_they_lie_in():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    uv = torch.tensor([0.5, 0.25]) + torch.tensor([[0.01, 0.01], [0.02, 0.01], [0.01, 0.02]])
    t = texels(Mesh(vertices, torch.tensor([[0, 1, 2]]), uv=uv), 16)
    assert not t.core.any() and t.face[4, 8] == 0 and int(t.mask.sum()) == 25  # and a ring of two round it
    assert torch.isfinite(t.position).all() and (t.position.abs() < 2.5 * 6.25).all()  # 2.5 texels, each 6.25 wide
    flat = texels(Mesh(vertices, torch.tensor([[0, 1, 2]]), uv=uv[:1].expand(3, 2)), 16)  # no area at all
    torch.testing.assert_close(flat.position, vertices.mean(0).expand(25, 3))


def test_texels_do_not_depend_on_the_number_of_threads(cut):
    mesh, before = cut["bumpy-unwrap"], pool.num_threads()
    try:
        answers = []
        for n in (1, 3):
            pool.set_num_threads(n)
            answers.append(texels(mesh, R))
    finally:
        pool.set_num_threads(before)
    for field in Texels.__dataclass_fields__:
        assert torch.equal(getattr(answers[0], field), getattr(answers[1], field))


def test_dilation_takes_the_nearest():
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(17, 17, generator=g) > 0.9
    image = torch.rand(17, 17, 2, generator=g)
    at = torch.cartesian_prod(torch.arange(17.0), torch.arange(17.0))
    distance = torch.cdist(at, at[mask.view(-1)]).amin(1).view(17, 17)
    for rounds in (None, 2):
        out = dilate(image, mask, rounds)
        assert torch.equal(out[mask], image[mask])
        for k in range(17 * 17):
            i, j = divmod(k, 17)
            if rounds is not None and distance[i, j] > rounds:
                assert torch.equal(out[i, j], image[i, j])
            else:
                sources = at[mask.view(-1)][(torch.cdist(at[k : k + 1], at[mask.view(-1)])[0] - distance[i, j]).abs() < 1e-5].long()
                assert any(torch.equal(out[i, j], image[a, b]) for a, b in sources.tolist())
    assert torch.equal(dilate(image, torch.zeros(17, 17, dtype=torch.bool)), image)


def view(position: list[float], size: int = 96, ortho: bool = False) -> Camera:
    K = torch.eye(3, dtype=torch.float64)[None].clone()
    K[:, 0, 0] = K[:, 1, 1] = size / 1.6 if ortho else focal(0.9, size)
    K[:, 0, 2] = K[:, 1, 2] = size / 2
    return Camera(look_at(torch.tensor([position], dtype=torch.float64)), K, (size, size), is_orthographic=ortho)


def picture(camera: Camera, planes: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth, rgb, alpha of squares x = x0, |y|, |z| < half, by their rays; rgb a ramp over pixels, (u / W, v / H, 0.5)."""
    origin, direction = (r[0] for r in camera.rays())
    forward = -camera.c2w[0, :, 2]
    depth = torch.full(camera.size, float("inf"), dtype=torch.float64)
    for x0, half in planes:
        t = (x0 - origin[..., 0]) / direction[..., 0]
        hit = origin + t[..., None] * direction
        inside = (hit[..., 1:].abs() < half).all(-1) & (t > 0)
        depth = torch.where(inside, torch.minimum(depth, t * (direction @ forward)), depth)
    alpha = torch.isfinite(depth).float()
    ramp = camera.pixel_centres().float() / camera.size[0]
    rgb = torch.cat([ramp, torch.full_like(ramp[..., :1], 0.5)], -1) * alpha[..., None]
    return torch.nan_to_num(depth, posinf=0.0).float(), rgb, alpha


@pytest.mark.parametrize("ortho", [False, True])
def test_uv_7_a_picture_of_a_plane_goes_back_by_its_homography(ortho):
    camera = view([1.8, 0.7, 0.5], ortho=ortho)
    t = texels(plane(), 64)
    inside = t.position[:, 1:].abs().amax(1) < 0.42  # away from the mask's edge
    colour, weight = seen(t.position, t.normal, camera, *picture(camera, [(0.0, 0.5)]))
    # uv -> world -> pixels as one 3 x 3 matrix, from K and c2w alone
    R_, p = camera.c2w[0, :, :3], camera.c2w[0, :, 3]
    to_world = torch.tensor([[0, 0, 0], [2.0, 0, -0.9], [0, 2.0, -0.9]], dtype=torch.float64)  # (u, v, 1), u = 0.2 + 0.5 (y + 0.5)
    local = R_.T @ (to_world - p[:, None] @ torch.tensor([[0, 0, 1.0]], dtype=torch.float64))
    local = torch.diag(torch.tensor([1.0, -1, -1], dtype=torch.float64)) @ local
    if ortho:
        local = torch.cat([local[:2], torch.tensor([[0, 0, 1.0]], dtype=torch.float64)])
    H = camera.K[0] @ local
    uv1 = torch.stack([t.index % 64 + 0.5, t.index // 64 + 0.5, torch.full((len(t.index),), 64.0)], 1).double() / 64
    pixel = uv1 @ H.T
    expected = (pixel[:, :2] / pixel[:, 2:] / 96).float()
    assert (weight[inside] > 0.3).all()
    torch.testing.assert_close(colour[inside, :2], expected[inside], rtol=0, atol=2e-6)  # a ramp is exact under bilinear lookup
    assert (colour[weight > 0][:, 2] - 0.5).abs().max() < 1e-6  # alpha divided out
    assert all((x == 0).all() for x in seen(t.position, -t.normal, camera, *picture(camera, [(0.0, 0.5)])))
    back = camera.c2w[0, :, 2].float().expand(len(t.index), 3)
    to_camera = back if ortho else torch.nn.functional.normalize(p.float() - t.position, dim=1)
    for power in (1.0, 3.0):
        w = seen(t.position, t.normal, camera, *picture(camera, [(0.0, 0.5)]), power=power)[1]
        torch.testing.assert_close(w[inside], to_camera[inside, 0] ** power, rtol=1e-4, atol=0)


def test_uv_7_what_is_behind_something_gets_no_weight():
    camera = view([2.0, 0.0, 0.0])
    t = texels(plane(), 64)
    weight = seen(t.position, t.normal, camera, *picture(camera, [(0.0, 0.5), (0.3, 0.2)]))[1]
    shadow, distance = 0.2 * 2.0 / 1.7, t.position[:, 1:].abs().amax(1)  # of the square in front, seen from x = 2
    assert (weight[distance < shadow - 1e-3] == 0).all() and (distance < shadow).any()
    pixel = 2.0 / camera.K[0, 0, 0].item()
    assert (weight[(distance > shadow + 1.5 * pixel) & (distance < 0.5 - 4 * pixel)] > 0.5).all()
    ahead = t.position * torch.tensor([1.0, 0.38, 0.38]) + torch.tensor([0.3, 0, 0])
    front = seen(ahead, t.normal, camera, *picture(camera, [(0.0, 0.5), (0.3, 0.2)]))[1]
    assert (front[distance < 0.4] > 0.5).all()


def test_uv_7_weights_fade_at_the_edge_of_the_mask_and_of_the_picture():
    camera = view([2.0, 0.0, 0.0])
    t = texels(plane(), 256)
    depth, rgb, alpha = picture(camera, [(0.0, 0.3)])
    weight = seen(t.position, t.normal, camera, depth, rgb, alpha, margin=4.0)[1]
    inward = (0.3 - t.position[:, 1:].abs().amax(1)) * camera.K[0, 0, 0].item() / 2.0  # pixels from the edge
    assert (weight[inward < 0] == 0).all() and (weight[inward < 2] <= 2 / 4).all() and (weight[inward > 6] > 0.9).all()
    near = view([0.6, 0.0, 0.0])
    _, w = seen(t.position, t.normal, near, *picture(near, [(0.0, 5.0)]))
    pixel = near.project(t.position)[0][0]
    assert (w[((pixel < 0.5) | (pixel > 95.5)).any(1)] == 0).all() and (w[((pixel > 5) & (pixel < 91)).all(1)] > 0).all()
    with pytest.raises(ValueError, match="one camera"):
        seen(t.position, t.normal, camera, depth[1:], rgb, alpha)


def test_blending_is_a_weighted_mean():
    red, blue = torch.tensor([[1.0, 0, 0]]).expand(3, 3), torch.tensor([[0.0, 0, 1]]).expand(3, 3)
    colour, weight = blend([(red, torch.tensor([1.0, 3.0, 0.0])), (blue, torch.tensor([1.0, 1.0, 0.0]))])
    torch.testing.assert_close(colour, torch.tensor([[0.5, 0, 0.5], [0.75, 0, 0.25], [0, 0, 0]]))
    torch.testing.assert_close(weight, torch.tensor([2.0, 4.0, 0.0]))
