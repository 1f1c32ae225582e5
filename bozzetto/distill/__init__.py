# SPDX-License-Identifier: Apache-2.0
"""Distillation: losses whose gradient moves a rendering towards what a prior finds likely."""
