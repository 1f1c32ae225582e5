# SPDX-License-Identifier: Apache-2.0
"""Where objects come from: furniture libraries, folders of models, packed caches; and the split that keeps them apart."""

from __future__ import annotations

import collections
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from bozzetto.data import catalogue, folder, split, surface, sweethome
from bozzetto.data.catalogue import entries
from bozzetto.data.objects import Packed, pack
from bozzetto.errors import InputError

STEMS = [tuple(line.split()) for line in (Path(__file__).parent / "data" / "sweethome_stems.txt").read_text().splitlines()]
COUNTS = {"train": 665, "validation": 73, "heldout": 82}


# ---- the split ----


def test_split_has_the_promised_counts_and_names():
    assert len(set(STEMS)) == 820
    assert collections.Counter(split.side(*s) for s in STEMS) == COUNTS
    assert len({split.key(*s) for s in STEMS}) == 636
    assert collections.Counter(split.side(*s, salt="another") for s in STEMS) != COUNTS  # the salt is part of the split
    assert split.side("Scopia", "armchair2") == "validation"
    assert split.side("Scopia", "toaster") == "train"
    assert split.side("BlendSwap-CC-0", "teddyBear") == "train"
    assert split.side("BlendSwap-CC-BY", "chest") == "validation"


def test_split_keeps_variants_together_and_names_without_letters_apart():
    assert len({split.key("F", s) for s in ("little_lamp1", "Lamp2", "bigRedLamp", "lamp_post")}) == 1
    assert split.key("F", "square-RJ-45") == split.key("F", "dimmer") == "f:plug"
    assert split.key("F", "sofa") != split.key("G", "sofa")
    assert split.key("F", "17") != split.key("F", "18")


def test_split_of_the_real_libraries():
    place = Path(os.environ.get("BOZZETTO_SWEETHOME", "/usr/share/sweethome3d/furniture"))
    if not place.is_dir():
        pytest.skip(f"no furniture libraries in {place}: install sweethome3d-furniture or set BOZZETTO_SWEETHOME")
    found = [e for path in catalogue.libraries(place) for e in entries(path)]
    assert collections.Counter(e.side for e in found) == COUNTS
    assert sorted((e.family, e.stem) for e in found) == sorted(STEMS)


# ---- things to read ----

BOX = trimesh.creation.box()


def solid(points=BOX.vertices, faces=BOX.faces, **more):
    n = len(faces)
    return surface.finished(
        np.asarray(points), np.asarray(faces), np.zeros(n, int), np.array([[0.2, 0.4, 0.6]]), [None], name="n", source="s", **more
    )


def volume(o):
    p = o.vertices[o.faces].astype(float)
    return np.einsum("fi,fi->", p[:, 0], np.cross(p[:, 1], p[:, 2])) / 6


# ---- furniture libraries ----


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def box_obj(size=(1, 1, 1), material="usemtl m\n", offset=(0, 0, 0)):
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in BOX.vertices * size + offset)
    return corners + material + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in BOX.faces)


def library(path, obj, mtl="newmtl m\nKd 0.8 0.24 0\n", extra="", textures=None, size=(10, 20, 30)):
    width, height, depth = size
    text = "id=X\n\nid#1=F#chair\nname#1=Teck chair\ntags#1=Blend Swap, Seat\ncategory#1=Office\nicon#1=/f/chair.png\n"
    text += f"model#1=/f/chair/chair.obj\nwidth#1={width}\ndepth#1={depth}\nheight#1={height}\ncreator#1=Ren\\u00e9e\n{extra}"
    with zipfile.ZipFile(path / "Scopia.sh3f", "w") as z:
        z.writestr("PluginFurnitureCatalog.properties", text.encode("latin-1"))
        z.writestr("f/chair/chair.obj", "mtllib chair.mtl\n" + obj)
        if mtl:
            z.writestr("f/chair/chair.mtl", mtl)
        for name, data in (textures or {}).items():
            z.writestr(f"f/chair/{name}", data)
    return path / "Scopia.sh3f"


def loaded(path, *args, **more):
    file = library(path, *args, **more)
    (entry,) = entries(file)
    return sweethome.load_with_facts(file, entry)


def test_catalogue_entry(tmp_path):
    (e,) = entries(library(tmp_path, box_obj(), extra="modelRotation#1=1 0 0 0 0 1 0 -1 0\n"))
    assert (e.number, e.name, e.title, e.family, e.stem, e.source) == (1, "teak chair", "Teck chair", "Scopia", "chair", "Scopia/chair")
    assert (e.model, e.creator, e.tags, e.category) == ("f/chair/chair.obj", "Renée", ("Blend Swap", "Seat"), "Office")
    assert e.size == (10, 20, 30) and e.rotation == (1, 0, 0, 0, 0, 1, 0, -1, 0) and e.side == split.side("Scopia", "chair")
    assert e.licence == "CC BY 3.0" and "Scopia Visual Interfaces" in e.credit and "modified" in e.credit
    text = catalogue.attribution([e, replace(e, title="Two")])
    assert text.count("\n- ") == 2 and "Teck chair" in text and "Renée" in text and e.licence_url in text and text.count("\n## ") == 1


def test_catalogue_mends_names():
    assert catalogue.corrected("Socket", "Scopia", 245) == "sock" and catalogue.corrected("Wall socket", "Scopia", 9) == "wall socket"
    assert catalogue.corrected("Bill 10€") == "banknote" and catalogue.corrected("Gaz water heater") == "gas water heater"
    assert catalogue.corrected("Flipper") == "pinball machine" and catalogue.corrected("Chair ") == "chair"


def test_sweethome_puts_the_front_to_x_and_stretches_to_the_catalogue(tmp_path):
    o, facts = loaded(tmp_path, box_obj((2, 4, 8), offset=(50, -7, 0)))
    np.testing.assert_allclose(np.ptp(o.vertices, axis=0), np.array([30, 10, 20]) / 30, atol=1e-6)  # depth, width, height
    np.testing.assert_allclose(o.vertices.min(0) + o.vertices.max(0), 0, atol=1e-6)
    assert facts == sweethome.Facts(0.0, 0.0, 12) and o.name == "teak chair" and o.source == "Scopia/chair"
    # a tetrahedron with one corner far out on each axis of the file: its +x, +y, +z are our +y, +z, +x
    o, _ = loaded(tmp_path, "v 0 0 0\nv 1 0 0\nv 0 2 0\nv 0 0 5\nusemtl m\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n", size=(1, 2, 5))
    np.testing.assert_allclose(o.vertices, np.array([[-5, -1, -2], [-5, 1, -2], [-5, -1, 2], [5, -1, -2]]) / 10, atol=1e-6)
    assert volume(o) == pytest.approx(1 * 2 * 5 / 6 / 125)  # positive: not mirrored on the way


def test_sweethome_turns_before_it_stretches(tmp_path):
    """A rotation that takes the file's y to z: what lies up in the file becomes the front."""
    spike = "v -1 0 -1\nv 1 0 -1\nv 0 0 1\nv 0 4 0\nusemtl m\nf 1 2 3\nf 1 2 4\nf 2 3 4\nf 3 1 4\nvn 0 1 0\n"
    o, _ = loaded(tmp_path, spike, extra="modelRotation#1=1 0 0 0 0 -1 0 1 0\n", size=(2, 2, 4))
    assert o.vertices[o.vertices[:, 0].argmax()] == pytest.approx([0.5, 0, 0], abs=1e-6)
    np.testing.assert_allclose(np.ptp(o.vertices, axis=0), [1, 0.5, 0.5], atol=1e-6)


def test_sweethome_stretches_normals_inversely(tmp_path):
    slope = "v 0 0 0\nv 1 0 0\nv 1 1 1\nv 0 1 1\nvn 0 -0.70710678 0.70710678\nusemtl m\nf 1//1 2//1 3//1 4//1\n"
    o, _ = loaded(tmp_path, slope, size=(10, 10, 30))  # depth 3 times: the normal leans up, and stays across
    p = o.vertices[o.faces[0]]
    assert abs((p[1] - p[0]) @ o.normals[0, 0]) < 1e-6 and abs((p[2] - p[0]) @ o.normals[0, 0]) < 1e-6
    np.testing.assert_allclose(np.linalg.norm(o.normals, axis=2), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("mtl", "colour"),
    [
        ("newmtl m\nKd 0.8 0.24 0\n", [0.8, 0.24, 0]),
        ("newmtl m\nKa 1 1 1\nKd 1 0.214041 0\n", [1, 0.5, 0]),  # a newer Blender's, linear
        ("newmtl m\nKd 0.3 0.3 0.3\nmap_Kd C:\\lost\\wood.jpg\n", [0.3, 0.3, 0.3]),
        ("newmtl m\nKd 0 0 0\nmap_Kd C:\\lost\\wood.jpg\n", [0.5, 0.5, 0.5]),
        ("newmtl other\nKd 0 0 0\n", [0.8, 0.8, 0.8]),
        ("", [0.8, 0.8, 0.8]),
        ("newmtl m\nKd 0 0 0\nmap_Kd broken.png\n", [0.5, 0.5, 0.5]),
        ("newmtl m\nKd 7 -1 0\n", [1, 0, 0]),
    ],
)
def test_sweethome_colours(tmp_path, mtl, colour):
    o, _ = loaded(tmp_path, box_obj(), mtl, textures={"broken.png": b"not a picture"})
    np.testing.assert_allclose(o.colours, [colour], atol=1e-4)
    assert o.textures == (None,)


def test_sweethome_texture_stands_alone_wraps_and_has_its_top_row_first(tmp_path):
    picture = np.zeros((512, 300, 3), np.uint8)
    picture[:256] = [255, 0, 0]
    obj = box_obj(material="vt 0.25 0.9\nvt 2.5 0.9\nvt -1 0.1\nusemtl m\n") + "f 1/1 2/2 3/3\nusemtl m\nf 1 2 5\n"
    obj = "\n".join(line for i, line in enumerate(obj.splitlines()) if not line.startswith("f ") or i > 20 or "/" in line)
    o, _ = loaded(tmp_path, obj, "newmtl m\nKd 0.02 0.1 0.02\nmap_Kd -s 1 1 1 .\\Tex\\WOOD.png\n", textures={"wood.PNG": png(picture)})
    k = next(i for i, t in enumerate(o.textures) if t is not None)
    assert o.textures[k].shape == (256, 150, 3) and o.textures[k][5, 5].tolist() == [255, 0, 0]  # found whatever its case and folder
    textured = np.flatnonzero(o.material == k)
    assert len(textured) == 1 and len(o.textures) == 2  # faces without uv fall back to Kd
    assert sorted(o.uv[textured[0]].tolist()) == np.float32([[-1, 0.9], [0.25, 0.1], [2.5, 0.1]]).tolist()
    np.testing.assert_allclose(o.colours[1 - k], [0.02, 0.1, 0.02], atol=1e-6)
    assert (o.uv[o.material != k] == 0).all()


def test_sweethome_transparency(tmp_path):
    pane = box_obj() + "usemtl glass\nv 5 0 0\nv 5 1 0\nv 5 0 1\nf 9 10 11\n"
    for alpha, count in ((0.25, 12), (0.3, 13), (0.9, 13)):
        o, facts = loaded(tmp_path, pane, f"newmtl m\nnewmtl glass\nd {alpha}\n")
        assert len(o.faces) == count and facts.transparent == pytest.approx(1 / 13)
    o, facts = loaded(tmp_path, box_obj(), "newmtl m\nd 0.1\n")  # nothing but glass: better seen than gone
    assert len(o.faces) == 12 and facts.transparent == 1


def test_sweethome_alpha_test(tmp_path):
    leaf = np.zeros((8, 8, 4), np.uint8)
    leaf[:, :4] = [0, 200, 0, 255]  # the left half is leaf, the right half hidden black
    cards = "vt 0 0\nvt 0.3 0\nvt 0.1 1\nvt 0.7 0\nvt 1 0\nvt 0.9 1\nusemtl m\nv 5 0 0\nv 5 1 0\nv 5 0 1\nf 9/1 10/2 11/3\n"
    cards += "v 6 0 0\nv 6 1 0\nv 6 0 1\nf 12/4 13/5 14/6\n"
    o, facts = loaded(
        tmp_path, box_obj(material="usemtl wood\n") + cards, "newmtl wood\nnewmtl m\nmap_Kd l.png\n", textures={"l.png": png(leaf)}
    )
    assert len(o.faces) == 13 and facts.cards == pytest.approx(2 / 14) and facts.triangles == 14
    texture = next(t for t in o.textures if t is not None)
    assert (texture == [0, 200, 0]).all()


def test_sweethome_usable_and_weight(tmp_path):
    file = library(tmp_path, box_obj())
    (e,) = entries(file)
    o, _ = sweethome.load_with_facts(file, e)
    fine = sweethome.Facts(0.1, 0.1, 500)
    assert sweethome.usable(e, o, fine) and sweethome.weight(e) == 1
    for bad in (replace(fine, transparent=0.3), replace(fine, cards=0.5), replace(fine, triangles=49)):
        assert not sweethome.usable(e, o, bad)
    assert not sweethome.usable(replace(e, size=(1, 20, 20)), o, fine) and not sweethome.usable(e, replace(o, name="banknote"), fine)
    assert sweethome.usable(replace(e, size=(1.1, 20, 20)), o, fine) and sweethome.weight(replace(e, size=(1.1, 20, 20))) == 0.5
    assert sweethome.weight(replace(e, stem="square-dimmer")) == 0.125


def test_sweethome_refuses_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no \.sh3f library"):
        catalogue.libraries(tmp_path)
    (tmp_path / "x.sh3f").write_text("no zip")
    with pytest.raises(InputError, match=r"x\.sh3f: not a furniture library"):
        entries(tmp_path / "x.sh3f")
    with pytest.raises(InputError, match="no triangle"):
        loaded(tmp_path, "v 0 0 0\nl 1 1\n")
    (e,) = entries(file := library(tmp_path, box_obj()))
    with pytest.raises(InputError, match=r"gone\.obj is missing"):
        sweethome.load(file, replace(e, model="f/gone.obj"))


def test_sweethome_packs_a_folder(tmp_path, capsys):
    ball = trimesh.creation.icosphere(2)
    text = (
        "".join(f"v {x} {y} {z}\n" for x, y, z in ball.vertices)
        + "usemtl m\n"
        + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in ball.faces)
    )
    library(tmp_path, text, extra="name#2=Lost\nmodel#2=/f/lost.obj\n")
    with pytest.warns(UserWarning, match="Scopia/lost: skipped"):
        assert sweethome.main([str(tmp_path), str(tmp_path / "out")]) == 0
    assert "1 of 2 models usable" in capsys.readouterr().out
    (row,) = Packed(tmp_path / "out").rows
    assert row["source"] == "Scopia/chair" and row["side"] == split.side("Scopia", "chair") and "CC BY 3.0" in row["credit"]
    assert sweethome.main([str(tmp_path / "none"), str(tmp_path / "out2")]) == 2 and not (tmp_path / "out2").exists()


# ---- packed caches ----


def test_pack_gives_back_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (5, 7, 3), np.uint8)
    a = replace(solid(), colours=np.float32([[1, 0, 0], [0, 1, 0]]), textures=(None, texture), name="é", source="x/a b", credit="ⓒ")
    b = replace(solid(BOX.vertices * [1, 1, 3]), source="x/a_b")
    packed = pack(iter([a, b]), tmp_path / "new" / "out", side=lambda o: "train" if o is a else "heldout", weight=lambda o: 0.5)
    assert len(packed) == 2 and packed.indices("heldout") == [1] and packed.weights([0, 1]).tolist() == [0.5, 0.5]
    assert [r["triangles"] for r in packed.rows] == [12, 12] and packed.rows[0]["name"] == "é"
    for want, got in zip([a, b], Packed(tmp_path / "new" / "out"), strict=True):
        assert (got.name, got.source, got.credit) == (want.name, want.source, want.credit)
        for key in ("vertices", "faces", "normals", "material", "colours", "uv"):
            x, y = getattr(want, key), getattr(got, key)
            assert x.dtype == y.dtype and x.tobytes() == y.tobytes() and x.shape == y.shape
        assert [t is None for t in got.textures] == [t is None for t in want.textures]
    np.testing.assert_array_equal(packed[0].textures[1], texture)
    assert not [p for p in (tmp_path / "new" / "out").iterdir() if p.name.startswith(".")]  # no temporary files are left


def test_pack_writes_its_index_last_and_refuses_other_folders(tmp_path):
    def breaks():
        yield solid()
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        pack(breaks(), tmp_path)
    with pytest.raises(InputError, match=r"no readable index\.json"):
        Packed(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 99, "objects": []}')
    with pytest.raises(InputError, match="format 99"):
        Packed(tmp_path)


# ---- folders of models ----


def written(path, mesh, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path, **more)
    return path


def coloured(visual):
    mesh = BOX.copy()
    mesh.visual = visual
    return mesh


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_folder_reads_what_trimesh_writes(tmp_path, suffix):
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 5]], [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], process=False)
    o = folder.load(written(tmp_path / f"a_Tetra-1{suffix}", mesh))
    assert o.name == "a tetra 1" and o.source == f"folder/a_Tetra-1{suffix}" and o.textures == (None,)
    corners = o.vertices[o.faces].reshape(-1, 3)
    want = np.array([[-5, -1, -2], [-5, 1, -2], [-5, -1, 2], [5, -1, -2]]) / 10  # as in the furniture's test
    assert np.abs(corners[:, None] - want).max(2).min(1).max() < 1e-6 and volume(o) == pytest.approx(1 / 75)


def test_folder_textures_times_factor_and_transforms(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0], picture[1] = 255, 128
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture), baseColorFactor=[255, 128, 0, 255])
    uv = np.linspace(0, 2, 16).reshape(8, 2)
    mesh = coloured(trimesh.visual.TextureVisuals(uv=uv, material=material))
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 3
    scene = trimesh.Scene()
    scene.add_geometry(mesh, geom_name="a")
    scene.add_geometry(
        coloured(trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 128, 0, 255]))),
        transform=mirrored,
    )
    o = folder.load(written(tmp_path / "s.glb", scene, include_normals=False))
    np.testing.assert_allclose(np.ptp(o.vertices, axis=0), [0.25, 1, 0.25], atol=1e-6)  # two unit boxes, 3 apart along the file's x
    assert volume(o) == pytest.approx(2 / 64)  # the mirrored one is not inside out
    k = next(i for i, t in enumerate(o.textures) if t is not None)
    assert o.textures[k][0, 0].tolist() == [255, 188, 0] and (o.textures[k][2:] == 0).all()  # 128/255 linear is 188 in sRGB
    assert o.textures[k][1, 0].tolist() == [128, 93, 0]  # 0.2159 linear, times 0.502, is 0.1083 or 93 in sRGB
    np.testing.assert_allclose(o.colours[1 - k], [0, 188 / 255, 0], atol=2e-3)
    row = {tuple(np.round(v, 4)): t for v, t in zip(BOX.vertices, uv * [1, -1] + [0, 1], strict=True)}
    for f in np.flatnonzero(o.material == k):
        for corner, at in zip(o.vertices[o.faces[f]], o.uv[f], strict=True):
            x, y, z = corner * 4 + [0, 1.5, 0]
            np.testing.assert_allclose(at, row[tuple(np.round([y, z, x], 4))], atol=1e-6)
    across = np.cross(o.vertices[o.faces[:, 1]] - o.vertices[o.faces[:, 0]], o.vertices[o.faces[:, 2]] - o.vertices[o.faces[:, 0]])
    assert (np.einsum("fi,fki->fk", across, o.normals) > 0).all()


def test_folder_vertex_colours_become_a_palette(tmp_path):
    red_or_blue = np.where(BOX.vertices[:, :1] > 0, [[200, 10, 10, 255]], [[10, 10, 200, 255]]).astype(np.uint8)
    mesh = coloured(trimesh.visual.ColorVisuals(BOX, vertex_colors=red_or_blue))
    for suffix in (".ply", ".obj", ".glb"):
        o = folder.load(written(tmp_path / f"c{suffix}", mesh))
        of_face = red_or_blue[BOX.faces][..., :3].mean(1) / 255
        want = surface.srgb(of_face) if suffix == ".glb" else of_face
        centres = BOX.vertices[BOX.faces].mean(1)[:, [2, 0, 1]]
        for f, m in zip(o.faces, o.material, strict=True):
            nearest = np.abs(centres - o.vertices[f].mean(0)).sum(1).argmin()
            np.testing.assert_allclose(o.colours[m], want[nearest], atol=1e-3)
    noise = np.random.default_rng(0).uniform(size=(5000, 3))
    colours, cell = folder._palette(noise)
    assert len(colours) <= 512 and np.abs(colours[cell] - noise).max() <= 1 / 8


def test_folder_keeps_the_normals_of_a_file(tmp_path):
    tilted = np.tile([0.6, 0.0, 0.8], (3, 1))
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], vertex_normals=tilted, process=False)
    for suffix in (".glb", ".obj"):
        o = folder.load(written(tmp_path / f"n{suffix}", mesh, include_normals=True))
        np.testing.assert_allclose(o.normals[0], np.tile([0.8, 0.6, 0], (3, 1)), atol=1e-6)
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=np.diag([3.0, 1, 1, 1]))  # the plane across the normal is stretched along x
    o = folder.load(written(tmp_path / "t.glb", scene, include_normals=True))
    np.testing.assert_allclose(o.normals[0, 0], np.array([0.8, 0.2, 0]) / np.hypot(0.8, 0.2), atol=1e-6)


def test_folder_names_what_is_broken_and_refuses_what_is_empty(tmp_path, capsys):
    written(tmp_path / "deep" / "er" / "good.glb", BOX)
    (tmp_path / "deep" / "bad.glb").write_bytes(b"glTF, but not really")
    (tmp_path / "readme.txt").write_text("no model")
    with pytest.warns(UserWarning, match="bad.glb: skipped"):
        ((path, o),) = folder.load_all(tmp_path)
    assert path.name == "good.glb" and o.source == "folder/deep/er/good.glb"
    with pytest.warns(UserWarning):
        assert folder.main([str(tmp_path), str(tmp_path / "out")]) == 0
    assert "1 of 2 files read" in capsys.readouterr().out
    assert Packed(tmp_path / "out").rows[0]["side"] == split.side_of_file("good") == folder.side("elsewhere/good.obj")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no \.glb"):
        folder.files(tmp_path / "empty")
    with pytest.raises(InputError, match="there is no such folder"):
        folder.files(tmp_path / "missing")
    sides = collections.Counter(split.side_of_file(f"{i:032x}") for i in range(4000))
    assert abs(sides["train"] / 4000 - 0.8) < 4 * (0.16 / 4000) ** 0.5  # four standard errors
