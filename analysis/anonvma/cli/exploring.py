# SPDX-License-Identifier: GPL-2.0-only
"""The explorer, in JupyterLab."""

from __future__ import annotations

from pathlib import Path

import click

from anonvma.cli.group import main

# ---- exploring ----


@main.command()
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--port", default=8888, show_default=True, help="Or the next one that is free.")
@click.option(
    "--notebook",
    default="notebooks/explore.ipynb",
    show_default=True,
    type=click.Path(path_type=Path),
    help="What it opens, in the checkout.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS...]")
def lab(no_browser: bool, port: int, notebook: Path, options: tuple[str, ...]) -> None:
    """Open JupyterLab on the explorer; OPTIONS are JupyterLab's own, after "--".

    It listens on the loopback address only, and is not started as root: only the probe needs
    privilege, for the live view, by sudo without a password or by capabilities of its file.

    \b
    Examples:
      anonvma lab
      ssh -L 8888:127.0.0.1:8888 MACHINE    # its JupyterLab, in the browser here
    """  # noqa: D301  # click wants the character
    if options and not options[0].startswith("-"):
        raise click.UsageError(
            f"{options[0]!r} is no option of JupyterLab; what is explored is chosen on the page."
        )
    from anonvma.explore import lab as jupyter

    status = jupyter.run(notebook, browser=not no_browser, port=port, words=list(options))
    if status:
        raise click.exceptions.Exit(status)
