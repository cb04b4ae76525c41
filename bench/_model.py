"""What a benchmark is told, and what it answers: plain values that the report prints and writes as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Goal", "Measurement", "Options", "Result"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the person asked for."""

    quick: bool
    """Small sizes and few rounds: shows that the benchmark works, not how fast anything is."""
    rounds: int | None
    """How often everything is measured; None leaves it to the benchmark."""
    products: int
    """Products in the feed of the harvest."""
    million: bool
    """Whether the harvest is measured with a million products as well."""
    folder: Path
    """Where temporary files go; removed at the end."""

    def rounds_or(self, usual: int) -> int:
        """How often to measure: as asked, else as usual, else twice where it is to be quick."""
        return self.rounds or (2 if self.quick else usual)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One quantity of one subject in one case, measured once a round."""

    case: str
    """What is done, such as "10,000 products"."""
    subject: str
    """Who does it."""
    quantity: str
    """What is measured, such as "wall"."""
    unit: str
    """Its unit; empty for a number of things."""
    values: tuple[float, ...]
    """One value a round."""

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    def ratio(self, other: Measurement) -> float:
        """The middle of the ratios of each round, so that a round in which the machine was busy distorts nothing."""
        return statistics.median(mine / its for mine, its in zip(self.values, other.values, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A number to reach. It is reported and never fails a run: a busy machine is no fault of the program."""

    name: str
    """What is compared."""
    value: float
    """What was measured, from medians."""
    limit: float
    """What is wanted."""
    at_least: bool = False
    """Whether more is better; else less is."""
    unit: str = "x"
    """Of both numbers; "x" is a ratio."""

    @property
    def reached(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a benchmark found."""

    title: str
    """What was measured, for people."""
    reference: str
    """The subject that ratios are given to."""
    measurements: tuple[Measurement, ...]
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()
    """What one has to know to read the numbers."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Circumstances for the JSON alone, such as sizes."""

    def find(self, case: str, subject: str, quantity: str) -> Measurement:
        """One measurement.

        Raises:
            KeyError: there is no such measurement.
        """
        for found in self.measurements:
            if (found.case, found.subject, found.quantity) == (case, subject, quantity):
                return found
        raise KeyError((case, subject, quantity))

    def ratio(self, case: str, subject: str, to: str, quantity: str) -> float:
        """How many times as much one subject has as another; see `Measurement.ratio`."""
        return self.find(case, subject, quantity).ratio(self.find(case, to, quantity))
