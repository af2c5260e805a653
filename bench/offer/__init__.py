"""Images and ways of sending them, regimes of slowness and failures, arrivals. Other rooms import these names here."""

from bench.offer.load import Records, closed_groups, open_loop
from bench.offer.workload import (
    LATENCY_TABLE,
    REGIMES,
    Outage,
    Regime,
    Seconds,
    load_of,
    load_table,
    poisson,
    read_arrivals,
    read_numbers,
)
from bench.samples import (
    ROOT,
    ImageAnswers,
    KnownModels,
    Models,
    Sample,
    TypicalModels,
    load_samples,
    random_groups,
    slug,
)

__all__ = [
    "LATENCY_TABLE",
    "REGIMES",
    "ROOT",
    "ImageAnswers",
    "KnownModels",
    "Models",
    "Outage",
    "Records",
    "Regime",
    "Sample",
    "Seconds",
    "TypicalModels",
    "closed_groups",
    "load_of",
    "load_samples",
    "load_table",
    "open_loop",
    "poisson",
    "random_groups",
    "read_arrivals",
    "read_numbers",
    "slug",
]
