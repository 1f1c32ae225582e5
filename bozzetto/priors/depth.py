# SPDX-License-Identifier: Apache-2.0
"""Depth from one picture by transformers' networks, from a folder on this disk: DPT, which is MiDaS 3 (arXiv:2103.13413), and Depth
Anything (arXiv:2401.10891, 2406.09414).

    config.json, preprocessor_config.json, model.safetensors

What they say is no distance: MiDaS and Depth Anything give its inverse, up to a factor and a shift that nobody knows, the metric ones a
distance. Here it always grows away from the camera. The inverse is turned round by its sign alone, which is affine where an object is
shallow against its distance; losses that see past an affine map (`fit.reference`) ask for no more.

transformers' own loader reads the weights, since only it knows the names of all versions: from this disk, from safetensors, and with
the settings that its classes name. A tensor that is missing, left over or of another shape is refused.

Letters: S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.priors.components import Tensors, check_installed, read_json

LAYOUTS = {"dpt": True, "depth_anything": True}
"""model types that are read, and whether they say the inverse, where the settings do not"""
BACKBONES = ("dinov2", "bit")


@dataclass(frozen=True)
class DepthNetwork:
    """A network that estimates depth.

    side        pixels a side that it is shown
    mean, std   of its pictures' channels
    is_inverse  whether it says the inverse of a distance
    """

    network: Any
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_inverse: bool

    @classmethod
    def read(
        cls,
        folder: str | Path,
        *,
        is_inverse: bool | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> DepthNetwork:
        """The network in a folder, frozen.

        is_inverse  where the settings do not tell: a DPT that was trained on distances has those of one that was not
        raises      InputError, one sentence, for a folder that is incomplete, damaged, pickled, or another network's
        """
        check_installed()
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give one with config.json and model.safetensors of a depth network")
        said, shown = read_json(folder / "config.json"), read_json(folder / "preprocessor_config.json")
        Tensors(folder)  # refuses what is missing, pickled or cut short, by name
        network = _loaded(folder, _config(folder, said), dtype).to(device)
        inverse = LAYOUTS[said["model_type"]] and said.get("depth_estimation_type", "relative") == "relative"
        size, patch = shown.get("size"), int(network.config.patch_size)
        side = size.get("height") if isinstance(size, dict) else size
        channels = [tuple(float(x) for x in shown.get(k) or ()) for k in ("image_mean", "image_std")]
        if not isinstance(side, int) or side < patch or any(len(c) != 3 for c in channels) or min(channels[1]) <= 0:
            raise InputError(f"{folder}/preprocessor_config.json: size, image_mean and image_std are not all there; fetch it again")
        return cls(network, round(side / patch) * patch, channels[0], channels[1], inverse if is_inverse is None else is_inverse)

    @torch.no_grad()
    def depth(self, rgb: Tensor) -> Tensor:
        """(side, side) float32, growing away from the camera, of a square picture (S, S, 3), sRGB in [0, 1]."""
        first = next(self.network.parameters())
        x = rgb.float().movedim(-1, 0)[None]
        if x.shape[-1] != self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (x.new_tensor(c).view(3, 1, 1) for c in (self.mean, self.std))
        said = self.network(pixel_values=((x - mean) / std).to(first)).predicted_depth.float().cpu()
        said = F.interpolate(said[:, None], (self.side, self.side), mode="bilinear")[0, 0]
        if not bool(torch.isfinite(said).all()):
            raise FloatingPointError("the depth network's answer is not finite; run it in float32")
        return -said if self.is_inverse else said


def _config(folder: Path, said: dict[str, Any]) -> Any:
    """Settings that the library's classes name, and no others: some choose kernels, and may fetch them."""
    from transformers import AutoConfig

    def known(settings: dict[str, Any], allowed: Any) -> Any:
        kind = settings.get("model_type")
        if kind not in allowed:
            raise InputError(f"{folder}/config.json: model type {kind!r} is not read; give a network of {' or '.join(allowed)}")
        own = {*type(AutoConfig.for_model(kind)).__annotations__, "out_indices", "out_features"}
        inner = {k: known(v, BACKBONES) for k, v in settings.items() if k == "backbone_config" and isinstance(v, dict)}
        try:
            return AutoConfig.for_model(kind, **{k: v for k, v in settings.items() if k in own and k != "model_type"} | inner)
        except Exception as error:  # the library checks by several classes of its own
            line = " ".join(str(error).split())[:120]
            raise InputError(f"{folder}/config.json: no network can be built from it ({line}); fetch it again") from None

    return known(said, LAYOUTS)


def _loaded(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForDepthEstimation
    from transformers.utils import logging

    shows, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it would warn of is refused below
    try:
        network, found = AutoModelForDepthEstimation.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())[:120]
        raise InputError(f"{folder}: no depth network can be read from it ({line}); fetch it again") from None
    finally:
        logging.set_verbosity(level)
        if shows:
            logging.enable_progress_bar()
    odd = sorted({str(k) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for k in found[kind]})
    if odd:
        raise InputError(f"{folder}: {len(odd)} tensors are not the network's, {odd[0]} among them; weights and settings do not match")
    return network.eval().requires_grad_(False)
