"""The measured figures, and their medians over the rounds."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Results:
    """Every figure: by table, by row, by name, a list of what the rounds gave."""

    tables: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, table: str, row: str, figures: dict[str, float]) -> None:
        """Keeps the figures of one measurement."""
        kept = self.tables.setdefault(table, {}).setdefault(row, {})
        for name, figure in figures.items():
            kept.setdefault(name, []).append(figure)

    def median(self, table: str, row: str, name: str) -> float | None:
        """The middle of what the rounds gave, if it was measured."""
        found = self.tables.get(table, {}).get(row, {}).get(name)
        return statistics.median(found) if found else None

    def save(self, path: Path) -> None:
        """Writes all of them down."""
        path.write_text(json.dumps(self.tables, indent=1))

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads what was written down."""
        return cls(json.loads(path.read_text()))
