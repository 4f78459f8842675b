# SPDX-License-Identifier: GPL-2.0-only
# The workflow of every study; `anonvma batch` runs it, in the study's directory, on the plan there.
#
# One rule a cell, since the priority, which keeps the order, is the rule's. What a job does is
# decided by anonvma.study.job alone: the marker that it makes may be lost or stale and nothing follows
# from it, for the next `anonvma batch` sets the markers anew from what is really there.
import json
import shlex

with open("cells.json", encoding="utf-8") as file:
    PLAN = json.load(file)


rule all:
    input:
        [f"work/{cell['name']}.done" for cell in PLAN["cells"]],


localrules:
    all,


for number, cell in enumerate(PLAN["cells"]):

    rule:
        name:
            f"cell_{number}"
        output:
            f"work/{cell['name']}.done",
        priority: len(PLAN["cells"]) - number
        retries: PLAN["retries"]
        resources:
            attempt=lambda wildcards, attempt: attempt,
            **{cell["token"]: 1},
        params:  # functions, since in a string braces are wildcards
            python=lambda wildcards: shlex.quote(PLAN["python"]),
            tmpdir=lambda wildcards: shlex.quote(f"TMPDIR={PLAN['tmpdir']}") if PLAN["tmpdir"] else "-u TMPDIR -u TEMP -u TMP",
            cell=cell["name"],
        shell:
            "exec env {params.tmpdir} {params.python} -P -m anonvma.study.job {params.cell} {resources.attempt}"
