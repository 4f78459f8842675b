# SPDX-License-Identifier: GPL-2.0-only
"""A run from somebody else: what names their machine and program goes out under no spelling."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonvma.report import headers, identities, layout, redaction, reproduction, subject
from anonvma.run.runs import Run

RECORDED = Path(__file__).resolve().parents[2] / "data" / "recorded"
EACH = 15
# A kind of secret, and one of that kind with a number in it, which is what is looked for.
KINDS: dict[str, str] = {
    "cloud key": "AKIAQZ{0}ABCDEFGHIJKL",
    "forge token": "ghp_{0}abcdefghijklmnopqrstuvwxyz0123",
    "chat token": "xoxb-{0}-abcdefgh",
    "signed token": "eyJhbGciOi{0}.eyJzdWIi{0}.c2lnbmF0dXJl",
    "bearer": "Authorization: Bearer {0}abcdefghijk",
    "host": "{0}.prod.acme-widgets.com",
    "hardware address": "52:54:00:{1}:{1}:{1}",
    "address": "10.23.{2}.7",
    "address of six": "2001:db8:{1}::{1}:1",
    "place": "/usr/local/{0}/bin/tool",
    "configuration": "/etc/{0}/ledger.conf",
    "home": "/home/{0}/thesis",
    "mail": "{0}@acme.example.org",
    "password": "db_password={0}",
}


def planted() -> dict[str, str]:
    """Every secret, and the part of it that nothing else has."""
    found = {}
    for row, (kind, shape) in enumerate(KINDS.items()):
        for number in range(EACH):
            core, pair, byte = f"Zq{row:02d}{number:02d}Qz", f"{0xA0 + number:x}", 100 + number
            value = shape.format(core, pair, byte)
            kept = core if "{0}" in shape else shape.format("", pair, byte)
            found[value.replace(core, core.upper()) if kind == "cloud key" else value] = kept
    return found


SECRETS = planted()
assert len(SECRETS) >= 200


def foreign_run(place: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Run:
    shutil.copytree(RECORDED / "small-allocs-mt", place / name)
    file = place / name / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    return Run.open(place / name)


def published(run: Run) -> tuple[str, redaction.Wall]:
    """All that is said of a run behind the wall, its title and its commands among it."""
    about = subject.Subject({run.id: [run]})
    wall = redaction.Wall.around([run])
    shared = about.shared(wall)
    said = layout.text(shared.sections(analysed=True), shared.title)
    told = shared.runs[0].manifest.model_dump_json(exclude={"tables", "raw"})
    words = reproduction.words(shared.runs, analysed=True)
    text = wall.scrub("\n".join([said, headers.one_line(shared.title), told, *words]))
    assert wall.leaks(text) == []
    return text, wall


def squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def test_two_hundred_secrets_of_fourteen_kinds(tmp_path: Path) -> None:
    values = list(SECRETS)

    def plant(manifest: dict[str, Any]) -> None:
        manifest["notes"] += [f"It said {value} then." for value in values[::3]]
        manifest["unobserved"] += [
            {"what": f"a {value}", "reason": f"{value} is missing", "remedy": f"make {value}"}
            for value in values[1::3]
        ]
        manifest["target"]["accel_reason"] = " and ".join(values[2::3])
        manifest["target"]["append"] = " ".join(f"x={value}" for value in values[::5])

    text, _ = published(foreign_run(tmp_path, "small-allocs-mt", plant))
    flat = squeezed(text)
    assert [value for value, core in SECRETS.items() if squeezed(core) in flat] == []


def test_every_word_of_a_foreign_run_is_looked_at(tmp_path: Path) -> None:
    """In whatever column, key or value of it: what was not written by anonvma is withheld."""
    cores = (f"Wq{number:03d}Vz" for number in itertools.count())
    planted: dict[str, str] = {}

    def secret(place: str) -> str:
        core = next(cores)
        planted[core] = place
        return core

    def plant(manifest: dict[str, Any]) -> None:
        for name in ("losses", "features", "parameters", "target"):
            value = 5 if name == "losses" else f"a {secret(f'value of {name}')}"
            manifest[name][secret(f"key of {name}")] = value
        manifest["features"].setdefault("regime", {})["evidence"] = f"vma {secret('evidence')}"
        manifest["workload"]["maps"] = secret("maps")
        manifest["anonvma"] += f"+{secret('version')}"
        one = {"what": "x", "reason": "y", "remedy": "z", "tables": [secret("tables")]}
        manifest["unobserved"].append(one)

    run = foreign_run(tmp_path, "small-allocs-mt", plant)
    for name in run.manifest.tables:
        file = run.path / run.manifest.tables[name].file
        table = pq.read_table(file, partitioning=None)
        for at, column in enumerate(table.schema):
            kind = column.type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if pa.types.is_string(kind) and column.name not in identities.FOREIGN:
                core, values = secret(f"{name}.{column.name}"), table.column(at).cast(kind)
                words = [
                    f"{word} {core}" if word and number % 2 else word
                    for number, word in enumerate(values.to_pylist())
                ]
                table = table.set_column(at, column, pa.array(words, kind).cast(column.type))
        pq.write_table(table, file)
        fuzz.renew(run.path, name)
    flat = squeezed(published(Run.open(run.path))[0])
    assert [place for core, place in planted.items() if squeezed(core) in flat] == []


@pytest.mark.parametrize("value", [next(v for v in SECRETS if k in v) for k in ("AKIA", "xoxb")])
def test_the_shape_alone_is_enough(value: str) -> None:
    assert redaction.Wall([]).scrub(f"it was {value}, then") == "it was [secret 1], then"


@pytest.mark.parametrize(
    "name",
    [
        "20260101T000000Z-blue-whale-x9",
        "20260101T000000Z-blue-whale-x9-2",
        "mkrzyz-bluewhale-zorgblat7",
        "Blue_Whale.X9",
        "blue whale x9",
    ],
)
def test_the_name_of_a_run_says_nothing_of_its_program(tmp_path: Path, name: str) -> None:
    def plant(manifest: dict[str, Any]) -> None:
        manifest["workload"] = {"name": "Blue_Whale.X9", "argv": ["/opt/acme/Blue_Whale.X9"]}
        manifest["parameters"] = {"workload": "/opt/acme/Blue_Whale.X9"}

    text, wall = published(foreign_run(tmp_path, name, plant))
    for word in ("bluewhale", "zorgblat", "mkrzyz"):
        assert word not in squeezed(text)
    assert re.search(r"from \S*\[(?:run|argument) 1\]", text)
    for spelt in ("blue-whale-x9", "BLUE WHALE X9", "Blue.Whale_X9", "blue/whale/x9.parquet"):
        assert "hale" not in wall.scrub(f"see {spelt} there").casefold()


def test_a_long_program_is_found_in_an_id_that_was_cut(tmp_path: Path) -> None:
    long = "An_Extremely.Long-Name_of+a.Programme_that_Nobody_Knows"
    wall = redaction.Wall([("process", long)])
    slug = re.sub(r"[^a-z0-9]+", "-", long.lower())[:40].rstrip("-")
    assert wall.scrub(f"20260101T000000Z-{slug}") == "20260101T000000Z-[process 1]"


def test_files_of_a_run_are_named_by_nobody(tmp_path: Path) -> None:
    def plant(manifest: dict[str, Any]) -> None:
        table = manifest["tables"]["throughput"]
        run = tmp_path / "small-allocs-mt"
        (run / table["file"]).rename(run / "bluewhale-zorgblat7.parquet")
        table["file"] = "bluewhale-zorgblat7.parquet"

    text, wall = published(foreign_run(tmp_path, "small-allocs-mt", plant))
    assert "zorgblat7" not in text
    assert wall.scrub("from bluewhale-zorgblat7.parquet") == "from [file 1]"


def test_names_of_another_machine(tmp_path: Path) -> None:
    def plant(manifest: dict[str, Any]) -> None:
        manifest["target"] |= {
            "kind": "ssh",
            "kernel_release": "6.12.0-bluewhale-x9-mkrzyz-zorgblat7-dirty",
            "append": "console=ttyS0 quiet nfsroot=nas77:/srv/zorg myhost=zorgblat7",
            "cpu_model": "Intel(R) Xeon(R) Platinum 8488C of zorgblat7",
        }
        manifest["notes"] += ["It was measured on Zorgblat7, which mkrzyz calls blue-whale."]

    text, wall = published(foreign_run(tmp_path, "small-allocs-mt", plant))
    flat = squeezed(text)
    for word in ("zorgblat7", "mkrzyz", "bluewhale", "nas77"):
        assert word not in flat, word
    assert "6.12.0-" in text and "-dirty" in text
    assert "Intel(R) Xeon(R) Platinum 8488C" in wall.scrub("Intel(R) Xeon(R) Platinum 8488C")


@pytest.mark.parametrize(
    "release",
    [
        "6.1.0-27-amd64",
        "6.12.117+deb13-cloud-amd64",
        "5.15.0-1071-aws",
        "6.11.4-301.fc41.x86_64",
        "4.18.0-553.el8_10.x86_64",
        "6.18.0-rc3-next-20261104",
        "6.12.0-rc5-00123-g0123456789ab-dirty",
        "6.6.51+rpt-rpi-v8",
        "7.3.4",
    ],
)
def test_releases_that_many_machines_have(tmp_path: Path, release: str) -> None:
    def plant(manifest: dict[str, Any]) -> None:
        manifest["target"]["kernel_release"] = release

    run = foreign_run(tmp_path, "small-allocs-mt", plant)
    named = {word for kind, word in identities.facts_of_run(run) if kind == "kernel name"}
    assert named <= {"rpt"}


def test_names_that_cannot_be_withheld_are_told() -> None:
    told = identities.common_names({"USER": "mark", "HOSTNAME": "db", "LOGNAME": "zorgblat7"})
    assert ("user", "mark") in told and ("host", "db") in told
    assert not any(name == "zorgblat7" for _, name in told)
