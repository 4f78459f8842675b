# SPDX-License-Identifier: GPL-2.0-only
"""Many runs: a matrix of them, in turns or in batches, and the store they end up in."""
