# SPDX-License-Identifier: Apache-2.0
"""Deferred shading of many-material objects: triangle ids in, lit pictures out. No gradients: this makes training data.

Light is worked in linear values and encoded to sRGB last. Lambert's diffuse term with an ambient floor, and Blinn and
Phong's highlight with the half vector of a distant eye.
"""

from __future__ import annotations

import numpy as np

from bozzetto.kernels.pool import njit


@njit
def to_linear(c):
    """sRGB in [0, 1] to linear (IEC 61966-2-1)."""
    return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4


@njit
def to_srgb(c):
    """Linear in [0, 1] to sRGB; values outside are clamped."""
    c = min(max(c, 0.0), 1.0)
    return 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055


@njit
def albedo_at(f, b0, b1, material, colours, uv, texels, offset, shape, out):
    """sRGB base colour of face f at barycentrics (b0, b1, 1 - b0 - b1): bilinear and wrapping where there is a texture.

    texels (n, 3) float32 in [0, 1] holds all textures end to end; offset (M,) -1 for none; shape (M, 2) height and width.
    """
    m = material[f]
    if offset[m] < 0:
        out[0], out[1], out[2] = colours[m, 0], colours[m, 1], colours[m, 2]
        return
    b2 = 1 - b0 - b1
    h, w = shape[m, 0], shape[m, 1]
    x = (b0 * uv[f, 0, 0] + b1 * uv[f, 1, 0] + b2 * uv[f, 2, 0]) * w - 0.5
    y = (b0 * uv[f, 0, 1] + b1 * uv[f, 1, 1] + b2 * uv[f, 2, 1]) * h - 0.5
    if not (abs(x) < 1e6 and abs(y) < 1e6):
        x, y = 0.0, 0.0
    i, j = int(np.floor(x)), int(np.floor(y))
    s, t = x - i, y - j
    i0, i1, j0, j1 = i % w, (i + 1) % w, j % h, (j + 1) % h
    base = offset[m]
    for c in range(3):
        top = (1 - s) * texels[base + j0 * w + i0, c] + s * texels[base + j0 * w + i1, c]
        bottom = (1 - s) * texels[base + j1 * w + i0, c] + s * texels[base + j1 * w + i1, c]
        out[c] = (1 - t) * top + t * bottom


@njit
def shade(lo, hi, rast, normals, material, colours, uv, texels, offset, shape, eye, lights, rgb, alpha, normal):
    """Rows lo to hi of a picture.

    rast     (H, W, 4) of `rasterize`; normals (F, 3, 3) corner normals in the world
    eye      (3,) unit, from the object to the eye
    lights   (L, 8): unit direction towards the light (3), diffuse strength, ambient strength, highlight strength,
             highlight exponent, unused
    rgb      (H, W, 3) sRGB, alpha (H, W), normal (H, W, 3) world, turned towards the eye: written where something is seen
    """
    base = np.empty(3)
    for r in range(lo, hi):
        for c in range(rast.shape[1]):
            f = int(rast[r, c, 3]) - 1
            if f < 0:
                continue
            b0, b1 = rast[r, c, 0], rast[r, c, 1]
            b2 = 1 - b0 - b1
            nx = b0 * normals[f, 0, 0] + b1 * normals[f, 1, 0] + b2 * normals[f, 2, 0]
            ny = b0 * normals[f, 0, 1] + b1 * normals[f, 1, 1] + b2 * normals[f, 2, 1]
            nz = b0 * normals[f, 0, 2] + b1 * normals[f, 1, 2] + b2 * normals[f, 2, 2]
            length = np.sqrt(nx * nx + ny * ny + nz * nz)
            length = 1 / length if length > 1e-12 else 0.0
            if nx * eye[0] + ny * eye[1] + nz * eye[2] < 0:
                length = -length
            nx, ny, nz = nx * length, ny * length, nz * length
            albedo_at(f, b0, b1, material, colours, uv, texels, offset, shape, base)
            diffuse, highlight = 0.0, 0.0
            for k in range(len(lights)):
                cosine = max(0.0, nx * lights[k, 0] + ny * lights[k, 1] + nz * lights[k, 2])
                diffuse += lights[k, 4] + lights[k, 3] * cosine
                if lights[k, 5] > 0 and cosine > 0:
                    hx, hy, hz = lights[k, 0] + eye[0], lights[k, 1] + eye[1], lights[k, 2] + eye[2]
                    half = (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-12)
                    highlight += lights[k, 5] * max(half, 0.0) ** lights[k, 6]
            for n in range(3):
                rgb[r, c, n] = to_srgb(to_linear(base[n]) * diffuse + highlight)
            alpha[r, c] = 1.0
            normal[r, c, 0], normal[r, c, 1], normal[r, c, 2] = nx, ny, nz


@njit
def albedos(lo, hi, face, bary, material, colours, uv, texels, offset, shape, out):
    """Base colours (n, 3) sRGB of surface points given as faces (n,) and barycentrics (n, 2)."""
    base = np.empty(3)
    for n in range(lo, hi):
        albedo_at(face[n], bary[n, 0], bary[n, 1], material, colours, uv, texels, offset, shape, base)
        out[n, 0], out[n, 1], out[n, 2] = base[0], base[1], base[2]
