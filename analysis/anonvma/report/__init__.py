# SPDX-License-Identifier: GPL-2.0-only
"""What is shown and published: sections, figures, text, HTML and mail."""
