# SPDX-License-Identifier: Apache-2.0
"""Marching tetrahedra: the zero set of an SDF on a tetrahedral grid as triangles, with gradients.

Shen et al. 2021, Deep Marching Tetrahedra (arXiv:2111.04276), Sec. 3.1.3 and Eq. 2. The cases are derived from the rule
in `tets.py`, none is copied. Triangles face *increasing* SDF in tets of positive determinant, which is the released winding, too:
with our sign, negative inside, that is outward. Differs from the released code: edges are numbered beforehand instead of by
`unique` in each call, and a Kuhn lattice needs no list of tets at all.

Letters: N grid vertices, T tets, E edges; M vertices and F faces of the surface; edge (a, b) with a < b and SDF s_a, s_b of
different signs ("positive" is strict: 0 counts as inside); t = s_a / (s_a - s_b), v_ab = v_a + t (v_b - v_a).
In a lattice, one byte a vertex, `mask`, says which of the seven edges it owns are crossed, and so which of its cell's corners differ.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bozzetto.kernels import pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.tets import BITS, CELL_CORNERS, CELL_COUNT, CORNERS, COUNT

TINY = 1e-18  # least |s_b - s_a| in gradients; keeps 1 / TINY finite in float32
ROWS, POINTS = 8192, 1 << 17  # less than twice so many (0.5 ms) are not worth a second thread
BLOCK = 8192  # edges or tets counted together


class Grid(Protocol):
    """What this kernel reads of a grid, `bozzetto.shapes.tetgrid.TetGrid`: N, the cells of a lattice (else None), the lists of others."""

    def __len__(self) -> int: ...
    @property
    def cells(self) -> tuple[int, int, int] | None: ...
    def lists(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int32 arrays of any other grid: tets (T, 4); edges (E, 2), each (a, b) with a < b, sorted; tet edges (T, 6)."""


def marching_tetrahedra(vertices: Tensor, sdf: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """The surface sdf = 0, linear within each tet; watertight where it stays off the grid's boundary.

    vertices  (N, 3) float32 or float64, grid vertices (moved ones, too); gradients flow here
    sdf       (N,) of the same dtype, negative inside; gradients flow here, to the ends of crossed edges only
    grid      connectivity: a Kuhn lattice (implicit) or lists of tets and edges
    returns   vertices (M, 3), in the order of their grid edges; faces (F, 3) int64, counter-clockwise seen from larger
              SDF; ends (M, 2) int64, the grid edge (a < b) on which each vertex lies. Empty when no sign changes.
              A vertex keeps 1e-3 (float32) or 1e-8 (float64) of its edge's length from both ends, so that an SDF of
              exactly 0 makes small triangles but no degenerate ones. The same bits for any number of threads.
    raises    ValueError for wrong shapes or dtypes, or an SDF that is not finite
    """
    _check(vertices, sdf, grid)
    return _March.apply(vertices, sdf, grid)


def crossed_edges(sdf: Tensor, grid: Grid) -> Tensor:
    """The grid edges (M, 2) int64, a < b, whose ends differ in sign: the third result of `marching_tetrahedra` alone."""
    if sdf.shape != (len(grid),):
        raise ValueError(f"marching: expected an sdf of the grid's {len(grid)} vertices, got {tuple(sdf.shape)}")
    s = np.ascontiguousarray(sdf.detach().cpu().numpy())
    return torch.from_numpy(_topology(s, grid)[0].astype(np.int64)).to(sdf.device)


def _check(vertices: Tensor, sdf: Tensor, grid: Grid) -> None:
    if sdf.shape != (len(grid),) or vertices.shape != (len(grid), 3):
        shapes = f"{tuple(vertices.shape)} and {tuple(sdf.shape)}"
        raise ValueError(f"marching: expected vertices (N, 3) and sdf (N,) with the grid's N = {len(grid)}, got {shapes}")
    if vertices.dtype != sdf.dtype or sdf.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"marching: expected float32 or float64 for both, got {vertices.dtype} and {sdf.dtype}")
    if not torch.isfinite(sdf.detach().sum()) and not torch.isfinite(sdf.detach()).all():  # the sum first: it is much cheaper
        raise ValueError("marching: the SDF holds values that are not finite; lower the step size")


class _March(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, sdf: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        v = np.ascontiguousarray(vertices.detach().cpu().numpy())
        s = np.ascontiguousarray(sdf.detach().cpu().numpy())
        ends, faces = _topology(s, grid)
        verts = np.empty((len(ends), 3), v.dtype)
        pool.run(_interpolate, len(ends), ends, v, s, _margin(v), verts, grain=POINTS)
        ctx.save_for_backward(vertices, sdf)
        ctx.ends = ends
        to = vertices.device
        out = torch.from_numpy(verts).to(to), torch.from_numpy(faces).to(to), torch.from_numpy(ends.astype(np.int64)).to(to)
        ctx.mark_non_differentiable(out[1], out[2])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, None]:
        vertices, sdf = ctx.saved_tensors
        v = np.ascontiguousarray(vertices.detach().cpu().numpy())
        s = np.ascontiguousarray(sdf.detach().cpu().numpy())
        g = np.ascontiguousarray(grad.detach().cpu().numpy())
        needs_v, needs_s = ctx.needs_input_grad[:2]
        gv = np.zeros((len(v) if needs_v else 0, 3), v.dtype)
        gs = np.zeros(len(s) if needs_s else 0, s.dtype)
        pool.run(_scatter, len(s), ctx.ends, v, s, g, _margin(v), gv, gs, grain=POINTS)
        to = vertices.device
        return torch.from_numpy(gv).to(to) if needs_v else None, torch.from_numpy(gs).to(to) if needs_s else None, None


def _margin(v: np.ndarray) -> float:
    return 1e-3 if v.dtype == np.float32 else 1e-8  # many units in the last place of a coordinate, and not to be seen


@njit
def _interpolate(lo, hi, ends, vertices, sdf, margin, out):
    for m in range(lo, hi):
        a, b = ends[m, 0], ends[m, 1]
        sa, sb = np.float64(sdf[a]), np.float64(sdf[b])
        t = min(max(sa / (sa - sb), margin), 1 - margin)
        for k in range(3):
            va = np.float64(vertices[a, k])
            out[m, k] = va + t * (np.float64(vertices[b, k]) - va)


@njit
def _scatter(lo, hi, ends, vertices, sdf, grad, margin, grad_vertices, grad_sdf):
    """Gradients of the grid vertices in [lo, hi): each is owned by one thread and summed in the order of edges."""
    for m in range(len(ends)):
        a, b = ends[m, 0], ends[m, 1]
        if a >= hi:
            break  # sorted by a, and b > a
        if b < lo or (a < lo and b >= hi):
            continue
        sa, sb = np.float64(sdf[a]), np.float64(sdf[b])
        t = min(max(sa / (sa - sb), margin), 1 - margin)
        dot = 0.0
        for k in range(3):
            dot += np.float64(grad[m, k]) * (np.float64(vertices[a, k]) - np.float64(vertices[b, k]))
        den = max(abs(sb - sa), TINY)
        dot /= den * den
        if a >= lo:
            if len(grad_sdf):
                grad_sdf[a] += sb * dot
            if len(grad_vertices):
                for k in range(3):
                    grad_vertices[a, k] += (1 - t) * grad[m, k]
        if b < hi and b >= lo:
            if len(grad_sdf):
                grad_sdf[b] -= sa * dot
            if len(grad_vertices):
                for k in range(3):
                    grad_vertices[b, k] += t * grad[m, k]


# ---- topology: crossed edges and faces ----


def _topology(sdf: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Crossed edges (M, 2) int32, sorted, and faces (F, 3) int64 over them, in the order of the tets."""
    if grid.cells is not None:
        return _lattice(sdf, *grid.cells)
    positive = np.empty(len(sdf), np.uint8)
    pool.run(_signs, len(sdf), sdf, positive, grain=POINTS)
    return _listed(positive, *grid.lists())


@njit
def _signs(lo, hi, sdf, positive):
    for n in range(lo, hi):
        positive[n] = sdf[n] > 0


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


WORD = 32  # signs in a word, so that int64 arithmetic needs no care


def _lattice(sdf: np.ndarray, nx: int, ny: int, nz: int) -> tuple[np.ndarray, np.ndarray]:
    rows = (nx + 1) * (ny + 1)
    words = nz // WORD + 2  # a last one of zeros, to be shifted in
    signs, active = np.empty((rows, words), np.int64), np.empty((rows, words), np.int64)
    mask, pattern, first = np.empty(len(sdf), np.uint8), np.empty(len(sdf), np.uint8), np.empty(len(sdf), np.int32)
    num_ends, num_faces = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    pool.run(_lattice_signs, rows, sdf, nz, signs, grain=ROWS)
    pool.run(_lattice_count, rows, signs, nx, ny, nz, active, mask, pattern, num_ends, num_faces, grain=ROWS)
    start_ends, start_faces = _starts(num_ends), _starts(num_faces)
    ends, faces = np.empty((start_ends[-1], 2), np.int32), np.empty((start_faces[-1], 3), np.int64)
    pool.run(_lattice_ends, rows, active, mask, ny, nz, start_ends, first, ends, grain=ROWS)
    pool.run(_lattice_faces, rows, active, mask, pattern, first, ny, nz, start_faces, faces, grain=ROWS)
    return ends, faces


@njit
def _lattice_signs(lo, hi, sdf, nz, signs):
    """Rows of vertices along z: bit k of a word says whether s > 0."""
    for row in range(lo, hi):
        v = row * (nz + 1)
        for w in range(signs.shape[1]):
            word = 0
            for k in range(WORD * w, min(WORD * w + WORD, nz + 1)):
                word |= np.int64(sdf[v + k] > 0) << (k - WORD * w)
            signs[row, w] = word


@njit
def _lattice_count(lo, hi, signs, nx, ny, nz, active, mask, pattern, num_ends, num_faces):
    """Which vertices own crossed edges, the mask of each (bit d - 1 is direction d), its cell's pattern, the row's totals."""
    one = (1 << WORD) - 1
    for row in range(lo, hi):
        i, j = row // (ny + 1), row % (ny + 1)
        dx, dy = (ny + 1 if i < nx else 0), (1 if j < ny else 0)
        is_cell = dx > 0 and dy > 0
        n, f = 0, 0
        for w in range(signs.shape[1] - 1):
            left = nz - WORD * w  # vertices before the row's last, which has no edges along z
            up = one if left >= WORD else (1 << left) - 1
            all_z = one if left >= WORD else (1 << (left + 1)) - 1
            s = signs[row, w]
            b2, b4, b6 = signs[row + dy, w], signs[row + dx, w], signs[row + dx + dy, w]
            b1 = s >> 1 | (signs[row, w + 1] & 1) << (WORD - 1)
            b3 = b2 >> 1 | (signs[row + dy, w + 1] & 1) << (WORD - 1)
            b5 = b4 >> 1 | (signs[row + dx, w + 1] & 1) << (WORD - 1)
            b7 = b6 >> 1 | (signs[row + dx + dy, w + 1] & 1) << (WORD - 1)
            e1 = (s ^ b1) & up
            e2 = (s ^ b2) & all_z  # 0 by itself where dy is 0
            e3 = (s ^ b3) & (up if dy else 0)
            e4 = (s ^ b4) & all_z
            e5 = (s ^ b5) & (up if dx else 0)
            e6 = (s ^ b6) & (all_z if is_cell else 0)
            e7 = (s ^ b7) & (up if is_cell else 0)
            todo = e1 | e2 | e3 | e4 | e5 | e6 | e7
            active[row, w] = todo
            while todo:
                k = _lowest(todo)
                todo &= todo - 1
                m = (e1 >> k & 1) | (e2 >> k & 1) << 1 | (e3 >> k & 1) << 2 | (e4 >> k & 1) << 3
                m |= (e5 >> k & 1) << 4 | (e6 >> k & 1) << 5 | (e7 >> k & 1) << 6
                v = row * (nz + 1) + WORD * w + k
                corners = m << 1 ^ (255 if s >> k & 1 else 0)
                if not (is_cell and k < left):
                    corners = 0
                mask[v], pattern[v] = m, corners
                n += BITS[m]
                f += CELL_COUNT[corners]
        num_ends[row], num_faces[row] = n, f


@njit
def _lowest(word):
    """The number of the lowest bit that is set."""
    x = (word & -word) - 1
    return np.int64(BITS[x & 255]) + BITS[x >> 8 & 255] + BITS[x >> 16 & 255] + BITS[x >> 24 & 255]


@njit
def _lattice_ends(lo, hi, active, mask, ny, nz, start, first, ends):
    for row in range(lo, hi):
        n = start[row]
        if start[row + 1] == n:
            continue
        for w in range(active.shape[1] - 1):
            todo = active[row, w]
            while todo:
                v = row * (nz + 1) + WORD * w + _lowest(todo)
                todo &= todo - 1
                first[v] = n
                for d in range(1, 8):
                    if mask[v] >> (d - 1) & 1:
                        ends[n, 0] = v
                        ends[n, 1] = v + (((d >> 2) * (ny + 1)) + (d >> 1 & 1)) * (nz + 1) + (d & 1)
                        n += 1


@njit
def _lattice_faces(lo, hi, active, mask, pattern, first, ny, nz, start, faces):
    offset = np.empty(8, np.int64)
    for c in range(8):
        offset[c] = (((c >> 2) * (ny + 1)) + (c >> 1 & 1)) * (nz + 1) + (c & 1)
    for row in range(lo, hi):
        n = start[row]
        if start[row + 1] == n:
            continue
        for w in range(active.shape[1] - 1):
            todo = active[row, w]
            while todo:
                v = row * (nz + 1) + WORD * w + _lowest(todo)
                todo &= todo - 1
                p = pattern[v]
                for f in range(CELL_COUNT[p]):
                    for k in range(3):
                        corner = CELL_CORNERS[p, f, k]
                        u = v + offset[corner >> 3]
                        faces[n, k] = first[u] + BITS[mask[u] & ((1 << ((corner & 7) - 1)) - 1)]
                    n += 1


def _listed(positive: np.ndarray, tets: np.ndarray, edges: np.ndarray, tet_edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    blocks = -(-len(edges) // BLOCK), -(-len(tets) // BLOCK)
    num_ends, num_faces = np.zeros(blocks[0], np.int64), np.zeros(blocks[1], np.int64)
    number, case = np.empty(len(edges), np.int32), np.empty(len(tets), np.uint8)
    pool.run(_listed_count_ends, blocks[0], positive, edges, num_ends)
    pool.run(_listed_count_faces, blocks[1], positive, tets, case, num_faces)
    start_ends, start_faces = _starts(num_ends), _starts(num_faces)
    ends, faces = np.empty((start_ends[-1], 2), np.int32), np.empty((start_faces[-1], 3), np.int64)
    pool.run(_listed_ends, blocks[0], positive, edges, start_ends, number, ends)
    pool.run(_listed_faces, blocks[1], case, tet_edges, number, start_faces, faces)
    return ends, faces


@njit
def _listed_count_ends(lo, hi, positive, edges, num_ends):
    for block in range(lo, hi):
        n = 0
        for e in range(block * BLOCK, min(block * BLOCK + BLOCK, len(edges))):
            n += positive[edges[e, 0]] ^ positive[edges[e, 1]]
        num_ends[block] = n


@njit
def _listed_count_faces(lo, hi, positive, tets, case, num_faces):
    for block in range(lo, hi):
        n = 0
        for t in range(block * BLOCK, min(block * BLOCK + BLOCK, len(tets))):
            k = positive[tets[t, 0]] | positive[tets[t, 1]] << 1 | positive[tets[t, 2]] << 2 | positive[tets[t, 3]] << 3
            case[t] = k
            n += COUNT[k]
        num_faces[block] = n


@njit
def _listed_ends(lo, hi, positive, edges, start, number, ends):
    for block in range(lo, hi):
        n = start[block]
        if start[block + 1] == n:
            continue
        for e in range(block * BLOCK, min(block * BLOCK + BLOCK, len(edges))):
            if positive[edges[e, 0]] ^ positive[edges[e, 1]]:
                number[e] = n
                ends[n, 0], ends[n, 1] = edges[e, 0], edges[e, 1]
                n += 1


@njit
def _listed_faces(lo, hi, case, tet_edges, number, start, faces):
    for block in range(lo, hi):
        n = start[block]
        if start[block + 1] == n:
            continue
        for t in range(block * BLOCK, min(block * BLOCK + BLOCK, len(case))):
            k = case[t]
            for f in range(COUNT[k]):
                for c in range(3):
                    faces[n, c] = number[tet_edges[t, CORNERS[k, f, c]]]
                n += 1
