# SPDX-License-Identifier: GPL-2.0-only
"""A pool of forked workers that look at an array their parent has made: pages shared by fork."""

from __future__ import annotations

import multiprocessing

import numpy as np

DATA = np.random.default_rng(1).random((8, 500_000))
BLANK = np.zeros((8, 500_000))


def work(row: int) -> float:
    """Read a row, read one that nobody has written, and sort a copy."""
    return float(DATA[row].sum() + BLANK[row].sum() + np.sort(DATA[row])[0])


if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(4) as pool:
        print(sum(pool.map(work, range(len(DATA)))))
