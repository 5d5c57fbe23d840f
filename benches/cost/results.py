"""The measured figures, their medians, and the ratios of those taken together."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a figure is kept."""

    table: str
    row: str
    name: str


@dataclass(frozen=True)
class Ratio:
    """What the ratios of two figures came to, pass by pass."""

    median: float
    # The lowest and the highest of the middle half, or of all if they are fewer than four:
    # how sure the median is.
    low: float
    high: float
    # Of how many passes.
    passes: int


@dataclass
class Results:
    """Every figure: by table, by row, by name, a list with a place for each pass."""

    # `None`: this pass has no figure.
    tables: dict[str, dict[str, dict[str, list[float | None]]]] = field(default_factory=dict)
    # How many rounds were completed.
    rounds: int = 0

    def add(self, table: str, row: str, figures: dict[str, float], number: int) -> None:
        """Keeps the figures of one pass; passes are numbered from 0, through all rounds."""
        kept = self.tables.setdefault(table, {}).setdefault(row, {})
        for name, figure in figures.items():
            passes = kept.setdefault(name, [])
            passes += [None] * (number + 1 - len(passes))
            passes[number] = figure

    def passes(self, place: Place) -> list[float | None]:
        """What each pass gave."""
        return self.tables.get(place.table, {}).get(place.row, {}).get(place.name, [])

    def median(self, table: str, row: str, name: str) -> float | None:
        """The middle of what the passes gave, if it was measured."""
        found = [figure for figure in self.passes(Place(table, row, name)) if figure is not None]
        return statistics.median(found) if found else None

    def ratio(self, figure: Place, base: Place) -> Ratio | None:
        """How two figures compare in the passes that have both.

        What disturbs one pass disturbs its neighbour alike, so their ratio holds still
        where the medians of each do not.
        """
        ratios = sorted(
            one / other
            for one, other in zip(self.passes(figure), self.passes(base))
            if one is not None and other
        )
        if not ratios:
            return None
        cut = len(ratios) // 4
        return Ratio(statistics.median(ratios), ratios[cut], ratios[-1 - cut], len(ratios))

    def save(self, path: Path) -> None:
        """Writes all of them down."""
        path.write_text(json.dumps(self.tables, indent=1))

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads what was written down."""
        return cls(json.loads(path.read_text()))
