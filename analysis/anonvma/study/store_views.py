# SPDX-License-Identifier: GPL-2.0-only
"""The views of all runs: their columns, and the query behind the headlines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from anonvma.base import bounded
from anonvma.run.fields import field
from anonvma.run.manifest import Manifest
from anonvma.run.schema import SCHEMAS
from anonvma.study.job import CELL

RUNS = pa.schema(
    [
        field("run", pa.string(), "", "its directory below that of all runs; joins the tables"),
        field("study", pa.string(), "", "that it is a cell of, else null"),
        field("cell", pa.string(), "", "which one"),
        field("target", pa.string(), "", "as the study calls it"),
        field("kernel", pa.string(), "", "as the study calls it"),
        field("workload", pa.string(), "", "as it was named"),
        field("parameters", pa.string(), "JSON", "of the workload"),
        field("threads", pa.int64(), "", "null where the workload is not a case"),
        field("bytes", pa.int64(), "bytes", "null likewise"),
        field("repeats", pa.int32(), "", "how often it was observed"),
        field("created", pa.timestamp("us", tz="UTC"), "", "when it was begun"),
        field("finished", pa.timestamp("us", tz="UTC"), "", "when it was whole"),
        field("kind", pa.string(), "", "of target: local, guest, ..."),
        field("kernel_release", pa.string(), "", "uname -r"),
        field("regime", pa.string(), "", "none, early or delayed; null if not observed"),
        field("image_sha256", pa.string(), "", "of a guest's kernel, else null"),
        field("architecture", pa.string(), "", ""),
        field("cpu_model", pa.string(), "", ""),
        field("cpus", pa.int32(), "", "online"),
        field("memory_bytes", pa.int64(), "bytes", ""),
        field("accel", pa.string(), "", "of a guest: kvm or tcg"),
        field("anonvma", pa.string(), "", "version that made it"),
        field("unobserved", pa.int32(), "", "how many things could not be observed"),
        field("lost", pa.int64(), "", "what the censuses lost, summed"),
    ]
)

_RUN = RUNS.field("run")
HEADLINES_SCHEMA = pa.schema(
    [
        _RUN,
        field("metric", pa.string(), "", "such as vm-scalability.throughput, in KiB/s"),
        field("value", pa.float64(), "", "mean over the repeats of the run"),
    ]
)

HEADLINES = """
select run, 'vm-scalability.throughput' as metric, avg(kb_per_s)::double as value
from (select run, repeat, sum(kb_per_s) as kb_per_s from throughput group by run, repeat)
group by run
union all by name
unpivot (
    select run,
        avg(seconds) as "vm-scalability.time.elapsed_time",
        avg(minor_faults)::double as "vm-scalability.time.minor_page_faults",
        avg(voluntary_ctxt)::double as "vm-scalability.time.voluntary_context_switches"
    from repeats group by run
) on columns(* exclude run) into name metric value value
union all by name
select run, 'proc-vmstat.' || counter as metric, avg(difference)::double as value
from vmstat where counter like 'vma\\_lock\\_%' escape '\\' group by run, counter
union all by name
select run, 'anonvma.bare.' || class as metric, (count(*) / count(distinct repeat))::double as value
from census where bare group by run, class
"""
"""Means over the repeats of a run. Throughput is in KiB/s over all tasks, elapsed_time in s;
``anonvma.bare.CLASS`` is the number of bare VMAs of that class."""

OF_HEADLINES = ("throughput", "repeats", "vmstat", "census")

_VIEWS = {
    "runs": "One row per run, from its manifest.",
    "headlines": "A few numbers of each run by the names kernel people read, means over repeats.",
}


def row_of(directory: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the row that a run is in the view ``runs``."""
    target, parameters = manifest.target, manifest.parameters
    told = _of_study(directory)
    whole = {n: v for n in ("threads", "bytes") if type(v := parameters.get(n)) is int}
    regime = manifest.features.get("regime")
    return {
        **told,
        "workload": manifest.workload.name,
        "parameters": json.dumps(parameters, sort_keys=True),
        **whole,
        "repeats": manifest.repeats,
        "created": manifest.created,
        "finished": manifest.finished,
        "regime": regime.get("name") if isinstance(regime, dict) else None,
        **{name: target.get(name) for name in RUNS.names if name in target},
        "anonvma": manifest.anonvma,
        "unobserved": len(manifest.unobserved),
        "lost": sum(manifest.losses.values()),
    }


def _of_study(directory: Path) -> dict[str, str | None]:
    """Return which cell of which study a run is, if it is one."""
    try:
        told = json.loads(bounded.regular(directory / CELL, 1 << 20))
        axes = told["axes"]
        words = {"study": told["study"], "cell": told["name"]}
        words |= {"target": axes.get("target"), "kernel": axes.get("kernel")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: value for name, value in words.items() if isinstance(value, str)}


def views() -> pd.DataFrame:
    """Return what can be queried: view, column, type, unit, what it is."""
    declared = {"runs": RUNS, "headlines": HEADLINES_SCHEMA, **SCHEMAS}
    rows = []
    for name, schema in declared.items():
        for column in schema if name in _VIEWS else [_RUN, *schema]:
            about = {k.decode(): v.decode() for k, v in (column.metadata or {}).items()}
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            told = {"view": name, "column": column.name, "type": str(kind)}
            rows.append({**told, "unit": about["unit"], "what it is": about["description"]})
    return pd.DataFrame(rows)
