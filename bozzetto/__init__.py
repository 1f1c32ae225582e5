# SPDX-License-Identifier: Apache-2.0
"""Bozzetto: one picture in, a textured 3D model out, on any machine.

Nothing heavy is imported here, so that `bozzetto --help` answers at once; import the rooms by name.
"""

__version__ = "0.1.0"
