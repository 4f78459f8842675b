# SPDX-License-Identifier: GPL-2.0-only
"""The views of the explorer by name: each makes a `anonvma.explore.view.View` of what is shown."""

from __future__ import annotations

from collections.abc import Callable

from anonvma.explore.view import Shown, View
from anonvma.explore.views_compare import differs
from anonvma.explore.views_faults import call_paths, fault_view
from anonvma.explore.views_vmas import address_spaces, overview, pages, vmas

VIEWS: dict[str, Callable[[Shown], View]] = {
    "overview": overview,
    "vmas": vmas,
    "map": address_spaces,
    "pages": pages,
    "faults": fault_view,
    "call paths": call_paths,
    "differs": differs,
}
"""By the name that `anonvma.explore.explorer.Explorer.twin` takes."""
