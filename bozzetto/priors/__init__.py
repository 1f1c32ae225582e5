# SPDX-License-Identifier: Apache-2.0
"""What is known of objects before a picture is seen: the embedded first guess, and diffusion models, which `load` opens."""

from bozzetto.priors.loading import load as load
from bozzetto.priors.sampling import sample as sample
from bozzetto.priors.saving import save as save
