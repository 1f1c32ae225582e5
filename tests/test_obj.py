# SPDX-License-Identifier: Apache-2.0
"""OBJ and MTL as they are found, and what is done to raw triangles of any source."""

from __future__ import annotations

import numpy as np
import pytest

from bozzetto.data import surface
from bozzetto.data.obj import crease_normals, read_mtl, read_obj
from tests.test_data_sources import BOX, solid, volume

SQUARE = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvn 0 0 1\nvn 0 0 2\n"


@pytest.mark.parametrize(
    ("line", "position", "texcoord", "normal"),
    [
        ("f 1 2 3", [0, 1, 2], [-1, -1, -1], [-1, -1, -1]),
        ("f 1/3 2/2 3/1", [0, 1, 2], [2, 1, 0], [-1, -1, -1]),
        ("f 1//2 2//1 3//2", [0, 1, 2], [-1, -1, -1], [1, 0, 1]),
        ("f 1/1/2 2/2/1 3/3/2", [0, 1, 2], [0, 1, 2], [1, 0, 1]),
        ("f -4/-3/-2 -3/-2/-1 -1/-1/-2", [0, 1, 3], [0, 1, 2], [0, 1, 0]),
        (" f\t1/1 2 3//2  # mixed", [0, 1, 2], [0, -1, -1], [-1, -1, 1]),
        ("f 1/9/2 2/2/9 3/3/2", [0, 1, 2], [-1, 1, 2], [1, -1, 1]),  # beyond the lists: as if not said
        ("f 1 2 \\\n3", [0, 1, 2], [-1, -1, -1], [-1, -1, -1]),
        ("f 1/ 2/ 3/\r", [0, 1, 2], [-1, -1, -1], [-1, -1, -1]),
    ],
)
def test_obj_index_forms(line, position, texcoord, normal):
    obj = read_obj(SQUARE + line.encode())
    assert obj.position.tolist() == [position] and obj.texcoord.tolist() == [texcoord] and obj.normal.tolist() == [normal]


def test_obj_skips_lines_two_corner_faces_and_vertices_that_are_not_there():
    obj = read_obj(SQUARE + b"l 1 2\nf 1 2\nf 1 2 9\nf 1 2 0\nf\nfoo 1 2 3\nv x y z\nf 1 2 5\nf -9 1 2\nf 2 3 4")
    assert obj.position.tolist() == [[1, 2, 3]]
    assert len(read_obj(b"").position) == 0 and len(read_obj(b"garbage\n\n# f 1 2 3").position) == 0


def test_obj_materials_and_smoothing_hold_from_their_line_on():
    text = b"mtllib my file.mtl\nf 1 2 3\nusemtl red paint\ns 2\nf 1 2 3\nf 2 3 4\nusemtl b\ns off\nf 1 2 3\n"
    text += b"s 0\nusemtl red paint\nf 1 2 3 4\nusemtl idle"
    obj = read_obj(SQUARE + text)
    assert [obj.materials[m] for m in obj.material] == ["", "red paint", "red paint", "b", "red paint", "red paint"]
    assert obj.materials == ("", "red paint", "b") and obj.libraries == ("my file.mtl",)
    assert obj.smoothing.tolist() == [-1, 2, 2, 0, 0, 0]


def test_obj_numbers_are_those_of_python():
    words = "0 -0.0 1 +1.5 .5 -.25 3. 1e3 1E-3 -2.5e+2 0.1 123456.789012345 0.000000123456789 1234567890123456789012 1e-300 6.02214076e23"
    rng = np.random.default_rng(0)
    words = [*words.split(), *(f"{x:.6f}" for x in rng.normal(size=30) * 50), *(repr(float(x)) for x in rng.normal(size=30))]
    values = read_obj("".join(f"v {w} 0 {w}\n" for w in words).encode()).v
    want = np.array([float(w) for w in words])
    np.testing.assert_array_equal(values[:, 0], values[:, 2])
    np.testing.assert_allclose(values[:, 0], want, rtol=3 * np.finfo(float).eps)  # mantissa, power and quotient round once each


def test_obj_polygons_fan_where_convex_and_stay_inside_where_concave():
    pentagon = "".join(f"v {np.cos(a):.9f} 0 {np.sin(a):.9f}\n" for a in np.arange(5) * 2 * np.pi / 5)
    assert read_obj(f"{pentagon}f 1 2 3 4 5".encode()).position.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4]]
    # an L whose fan from corner 1 would leave it: area 3, the fan's triangles sum up to more
    corners = np.array([[2, 1], [1, 1], [1, 2], [0, 2], [0, 0], [2, 0]], float)
    for turned in (corners, corners[::-1]):
        obj = read_obj(("".join(f"v {x} {y} {x + y}\n" for x, y in turned) + "f 1 2 3 4 5 6").encode())
        a, b, c = (obj.v[obj.position[:, k], :2] for k in range(3))
        area = np.cross(np.c_[b - a, np.zeros(4)], np.c_[c - a, np.zeros(4)])[:, 2] / 2
        sign = 1 if turned is corners else -1
        assert (area * sign > 0).all() and (area * sign).sum() == pytest.approx(3)
        fan = sum(abs(np.linalg.det(np.array([turned[i] - turned[0], turned[i + 1] - turned[0]]))) / 2 for i in range(1, 5))
        assert fan > 3.4  # the control


def test_mtl_reads_what_counts_and_survives_the_rest():
    text = b"Kd 1 1 1\nnewmtl a b\nKd 0.1 0.2 0.3\nKa 1 1 1\nd 0.5\nmap_Kd  my wood.jpg\nmap_d x.png\n"
    text += b"newmtl\tc\nKd 0.5\nKd spectral x.rfl\nd -halo 0.7\nnewmtl c\nd 0"
    m = read_mtl(text)
    assert set(m) == {"a b", "c"}
    assert m["a b"].kd == (0.1, 0.2, 0.3) and m["a b"].ka == (1, 1, 1) and m["a b"].alpha == 0.5 and m["a b"].map_kd == "my wood.jpg"
    assert m["c"].kd == (0.5, 0.5, 0.5) and m["c"].alpha == 0.7  # the first of two counts


def test_crease_normals_join_below_sixty_degrees_within_a_group():
    def roof(angle, group, turned=False):
        p = np.array([[0, 0, 0], [0, 1, 0], [1, 0.5, 0], [-np.cos(angle), 0.5, -np.sin(angle)]])
        faces = np.array([[0, 2, 1], [0, 3, 1] if turned else [0, 1, 3]])
        return crease_normals(p, faces, np.array(group)).astype(float), np.array([[0, 0, 1], [-np.sin(angle), 0, np.cos(angle)]])

    n, flat = roof(0.5, [1, 1])
    mean = flat.sum(0) / np.linalg.norm(flat.sum(0))
    np.testing.assert_allclose(n[0, [0, 2]], [mean, mean], atol=1e-6)
    np.testing.assert_allclose(n[1, :2], [mean, mean], atol=1e-6)
    np.testing.assert_allclose([n[0, 1], n[1, 2]], flat, atol=1e-6)  # the corners away from the ridge
    for angle, group in ((1.1, [1, 1]), (0.5, [1, 2]), (0.5, [0, 0])):  # too sharp; apart; s off
        n, flat = roof(angle, group)
        np.testing.assert_allclose(n, np.repeat(flat[:, None], 3, 1), atol=1e-6)
    n, _ = roof(0.5, [1, 1], turned=True)  # wound carelessly: joined all the same, each to its own side
    np.testing.assert_allclose(n[1, 0], -mean, atol=1e-6)


# ---- surfaces ----


def test_surface_is_turned_outwards_centred_and_scaled():
    good = solid(BOX.vertices * [1, 2, 4] + [5, 6, 7])
    np.testing.assert_allclose([good.vertices.min(0), good.vertices.max(0)], [[-0.125, -0.25, -0.5], [0.125, 0.25, 0.5]], atol=1e-6)
    assert volume(solid(faces=BOX.faces[:, ::-1])) == pytest.approx(1)  # inside out
    mixed = np.where((np.arange(12) % 3 == 0)[:, None], BOX.faces[:, ::-1], BOX.faces)
    given = np.repeat(BOX.face_normals[:, None], 3, 1)
    for normals in (given, -given):  # right normals, careless winding; then normals inwards as well
        o = solid(faces=mixed, normals=normals)
        assert volume(o) == pytest.approx(1)
        across = np.cross(o.vertices[o.faces[:, 1]] - o.vertices[o.faces[:, 0]], o.vertices[o.faces[:, 2]] - o.vertices[o.faces[:, 0]])
        np.testing.assert_allclose(o.normals, np.repeat(across[:, None], 3, 1), atol=1e-6)  # edges are 1 long
    with pytest.raises(ValueError, match="triangle"):
        solid(faces=np.zeros((0, 3), int))


def test_surface_drops_copies_of_one_material_and_what_has_no_area():
    p = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [2, 0, 0]], float)
    faces = np.array([[0, 1, 2], [2, 1, 0], [1, 2, 3], [0, 1, 2], [0, 1, 4], [0, 1, 3], [0, 4, 2]])
    keep = surface.distinct(p, faces, np.array([0, 0, 0, 1, 0, 0, 0]))  # back to back; through an equal point; other material; 2 empty
    assert keep.tolist() == [True, False, False, True, False, False, True]
