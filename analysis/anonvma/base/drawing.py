# SPDX-License-Identifier: GPL-2.0-only
"""seaborn, by which everything here draws, imported without scipy.stats.

That takes as long as half of the rest of it, for density estimates, of which we draw none. Whoever
draws one beside our figures has it imported then.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["sns"]

_STATS = "scipy.stats"


def _gaussian_kde(*words: Any, **more: Any) -> Any:
    return importlib.import_module(_STATS).gaussian_kde(*words, **more)


_later = ModuleType(_STATS)
vars(_later)["gaussian_kde"] = _gaussian_kde  # all that seaborn takes from there
sys.modules.setdefault(_STATS, _later)
try:
    import seaborn as sns
finally:
    if sys.modules[_STATS] is _later:
        del sys.modules[_STATS]
