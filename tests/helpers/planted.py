# SPDX-License-Identifier: GPL-2.0-only
"""A run with secrets in it, and a notebook: everywhere that a machine can write its own words."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pyarrow as pa

from anonvma.run import runs
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import RunWriter, to_table

ROOT = Path(__file__).resolve().parents[2]


def secrets(kind: str, count: int, shape: str) -> list[str]:
    """So many values of a shape, each unlike any other and unlike any word of ours."""
    return [shape.format(f"{kind}{number:02d}qz") for number in range(count)]


COMM = secrets("proc", 25, "zeta-{}")
PATHS = secrets("dir", 25, "/srv/acme/{}/ledger.db")
HOMES = secrets("user", 10, "/home/{}/thesis")
NAMES = secrets("arena", 5, "[anon:{}]")
ARGUMENTS = secrets("arg", 25, "--pin={}")
ENVIRONMENT = secrets("env", 25, "value-{}-of-a-variable")
KERNEL_LOG = secrets("klog", 20, "[  12.345678] acme: {} failed")
SYMBOLS = secrets("sym", 25, "acme_{}_fault")
METADATA = secrets("meta", 15, "nb-{}")
IN_IMAGES = secrets("png", 15, "drawn by {}")
COMMENTS = secrets("html", 10, "seen by {}")
# What tells a secret from everything else, however it is spelt.
CORES = [
    word
    for kind, count in (
        ("proc", 25),
        ("dir", 25),
        ("user", 10),
        ("arena", 5),
        ("arg", 25),
        ("env", 25),
        ("klog", 20),
        ("sym", 25),
        ("meta", 15),
        ("png", 15),
        ("html", 10),
    )
    for word in secrets(kind, count, "{}")
]
assert len(set(CORES)) == 200


def planted_run(directory: Path, base: str = "small-allocs-mt") -> Run:
    """A recorded run in which processes, files, symbols and the kernel have said the secrets."""
    recorded = runs.find(base)
    tables = {name: recorded.table(name) for name in recorded.manifest.tables}
    census = tables["census"]
    tables["census"] = _with(
        census, {"comm": COMM, "path": PATHS + HOMES, "name": NAMES, "vm_ops": SYMBOLS}
    )
    tables["faults"] = _with(tables["faults"], {"comm": COMM, "file": PATHS, "vm_ops": SYMBOLS})
    tables["locks"] = _with(tables["locks"], {"comm": COMM, "asked_by": SYMBOLS})
    tables["frames"] = _with(tables["frames"], {"symbol": SYMBOLS})  # of any program, vmload's too
    probes = [f"probe_{name.split('_')[1]}:{name}" for name in SYMBOLS]
    for name in ("samples", "perf_stat"):
        tables[name] = _with(tables[name], {"event": probes})
    told: dict[str, Any] = json.loads(recorded.manifest.model_dump_json())
    for name in ("format", "anonvma", "created", "finished", "tables", "raw"):
        told.pop(name)
    told["workload"] = {"name": "zeta-proc00qz", "argv": ["/srv/acme/dir00qz/run", *ARGUMENTS]}
    told["parameters"] = {"workload": " ".join(["/srv/acme/dir00qz/run", *ARGUMENTS])}
    told["notes"] += [f"The log said {line}" for line in KERNEL_LOG]
    told["notes"] += [f"It ran with WORK={value} set." for value in ENVIRONMENT]
    told["unobserved"] += [
        {"what": "a file", "reason": f"{path} is missing", "remedy": f"make {path}"}
        for path in HOMES
    ]
    with RunWriter(directory, "planted") as writer:
        (writer.path / "raw" / "dmesg").write_text("\n".join(KERNEL_LOG))
        written: dict[str, pa.Table] = {
            name: to_table(frame, SCHEMAS[name]) for name, frame in tables.items()
        }
        return writer.finish(written, told)


def _with(frame: pd.DataFrame, planted: dict[str, list[str]]) -> pd.DataFrame:
    """The first rows of a frame, saying these things; enough of them for each."""
    frame = frame.copy()
    for column, values in planted.items():
        said = frame[column].astype(object)
        for number, value in enumerate(values):
            said.iloc[(number * 7) % len(frame) if len(frame) > 200 else number % len(frame)] = (
                value
            )
        # More secrets than rows: the rest is there as categories, as pandas keeps them.
        frame[column] = pd.Categorical(said, categories=[*dict.fromkeys([*said.dropna(), *values])])
    return frame


def png_with(words: list[str]) -> bytes:
    """A PNG of one pixel, with words in every kind of chunk that holds them, and behind its end."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    first, *others = words
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))]
    parts.append(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(first.encode())))
    for number, word in enumerate(others):
        kind = (b"tEXt", b"iTXt", b"eXIf", b"prVt")[number % 4]
        parts.append(chunk(kind, b"Author\0" + word.encode()))
    parts.append(chunk(b"IDAT", zlib.compress(b"\0\x80")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"") + first.encode()


SVG = """<?xml version="1.0"?><!-- {comment} -->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="alert('{comment}')">
<metadata>{comment}</metadata><script>alert("{comment}")</script>
<title>a square</title><rect width="9" height="9"/></svg>"""


def planted_checkout(directory: Path) -> Path:
    """A place with notebooks, of which 06-report says the secrets where nobody looks."""
    (directory / "notebooks").mkdir(parents=True)
    (directory / "data").symlink_to(ROOT / "data")
    shutil.copytree(ROOT / "analysis", directory / "analysis", symlinks=True)
    notebook: Any = nbformat.read(ROOT / "notebooks" / "06-report.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    notebook.metadata["authors"] = [{"name": METADATA[0]}]
    notebook.metadata["widgets"] = {"state": METADATA[1]}
    for number, word in enumerate(METADATA[2:]):
        cell = notebook.cells[number % len(notebook.cells)]
        cell.metadata[f"note{number}"] = word
        cell.metadata.setdefault("tags", []).append(f"by-{word}")
    picture = base64.b64encode(png_with(IN_IMAGES)).decode()
    drawing = base64.b64encode(SVG.format(comment=COMMENTS[0]).encode()).decode()
    shown = (
        f'<!-- {COMMENTS[1]} --><p data-by="{COMMENTS[2]}" onclick="{COMMENTS[3]}">kept words</p>'
        f"<script>/* {COMMENTS[4]} */</script><style>p {{ /* {COMMENTS[5]} */ }}</style>"
        f'<template>{COMMENTS[6]}</template><img alt="a pixel" src="data:image/png;base64,'
        f'{picture}"><img alt="a square" src="data:image/svg+xml;base64,{drawing}">'
        f'<meta name="author" content="{COMMENTS[7]}"><iframe srcdoc="{COMMENTS[8]}"></iframe>'
    )
    code = f"from IPython.display import HTML, Image\nHTML({shown!r})"
    words = f"Markdown, too. <!-- {COMMENTS[9]} -->"
    pixel = f"import base64\nImage(base64.b64decode({picture!r}), alt='a pixel of its own')"
    notebook.cells += [
        nbformat.v4.new_code_cell(code),  # type: ignore[no-untyped-call]
        nbformat.v4.new_code_cell(pixel),  # type: ignore[no-untyped-call]
        nbformat.v4.new_markdown_cell(words),  # type: ignore[no-untyped-call]
    ]
    nbformat.write(notebook, directory / "notebooks" / "06-report.ipynb")  # type: ignore[no-untyped-call]
    return directory
