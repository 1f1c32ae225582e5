# SPDX-License-Identifier: Apache-2.0
"""A recipe is a value: what it is called, what can be set, which priors it needs, and the function that lifts.

    def lift(job: Job[Mine]) -> Lifted: ...

    RECIPE = Recipe("mine", {"standard": Mine()}, lift, stages={"guess": 0.1, "shape": 0.6, "clean": 0.05, "texture": 0.25})

`bozzetto.lift(picture, recipe=RECIPE)` runs it as any other: resumable, seeded, with progress. One that starts from a text alone says
`starts_from="text"`: its jobs have words and no picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from bozzetto.fit.estimates import Estimator
from bozzetto.fit.finish import Lifted
from bozzetto.fit.run import Run
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.priors.clip import Clip
from bozzetto.priors.coordinates import MapPrior
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior

S = TypeVar("S")

Need = Literal["first_guess", "views", "text", "multiview", "normals", "coordinates"]
"""first_guess is what most lifts begin with, the embedded network or another (`fit.guesses`); views a prior that draws an object from
other sides; text one that is conditioned on text; multiview one that draws several views of an object together, of a text; normals one
that draws an object from other sides, and its normals; coordinates one of coordinate maps, of a text"""

Start = Literal["picture", "text", "either"]
"""what a lift starts from: a picture, perhaps with a text beside it; or a text alone; or the former where a picture is given"""

Extra = Literal["paint", "clip", "edit"]
"""what a recipe may be given besides, and can do without: paint is another prior of text, for what comes last, without it that of text;
clip compares renderings with a text, without it the embedded towers; edit edits pictures, for any lift that is to be edited"""

ANYTHING = "an object"
"""what a prior of text is asked for where nobody said what the picture shows"""

Guess = Callable[[Source, float, float | None], Solid]
"""What a lift begins with: of a picture, the azimuth that it is to have, and its elevation or None where that is to be found, the solid
behind it (`fit.guesses`)"""


@dataclass(frozen=True)
class Priors:
    """The priors that a recipe named in `needs`, and what it was given of its `extras`; the others are None."""

    first_guess: Guess | None = None
    views: Prior | None = None
    text: Prior | None = None
    multiview: Prior | None = None
    normals: Prior | None = None
    coordinates: MapPrior | None = None
    paint: Prior | None = None
    clip: Clip | None = None


@dataclass(frozen=True)
class Job(Generic[S]):
    """One lift.

    picture    None where the recipe starts from a text
    azimuth    of the picture, radians; 0 makes the side that the picture shows the front
    elevation  of the picture, radians, or None to estimate it
    seed       of everything random
    text       what the picture shows, in words, for a recipe that asks
    depth, normal  who estimates the picture's, for a recipe that compares with them; without a depth it is the guess's
    """

    picture: Source | None
    priors: Priors
    settings: S
    run: Run
    azimuth: float = 0.0
    elevation: float | None = None
    seed: int = 0
    text: str | None = None
    depth: Estimator | None = None
    normal: Estimator | None = None

    @property
    def source(self) -> Source:
        """The picture; raises ValueError for a lift that starts from a text."""
        if self.picture is None:
            raise ValueError("recipe: it asks for a picture; say that it starts from one")
        return self.picture

    def guess(self) -> Solid:
        """Stage `guess`: the solid behind the picture."""
        make: Guess = self.prior("first_guess")
        return self.run.stage("guess", lambda: make(self.source, self.azimuth, self.elevation), Solid)

    @property
    def views(self) -> Prior:
        """The prior of views."""
        found: Prior = self.prior("views")
        return found

    @property
    def text_prior(self) -> Prior:
        """The prior of text."""
        found: Prior = self.prior("text")
        return found

    @property
    def coordinates(self) -> MapPrior:
        """The prior of coordinate maps."""
        found: MapPrior = self.prior("coordinates")
        return found

    @property
    def painter(self) -> Prior:
        """The prior of text for what comes last."""
        return self.text_prior if self.priors.paint is None else self.priors.paint

    @property
    def words(self) -> str:
        """The text, or ANYTHING where none was given."""
        return ANYTHING if self.text is None else self.text

    def prior(self, need: Need) -> Any:
        """One of the priors; raises ValueError where the recipe does not name it among its needs."""
        if (found := getattr(self.priors, need)) is None:
            raise ValueError(f"recipe: it asks for the prior {need}; name it among its needs")
        return found


@dataclass(frozen=True)
class Recipe(Generic[S]):
    """How to lift.

    presets  settings by name, all of one frozen dataclass, whose fields are annotated as `settings` reads them
    lift     the function
    stages   of a run, in order, with their shares of the time
    needs    which priors are loaded; `--prior FOLDER` is that of the last one, `--prior NEED=FOLDER` of any
    about    one line on how it lifts
    asks     of settings and the diffusion priors' outlines, by need: what each is asked for, so that time and memory are told beforehand
    extras   what it can be given besides, `--prior EXTRA=FOLDER`
    compares whether it compares with estimates of the picture's depth and normals, `--depth`, `--normal`
    starts_from  a picture, a text alone, or either
    joint    whether its prior of views may be one that draws several of them together
    """

    name: str
    presets: Mapping[str, S]
    lift: Callable[[Job[S]], Lifted]
    stages: Mapping[str, float]
    needs: tuple[Need, ...] = ("first_guess",)
    about: str = ""
    asks: Callable[[S, Mapping[Any, Prior]], Mapping[Any, Asked]] | None = None
    extras: tuple[Extra, ...] = ()
    compares: bool = False
    starts_from: Start = "picture"
    joint: bool = False

    @property
    def settings(self) -> type[S]:
        """The class of its settings."""
        return type(next(iter(self.presets.values())))
