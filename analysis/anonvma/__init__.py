# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs have a NULL vm_ops and no anon_vma, and what that costs."""
