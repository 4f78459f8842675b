# SPDX-License-Identifier: GPL-2.0-only
"""The run directory: the schema of every table, the manifest, the reader and the writer."""
