# SPDX-License-Identifier: Apache-2.0
"""Pictures of a scene by Blender's path tracer; run by `benchmarks.scenes` with an interpreter that has bpy, and needs nothing of Bozzetto.

    python path_trace.py FOLDER

FOLDER holds scene.npz and scene.json, as `benchmarks.scenes` writes them; pictures come to where scene.json says, RGBA, 8 bits. A picture
that is there is not rendered again. One sun and a grey sky: light stays still while the camera moves.
"""

import json
import math
import sys
from pathlib import Path

import bpy
import numpy as np


def material(about):
    """A Principled BSDF: base colour or tiling texture, roughness, metallic."""
    m = bpy.data.materials.new("m")
    m.use_nodes = True
    nodes = m.node_tree.nodes
    shader = nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value, shader.inputs["Metallic"].default_value = about["roughness"], about["metallic"]
    if about["texture"]:
        image = nodes.new("ShaderNodeTexImage")
        image.image = bpy.data.images.load(about["texture"])
        m.node_tree.links.new(image.outputs["Color"], shader.inputs["Base Color"])
    else:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in about["colour"]]
        shader.inputs["Base Color"].default_value = (*linear, 1)
    return m


def build(folder, about):
    """The scene's one mesh, its light, and a camera without a pose."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    a = np.load(folder / "scene.npz")
    mesh = bpy.data.meshes.new("scene")
    mesh.from_pydata(a["vertices"].tolist(), [], a["faces"].tolist())
    uv = a["uv"].reshape(-1, 2).copy()
    uv[:, 1] = 1 - uv[:, 1]  # Blender's rows begin at the bottom
    mesh.uv_layers.new(name="uv").data.foreach_set("uv", uv.ravel())
    mesh.polygons.foreach_set("material_index", a["material"].astype(np.int32))
    mesh.normals_split_custom_set(a["normals"].reshape(-1, 3).tolist())
    for m in about["materials"]:
        mesh.materials.append(material(m))
    scene.collection.objects.link(bpy.data.objects.new("scene", mesh))
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.data.angle, sun.rotation_euler = 2.2, 0.2, (math.radians(35), math.radians(15), math.radians(60))
    scene.collection.objects.link(sun)
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.55, 0.58, 0.62, 1)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.angle = about["angle"]
    scene.collection.objects.link(camera)
    scene.camera = camera
    return scene


def main():
    folder = Path(sys.argv[1])
    about = json.loads((folder / "scene.json").read_text())
    scene = build(folder, about)
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.seed = "CPU", about["samples"], 0
    scene.cycles.use_denoising = False  # a denoiser paints each view anew, and no two agree
    scene.cycles.use_adaptive_sampling = False
    scene.render.threads_mode, scene.render.threads = "FIXED", about["threads"]
    scene.render.use_persistent_data = True
    scene.render.film_transparent = True
    scene.render.resolution_x = scene.render.resolution_y = about["size"]
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode, scene.render.image_settings.color_depth = "RGBA", "8"
    scene.view_settings.view_transform = "Standard"  # sRGB, without a film's curve
    from mathutils import Matrix

    for view in about["views"]:
        path = Path(view["path"])
        if path.is_file():
            continue
        scene.camera.matrix_world = Matrix(view["pose"])
        scene.render.filepath = str(path.with_suffix(".part.png"))
        bpy.ops.render.render(write_still=True)
        path.with_suffix(".part.png").rename(path)


if __name__ == "__main__":
    main()
