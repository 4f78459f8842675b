# SPDX-License-Identifier: GPL-2.0-only
"""Study files: what they multiply to, in which order, and where what is wrong with them is."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
import studies
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from anonvma.base import paths
from anonvma.base.errors import StudyError
from anonvma.study import fingerprint, matrix, study_file

pytestmark = pytest.mark.usefixtures("build")


def read(directory: Path, text: str) -> matrix.Study:
    file = directory / "study.yaml"
    file.write_text(text)
    return matrix.read(file)


@pytest.fixture
def images(tmp_path: Path) -> None:
    """Two files in place of kernels: nothing of them is looked at but the hash."""
    (tmp_path / "early").write_bytes(b"one")
    (tmp_path / "delayed").write_bytes(b"other")


MATRIX = """\
targets: ["guest:{kernel},cpus=4", local]
kernels: {early: early, delayed: delayed}
workloads:
  - small-allocs-mt
  - {workload: anon-w-seq-mt, unit: 40k, name: writes}
parameters: {threads: [1, 2, 4]}
defaults: {bytes: 8m}
repeats: 2
exclude:
  - {workload: writes, threads: 4}
  - {target: local, threads: 1}
include:
  - {target: local, workload: writes, threads: 8, bytes: 16m}
"""


@pytest.mark.usefixtures("images")
def test_what_is_multiplied_left_out_and_added(tmp_path: Path) -> None:
    found = read(tmp_path, MATRIX)
    # (2 kernels + local) x 2 x 3, less 3 with writes and 4 threads, less 2 on local with 1; and 1.
    assert len(found.cells) == 2 * (18 - 3 - 2 + 1)
    assert len({cell.id for cell in found.cells}) == len({cell.name for cell in found.cells}) == 28
    one = next(c for c in found.cells if c.name == "guest-early-writes-threads-2-1")
    assert one.target == f"guest:{tmp_path}/early,cpus=4"
    assert one.parameters == {
        "target": one.target, "workload": "anon-w-seq-mt", "unit": "40k", "threads": 2,
        "bytes": "8m",
    }  # fmt: skip
    more = [c for c in found.cells if c.parameters["threads"] == 8]
    assert [c.parameters["bytes"] for c in more] == ["16m", "16m"]
    assert {cell.host for cell in found.cells} == {fingerprint.THIS_MACHINE}
    assert found.compare == "kernel"


@pytest.mark.usefixtures("images")
def test_conditions_take_turns(tmp_path: Path) -> None:
    text = """\
targets: ["guest:{kernel}"]
kernels: {early: early, delayed: delayed}
workloads: [a, b, c, d]
repeats: 4
"""
    cells = read(tmp_path, text).cells
    for pair, first in zip(cells[::2], cells[1::2], strict=True):
        assert pair.axes["workload"] == first.axes["workload"] and pair.repeat == first.repeat
        order = [pair.axes["kernel"], first.axes["kernel"]]
        assert order == (["early", "delayed"] if pair.repeat % 2 else ["delayed", "early"])
    orders = {tuple(c.axes["workload"] for c in cells[n : n + 8 : 2]) for n in range(0, 32, 8)}
    assert len(orders) > 1, "every repeat in the same order"
    assert [c.name for c in read(tmp_path, text).cells] == [c.name for c in cells]
    other = read(tmp_path, text + "seed: 1\n").cells
    assert {c.id for c in other} == {c.id for c in cells}
    assert [c.name for c in other] != [c.name for c in cells]


@pytest.mark.usefixtures("images")
def test_key_is_of_what_it_is_done_with_and_id_of_what_it_is(tmp_path: Path) -> None:
    text = 'targets: ["guest:{kernel}"]\nkernels: {early: early}\nworkloads: [a]\n'
    (before,) = read(tmp_path, text).cells
    (tmp_path / "early").write_bytes(b"rebuilt")
    (after,) = read(tmp_path, text).cells
    assert before.id == after.id and before.key != after.key
    (other,) = read(tmp_path, text.replace("[a]", "[b]")).cells
    assert other.id != after.id
    (moved,) = read(tmp_path, text.replace("early: early", "early: ./early")).cells
    assert (moved.id, moved.key) == (after.id, after.key)


def test_a_host_names_no_cell(tmp_path: Path) -> None:
    text = "targets: ['ssh:root@secret.example,port=22', 'ssh:other.example']\nworkloads: [a]\n"
    cells = read(tmp_path, text).cells
    assert sorted(cell.name for cell in cells) == ["ssh1-a-1", "ssh2-a-1"]
    assert {cell.host for cell in cells} == {"ssh:root@secret.example", "ssh:other.example"}


WRONG = [
    ("", "study.yaml is empty"),
    ("[]", ":1:1: a study is a mapping"),
    ("workloads: [a]\nworkload: [b]\n", ":2:1: a study has no 'workload': did you mean 'work"),
    ("workloads: [a]\nworkloads: [b]\n", ":2:1: 'workloads' is given twice"),
    ("workloads: [a\n", "study.yaml:2:1: "),
    ("workloads: [\ta]\nx: \x01", "study.yaml"),
    ("workloads: &x [a]\nparameters: {threads: *x}\n", ":2:23: aliases are not taken"),
    ("workloads: [!!python/object/apply:os.system [touch x]]", ":1:13: tag:yaml.org,2002:python/"),
    ("workloads: [!x a]", ":1:13: "),
    ("targets: [local]\n", "'workloads' is missing"),
    ("workloads: []\n", ":1:1: workloads: "),
    ("workloads: [a]\nrepeats: 0\n", ":2:1: repeats: "),
    ("workloads: [a]\nrepeats: yes\n", ":2:1: repeats: "),
    ("workloads: [a]\ntimeout: soon\n", ":2:1: timeout: 'soon' is no time"),
    ("workloads: [a]\nname: ../x\n", ":2:1: name: '../x' is no name"),
    ("workloads: [a]\nnotebook: 99-none\n", ":2:1: there is no notebook '99-none'"),
    ("workloads: [a]\nnotebook: 06-report\n", ":2:1: 06-report.ipynb has no parameter 'target'"),
    ("workloads: [small-alocs-mt]\n", ":1:13: there is no workload 'small-alocs-mt'"),
    ("workloads:\n  - a\n  - a\n", ":3:5: there is a workload 'a' already"),
    ("workloads:\n  - {unit: 4k}\n", ":2:5: a workload is a text"),
    ("workloads: [a]\nparameters:\n  treads: [1]\n", ":3:3: 01-collect has no parameter 'treads'"),
    ("workloads: [a]\nparameters:\n  threads: []\n", ":3:3: threads has no values"),
    ("workloads: [a]\nparameters:\n  threads: [1, 2, 1]\n", ":3:19: 1 is given twice"),
    ("workloads: [a]\nparameters:\n  threads: [[1]]\n", ":3:13: one value is wanted"),
    ("workloads: [a]\nparameters: {out: [x]}\n", ":2:14: out is not given here"),
    ("workloads: [a]\ndefaults: {threads: .inf}\n", ":2:12: inf is no number"),
    ("workloads:\n- {workload: a, threads: 2}\nparameters: {threads: [1]}", ":2:17: threads is"),
    ("workloads: [a]\ntargets: ['guest:no-such']\n", ":2:1: there is no kernel image 'no-such'"),
    ("workloads: [a]\ntargets: ['guest:{kernel}']\n", ":2:1: a target has {kernel} in it"),
    ("workloads: [a]\nkernels: {k: study.yaml}\n", ":2:1: no target uses them"),
    ("workloads: [a]\ntargets: {'a b': local}\n", ":2:1: targets: 'a b' is no name"),
    ("workloads: [a]\ntargets: [\"ssh:a\\nb\"]\n", ":2:1: targets: 'ssh:a\\nb' is neither"),
    ("workloads: [a]\nexclude: [{threads: 4}]\n", ":2:12: the study does not vary 'threads'"),
    ("workloads: [a]\nexclude: [{workload: b}]\n", ":2:12: workload is never 'b'"),
    ("workloads: [a]\nexclude: [{workload: a}]\n", ":2:1: nothing is left"),
    ("workloads: [a]\ninclude: [{workload: a}]\n", ":2:11: this is in the study already"),
    ("workloads: [a, b]\ninclude: [{threads: 4}]\n", ":2:11: it needs a workload"),
    ("workloads: [a]\ncompare: kernel\n", ":2:1: the study does not vary 'kernel'"),
    ("workloads: [a]\nrepeats: 1000\nparameters: {threads: [1,2,3,4,5,6,7,8,9,10,11]}",
     ":2:1: these are 11,000 jobs"),
    ("workloads: [small-allocs-mt]\nparameters: {threads: [1, no way]}", ":1:13: threads 'no way'"),
    ("a: " + "[" * 5000, "nested too deeply"),
    ("# " + "x" * 300_000, "too large to be a study"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_one_sentence_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StudyError) as raised:
        read(tmp_path, text)
    sentence = str(raised.value)
    assert said in sentence
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 600
    assert raised.value.exit_code == 2


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cannot read the study .*: No such file"):
        matrix.read(tmp_path / "none.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00bad\x00\xd8")
    with pytest.raises(StudyError):
        matrix.read(tmp_path / "x.yaml")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
KEYS = st.sampled_from([*study_file.Model.model_fields, "x"]) | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_anything_is_a_study_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    try:
        text = yaml.safe_dump({"workloads": ["a"], **content}, allow_unicode=True)
    except yaml.YAMLError:
        return
    file = tmp_path_factory.mktemp("any") / "study.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    try:
        found = matrix.read(file)
    except StudyError as error:
        assert "\n" not in str(error)
    else:
        assert all(name.isascii() and "/" not in name for name in (c.name for c in found.cells))


def test_the_studies_that_come_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = studies.ROOT / "data" / "studies"
    nightly = matrix.read(directory / "nightly.yaml")
    assert Counter(c.parameters["threads"] for c in nightly.cells) == {1: 1, 2: 2, 4: 1}
    # The kernels of the pair need not be built.
    build = tmp_path / "build"
    for name in ("early", "delayed"):
        (build / "kernels" / name).mkdir(parents=True)
        (build / "kernels" / name / "bzImage").write_bytes(name.encode())
    for name in fingerprint._PROGRAMS:
        shutil.copy(paths.program(name), build)
    monkeypatch.setenv("ANONVMA_BUILD", str(build))
    fingerprint.tools.cache_clear()
    pair = matrix.read(directory / "pair.yaml")
    assert len(pair.cells) == 2 * 3 * 3 * 3 and pair.compare == "kernel"
    profile = yaml.safe_load((directory / "slurm" / "config.yaml").read_text())
    assert profile["executor"] == "slurm"


def test_every_key_is_in_the_readme() -> None:
    text = (studies.ROOT / "data" / "studies" / "README.md").read_text()
    for name in study_file.Model.model_fields:
        assert f"| `{name}` |" in text


STOCK = """\
targets: ["guest:{kernel}"]
kernels: ["stock:PATTERN", early, arm64/early]
workloads: [specimens]
"""


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["6.1", "ubuntu-6.8", "6.12", "7.3", "7.3.10", "early", "arm64-early"]),
        ("7.*", ["7.3", "7.3.10", "early", "arm64-early"]),
        ("arm64/*", ["arm64-6.12", "arm64-7.3", "early", "arm64-early"]),
    ],
)
def test_stock_kernels_are_those_there_by_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: list[str]
) -> None:
    for name in ("7.3.10", "6.12", "ubuntu-6.8", "7.3", "6.1", "arm64/7.3", "arm64/6.12"):
        (tmp_path / "stock" / name).mkdir(parents=True)
        (tmp_path / "stock" / name / "vmlinuz").write_text(name)
    for image in ("early/bzImage", "arm64/early/Image"):
        (tmp_path / "kernels" / image).parent.mkdir(parents=True)
        (tmp_path / "kernels" / image).write_text(image)
    monkeypatch.setattr(paths, "build", lambda: tmp_path)
    monkeypatch.setattr(paths, "program", lambda name: Path(__file__))
    fingerprint.tools.cache_clear()
    found = read(tmp_path, STOCK.replace("PATTERN", pattern))
    fingerprint.tools.cache_clear()
    assert [cell.axes["kernel"] for cell in found.cells] == names
    with pytest.raises(StudyError, match=r"no stock kernel is there that '8\.\*' fits"):
        read(tmp_path, STOCK.replace("PATTERN", "8.*"))
