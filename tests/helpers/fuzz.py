# SPDX-License-Identifier: GPL-2.0-only
"""Runs with something wrong in them, drawn at random, and every command over each.

``python tests/helpers/fuzz.py --rounds 1000`` prints what was no answer and no sentence. All run
in this process, one after the other: to start Python ten thousand times would take longer than all
that is asked of them.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from anonvma.base.text import printable
from anonvma.run import files as run_files

RECORDED = Path(__file__).resolve().parents[2] / "data" / "recorded"
# What is spoiled, and what it is compared with; together they have all that is recorded.
PAIRS = (
    ("specimens", "early-specimens-1"),
    ("early-small-allocs-mt-1", "delayed-small-allocs-mt-1"),
    ("scaling-early-t1-1", "scaling-early-t2-1"),
    ("other-pages-1", "other-plain-1"),
)
PATIENCE = 300  # seconds after which a command hangs

VALUES: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**30, 2**63 - 1, float("inf"), float("nan")),
    *("x", "", "\ud800", "\x1b[31m", "/home/u/x", "a" * 5000, "=?utf-8?q?a=0ABcc:_x?="),
    *("../../etc/passwd", "a\nb", "\0", "{0.__class__}", "%s%n", "'; drop table runs; --", "<b>"),
    *([], {}, ["x"], {"a": 1}, [[[[]]]], {"": None}, [None], "2026-13-45T00:00:00Z"),
]


class Spoiled(NamedTuple):
    """What was done to a run."""

    how: str
    file: str
    """Of the run, as in a sentence about it."""
    noticed: bool
    """Whether the manifest no longer agrees with a table, so that every reader has to say so."""


# ---- what can be wrong ----


def places_in(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a manifest, of long lists the beginning."""
    if above:
        yield above
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value[:3])
        for key, item in inner:
            yield from places_in(item, (*above, key))


def _field(run: Path, chance: random.Random) -> Spoiled:
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    *parents, last = chance.choice(list(places_in(manifest)))
    inner = manifest
    for key in parents:
        inner = inner[key]
    how = chance.choice(["change", "change", "change", "drop", "add"])
    value = chance.choice(VALUES)
    if how == "drop":
        del inner[last]
    elif how == "add" and isinstance(inner, dict):
        inner[chance.choice(["x", "", "\ud800", "__class__", "a\nb"])] = value
    else:
        inner[last] = value
    file.write_text(json.dumps(manifest))
    return Spoiled(f"{how} {[*parents, last]} {value!r:.60}", file.name, False)


def _text(run: Path, chance: random.Random) -> Spoiled:
    """A manifest that is no JSON, or is more of it than anyone wants."""
    file = run / "manifest.json"
    text = file.read_bytes()
    deep = b"[" * 200_000 + b"]" * 200_000
    inside = b'{"a":' * 900 + b"1" + b"}" * 900
    made = {
        "deep": deep,
        "deep inside": text.replace(b'"notes"', b'"x": ' + inside + b', "notes"', 1),
        "cut": text[: chance.randrange(len(text))],
        "empty": b"",
        "BOM": b"\xef\xbb\xbf" + text,
        "UTF-16": text.decode().encode("utf-16"),
        "twice": text + text,
        "NaN": re.sub(rb"\d+", b"NaN", text, count=1),
        "many keys": b"{" + b",".join(b'"k%d":0' % n for n in range(100_000)) + b"}",
        "a number of many digits": text.replace(b'"format": 1', b'"format": ' + b"1" * 9000),
        "not UTF-8": text.replace(b"a", b"\xff", 3),
    }
    how = chance.choice(list(made))
    file.write_bytes(made[how])
    return Spoiled(how, file.name, False)


def _table_of(run: Path, chance: random.Random) -> tuple[str, Path]:
    tables = json.loads((run / "manifest.json").read_text())["tables"]
    name = chance.choice(sorted(tables))
    return name, run / tables[name]["file"]


def renew(run: Path, name: str) -> None:
    """Let the manifest agree with a table that was changed, as far as it can be read."""
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    entry = manifest["tables"][name]
    entry["sha256"] = run_files.hash_of(run / entry["file"])
    with contextlib.suppress(pa.ArrowException, OSError):
        entry["rows"] = pq.ParquetFile(run / entry["file"]).metadata.num_rows
    file.write_text(json.dumps(manifest))


def _bytes(run: Path, chance: random.Random) -> Spoiled:
    name, file = _table_of(run, chance)
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 5, 50])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    file.write_bytes(data)
    agrees = chance.random() < 0.6
    if agrees:
        renew(run, name)
    return Spoiled(f"bytes of {name}{', agreed' if agrees else ''}", file.name, not agrees)


def _foreign(run: Path, chance: random.Random) -> Spoiled:
    """The table of another run, or another table of this one, in the place of one."""
    name, file = _table_of(run, chance)
    others = [path for path in run.parent.glob("*/*.parquet") if path.name != file.name]
    other = chance.choice(others)
    shutil.copyfile(other, file)
    return Spoiled(f"{other.parent.name}/{other.name} as {name}", file.name, True)


def _cells(run: Path, chance: random.Random) -> Spoiled:
    """A table of the right columns with wrong things in one."""
    name, file = _table_of(run, chance)
    table = pq.read_table(file, partitioning=None)
    at = chance.randrange(table.num_columns)
    column = table.schema.field(at)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    how = chance.choice(["null", "odd", "odd", "no rows", "one row", "twice"])
    if how == "null":
        values = pa.nulls(len(table), kind)
    elif how == "odd":
        odd = chance.choice(_odd(kind))
        old = table.column(at).cast(kind).to_pylist()
        few = chance.random() < 0.5
        values = pa.array([odd if not few or chance.random() < 0.2 else one for one in old], kind)
    if how in ("null", "odd"):
        table = table.set_column(at, column, values.cast(column.type))
    elif how == "twice":
        table = pa.concat_tables([table, table])
    else:
        table = table.slice(0, 1 if how == "one row" else 0)
    pq.write_table(table, file)
    renew(run, name)
    said = f" {odd!r:.40}" if how == "odd" else ""
    return Spoiled(f"{how}{said} in {name}.{column.name}", file.name, False)


def _odd(kind: pa.DataType) -> list[Any]:
    if pa.types.is_boolean(kind):
        return [True, False]
    if pa.types.is_integer(kind):
        bits = kind.bit_width
        low = 0 if pa.types.is_unsigned_integer(kind) else -(1 << (bits - 1))
        return [0, 1, low, (1 << (bits - (low < 0))) - 1]
    if pa.types.is_floating(kind):
        return [0.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e308, 5e-324]
    if pa.types.is_string(kind):
        return ["", "x", "\x1b[31m\n", "a" * 5000, "</script><b>", "$x_{", "bare", "=?utf-8?q?a?="]
    return [None]


def _columns(run: Path, chance: random.Random) -> Spoiled:
    """A table of other columns than its own."""
    name, file = _table_of(run, chance)
    table = pq.read_table(file, partitioning=None)
    at = chance.randrange(table.num_columns)
    column = table.column_names[at]
    is_text = table.schema.field(at).type == pa.string()
    how = chance.choice(["dropped", "renamed", "of text", "of lists", "twice there"])
    if how == "dropped":
        table = table.remove_column(at)
    elif how == "renamed":
        table = table.rename_columns(
            ["x" if other == column else other for other in table.column_names]
        )
    elif how == "of text":
        table = table.set_column(at, column, pa.array(["x"] * len(table)))
    elif how == "of lists":
        table = table.set_column(at, column, pa.array([[1]] * len(table)))
    else:
        table = table.append_column(column, table.column(at))
    pq.write_table(table, file)
    renew(run, name)
    same = how == "of text" and is_text  # of the right type, but the words in it
    return Spoiled(f"{name}.{column} {how}", file.name, not same)


def _kind(run: Path, chance: random.Random) -> Spoiled:
    """Something else in the place of a file."""
    file = chance.choice([run / "manifest.json", _table_of(run, chance)[1]])
    file.unlink()
    kinds: dict[str, Callable[[], Any]] = {
        "a FIFO": lambda: os.mkfifo(file),
        "a directory": file.mkdir,
        "a link to /dev/zero": lambda: file.symlink_to("/dev/zero"),
        "a link to itself": lambda: file.symlink_to(file.name),
        "nothing": lambda: None,
        "empty": file.touch,
        "a terabyte": lambda: (file.touch(), os.truncate(file, 1 << 40)),
        "a link to /proc/kmsg": lambda: file.symlink_to("/proc/kmsg"),
    }
    if os.geteuid() == 0:
        kinds["/dev/zero"] = lambda: os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    how = chance.choice(list(kinds))
    kinds[how]()
    none = how == "nothing" and file.name == "manifest.json"  # a directory, and no run
    return Spoiled(f"{how} for {file.name}", file.name, not none)


KINDS = (_field,) * 6 + (_text, _bytes, _bytes, _foreign, _cells, _cells, _cells, _columns, _kind)


# ---- every command ----


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None
    out: str
    err: str

    @property
    def wrong(self) -> str | None:
        """What was neither an answer nor a sentence."""
        if self.code is None:
            return "hangs"
        if "Traceback" in self.err or "Traceback" in self.out:
            return "a traceback"
        if re.search(r"^\S*Warning: |Warning: ", self.err):
            return "a warning of Python's"
        said = [line for line in self.err.splitlines() if line.startswith("anonvma: ")]
        if self.code and not said and not self.err.startswith("Usage: "):
            return f"{self.code} without a sentence"
        return None


class _Hangs(BaseException):
    """It took longer than anything takes."""


def _hangs(number: int, frame: object) -> NoReturn:
    raise _Hangs


def run(words: list[str], scratch: Path) -> Ended:
    """Carry out a command of ours, here."""
    files = [scratch / "out", scratch / "err"]
    saved, before = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    for number, file in enumerate(files, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w") for n in (1, 2))
    signal.alarm(PATIENCE)
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True, file=before[1])
    code: int | None = 0
    try:
        carry_out(words)
    except _Hangs:
        code = None
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # as Python itself does
        sys.excepthook(*sys.exc_info())
        code = 250
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        sys.stdout, sys.stderr = before
        for number, descriptor in enumerate(saved, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
    return Ended(code, *(file.read_text(errors="replace") for file in files))


LETTER, NOTEBOOK = "(a letter)", "(a notebook)"


def carry_out(words: list[str]) -> None:
    """A command; or what publishes a run, without the notebook of its page; or a notebook."""
    from anonvma.cli import main

    if words[0] not in (LETTER, NOTEBOOK):
        main(words)
        return
    from anonvma.base.errors import AnonvmaError
    from anonvma.report import (
        headers,
        layout,
        mail,
        mail_body,
        mail_lint,
        notebooks,
        redaction,
        subject,
    )
    from anonvma.run import runs

    try:
        if words[0] == NOTEBOOK:
            name = words[1]
            notebooks.execute(name, Path(words[2]).parent / f"{name}.ipynb", {"run": words[2]})
            return
        opened = runs.Run.open(words[1])
        wall = redaction.Wall.around([opened])
        about = subject.Subject({opened.id: [opened]}).shared(wall)
        sections = about.sections(analysed=True)
        title = wall.scrub(headers.one_line(printable(about.title)))
        text = wall.scrub(layout.text(sections, title))
        body = wall.scrub(mail_body.body(sections, wall.said(text), asked=True))
        message = mail.compose(body, subject=title, to=["a@example.org"], sender="b@example.org")
        errors = [
            each.sentence for each in mail_lint.check(message.as_bytes()) if each.level == "error"
        ]
        assert not errors, errors
        assert not wall.leaks(text)
    except AnonvmaError as error:
        sys.stderr.write(f"anonvma: {error}\n")
        sys.exit(1)


def commands(store: Path, table: str, published: Path | None) -> dict[str, list[str]]:
    """Every command that reads runs."""
    bad, good, both = str(store / "bad-1"), str(store / "good-1"), ["--in", str(store)]
    found = {
        "runs": ["runs", *both],
        "runs, checked": ["runs", "--check", "--json", *both],
        "query": ["query", "--csv", *both, f"select count(*) from {table} where run = 'bad-1'"],
        "headlines": ["query", *both, "select * from headlines join runs using (run)"],
        "trend": ["trend", "--json", *both],
        "compare": ["compare", f"base={bad}", f"head={good}", "--condition", "workload",
                    "--condition", "parameters", "--condition", "machine"],
        "compare, all": ["compare", "--json", "--all", str(store / "good-*"), str(store / "bad-*"),
                         "--condition", "workload", "--condition", "parameters",
                         "--condition", "machine"],
        "lkp": ["compare", "--lkp", f"base={good}", f"head={bad}", "--condition", "workload",
                "--condition", "parameters", "--condition", "machine"],
        "profile": ["profile", bad],
        "profile, drawn": ["profile", bad, "--base", good, "-o", str(store.parent / "flame.svg")],
        "scaling": ["scaling", "--json", str(store / "*-1")],
        "letter": [LETTER, bad],
    }  # fmt: skip
    if published is not None:
        found["publish"] = ["publish", bad, "--output", str(published)]
        for notebook in ("02-census", "03-faults", "04-profile"):
            found[notebook] = [NOTEBOOK, notebook, bad]
    return found


READS_ALL = ("runs, checked", "compare", "lkp", "profile", "letter", "publish", "02-census")


def attack(seed: int, place: Path, *, publishing: bool) -> list[str]:
    """Spoil a run and try everything on it: what went wrong, in words."""
    chance = random.Random(seed)
    store = place / "store"
    shutil.rmtree(place, ignore_errors=True)
    pair = chance.choice(PAIRS)
    for name, recorded in zip(("bad-1", "good-1"), pair, strict=True):
        shutil.copytree(RECORDED / recorded, store / name)
    shutil.copytree(RECORDED / pair[0], store / "bad-2")
    spoiled = chance.choice(KINDS)(store / "bad-1", chance)
    table = spoiled.file.removesuffix(".parquet") if "." in spoiled.file else "census"
    table = "census" if table == "manifest.json" else table
    found = []
    given = commands(store, table, place / "published" if publishing else None)
    for name, words in given.items():
        ended = run(words, place)
        wrong = ended.wrong
        if not wrong and spoiled.noticed and name in READS_ALL and ended.code == 0:
            wrong = "silent"
        if not wrong and spoiled.noticed and name == "query" and "bad-1" not in ended.err:
            wrong = "silent"
        if not wrong and name in ("runs", "query", "headlines", "trend") and ended.code == 0:
            wrong = None if name != "runs" or "good-1" in ended.out else "hides the good"
        if wrong:
            tail = " | ".join(ended.err.strip().splitlines()[-2:])
            found.append(f"{seed} {pair[0]} {spoiled.how}: {name}: {wrong}: {tail:.300}")
    left = [path for path in store.parent.glob("published*.partial")]
    return found + [f"{seed}: {path} is left" for path in left]


def main() -> int:
    """Attack so many times; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="fuzz.py", description=(__doc__ or "")[:80])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--publish-every", type=int, default=25, help="rounds that execute notebooks, too; 0: none"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGALRM, _hangs)
    begin, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="anonvma-fuzz-") as name:
        for seed in range(given.first, given.first + given.rounds):
            publishing = given.publish_every > 0 and seed % given.publish_every == 0
            for line in attack(seed, Path(name) / "it", publishing=publishing):
                wrong += 1
                print(line, flush=True)
    spent = time.monotonic() - begin
    print(f"{given.rounds} from {given.first}: {wrong} wrong, {spent:.0f} s", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
