# SPDX-License-Identifier: Apache-2.0
"""The uniform step against its formula, and what it is for."""

import torch
from torch import nn

from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.uniform_adam import UniformAdam


def test_the_first_step_is_the_gradient_over_its_largest():
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    p.grad = torch.tensor([0.5, -2.0, 0.0], dtype=torch.float64)
    UniformAdam([p], lr=0.1).step()
    torch.testing.assert_close(p.detach(), torch.tensor([-0.025, 0.1, 0.0], dtype=torch.float64))


def test_two_steps_by_hand():
    p = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimiser = UniformAdam([p], lr=1.0, betas=(0.5, 0.75))
    m, v, x = torch.zeros(2, dtype=torch.float64), 0.0, torch.zeros(2, dtype=torch.float64)
    for n, g in enumerate((torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 0.5])), 1):
        g = g.double()
        p.grad = g
        optimiser.step()
        m, v = 0.5 * m + 0.5 * g, 0.75 * v + 0.25 * float(g.abs().max()) ** 2
        x = x - m / (1 - 0.5**n) / (v / (1 - 0.75**n)) ** 0.5
    torch.testing.assert_close(p.detach(), x)


def test_a_smoothed_gradient_stays_smooth_where_adam_makes_it_rough():
    """One pulled vertex of an SDF: the step's second differences, over its height, are far smaller than Adam's."""

    def roughness(make, smooth):
        shape = DMTet.from_sphere(0.3, 16)
        optimiser = make([shape.sdf])
        before = shape.sdf.detach().clone()
        centre = int((shape.rest - torch.tensor([0.3, 0.0, 0.0])).norm(dim=1).argmin())
        shape.sdf.grad = torch.zeros_like(shape.sdf)
        shape.sdf.grad[centre] = 1.0
        if smooth:
            shape.smooth_gradients(3)
        optimiser.step()
        step = (shape.sdf.detach() - before).view(17, 17, 17)
        return float(step.diff(n=2, dim=0).abs().max() / step.abs().max())

    uniform = roughness(lambda p: UniformAdam(p, lr=0.01), smooth=True)
    adam = roughness(lambda p: torch.optim.Adam(p, lr=0.01), smooth=True)
    assert uniform < 0.7 and adam > 0.95, (uniform, adam)
