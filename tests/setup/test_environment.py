# SPDX-License-Identifier: GPL-2.0-only
"""pyproject.toml, constraints.txt, environment.yml and the system packages name the same things."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parents[2]

# Where conda-forge has another name than pip; the -base packages leave out Qt and statsmodels,
# the -minimal one storage, reports and clusters.
CONDA_NAMES = {
    "duckdb": "python-duckdb",
    "matplotlib": "matplotlib-base",
    "seaborn": "seaborn-base",
    "snakemake": "snakemake-minimal",
}

# What conda-forge has in place of each Debian package that analysis/setup/os-packages knows.
CONDA_SYSTEM = {
    "clang": "clang",
    "g++": "cxx-compiler",
    "gcc": "c-compiler",
    "git": "git",
    "libbpf-dev": None,  # conda-forge has no libbpf
    "libc6-dev": "c-compiler",
    "libelf-dev": "elfutils",
    "libzstd-dev": "zstd",
    "linux-perf": "linux-perf",
    "llvm": "llvm-tools",
    "pkg-config": "pkg-config",
    "python3-venv": None,  # conda makes the environment
    "zlib1g-dev": "zlib",
}
# On Debian these are there before anonvma is: make runs the set-up, and pip comes with the venv.
CONDA_ONLY = {"make", "pip"}

Bounds = dict[str, SpecifierSet]


def requirements(root: Path) -> list[Requirement]:
    """Everything pyproject.toml asks for: to run, to test and to build, and Python itself."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    project = pyproject["project"]
    lines = [
        f"python{project['requires-python']}",
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
        *pyproject["build-system"]["requires"],
    ]
    return [Requirement(line) for line in lines]


def pip_bounds(root: Path) -> Bounds:
    return {canonicalize_name(r.name): r.specifier for r in requirements(root)}


def conda_bounds(root: Path) -> Bounds:
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    specs = [MatchSpec(line, strict=True) for line in environment["dependencies"]]
    names = [str(spec.name.normalized) for spec in specs]
    assert len(names) == len(set(names)), "environment.yml names a package twice"
    return {
        name: SpecifierSet(str(spec.version or "")) for name, spec in zip(names, specs, strict=True)
    }


def system_packages() -> set[str]:
    listed = subprocess.run(
        [ROOT / "analysis/setup/os-packages", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    # Ubuntu's perf is in a package named after the running kernel.
    return {"linux-perf" if name.startswith("linux-tools-") else name for name in listed}


def disagreements(root: Path) -> list[str]:
    """What environment.yml says otherwise than pyproject.toml, one sentence each."""
    wanted = {CONDA_NAMES.get(name, name): bounds for name, bounds in pip_bounds(root).items()}
    for name in {*CONDA_SYSTEM.values(), *CONDA_ONLY} - {None}:
        wanted[str(name)] = SpecifierSet()
    found = conda_bounds(root)
    return [
        f"{name}: pyproject.toml wants {wanted.get(name, 'nothing')!s}, "
        f"environment.yml {found.get(name, 'nothing')!s}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]


def test_environment_agrees_with_pyproject() -> None:
    assert disagreements(ROOT) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "name"),
    [
        ("pyproject.toml", '"pandas>=3.0"', '"pandas>=3.1"', "pandas"),
        ("pyproject.toml", '    "tqdm>=4.66",\n', "", "tqdm"),
        ("pyproject.toml", '"click>=8.1.7"', '"click>=8.1.7", "rich>=13"', "rich"),
        ("pyproject.toml", 'requires-python = ">=3.11"', 'requires-python = ">=3.12"', "python"),
        ("environment.yml", "matplotlib-base >=3.9,<3.13", "matplotlib-base >=3.9", "matplotlib"),
        ("environment.yml", "  - nbval >=0.11\n", "", "nbval"),
        ("environment.yml", "  - pip\n", "  - pip\n  - rich >=13\n", "rich"),
        ("environment.yml", "  - elfutils\n", "", "elfutils"),
    ],
)
def test_a_change_on_one_side_shows(
    tmp_path: Path, file: str, old: str, new: str, name: str
) -> None:
    for each in ("pyproject.toml", "environment.yml"):
        shutil.copy(ROOT / each, tmp_path)
    text = (tmp_path / file).read_text()
    assert text.count(old) == 1
    (tmp_path / file).write_text(text.replace(old, new))

    (disagreement,) = disagreements(tmp_path)
    assert disagreement.startswith(name)


def test_every_system_package_has_a_conda_counterpart() -> None:
    assert system_packages() == CONDA_SYSTEM.keys()


def pins(root: Path) -> dict[str, str]:
    """The one version that constraints.txt gives each package; anything but a pin is refused."""
    found: dict[str, str] = {}
    for line in (root / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        (exact,) = pin.specifier
        assert exact.operator == "==" and not exact.version.endswith("*"), line
        assert pin.url is None and not pin.extras, line
        if pin.marker is None or pin.marker.evaluate():
            found[canonicalize_name(pin.name)] = exact.version
    return found


def test_constraints_pin_what_pyproject_wants() -> None:
    pinned = pins(ROOT)
    # pip ignores constraints.txt for what it builds with, and Python is not pip's to choose.
    for name, bounds in pip_bounds(ROOT).items():
        if name in {"hatchling", "python"}:
            continue
        assert name in pinned, f"constraints.txt lacks {name}: run `make constraints`"
        assert pinned[name] in bounds, f"constraints.txt pins {name} outside {bounds}"


def test_pinned_versions_work_with_the_oldest_python() -> None:
    """A pin may want a later patch release of Python than Debian 12 has, 3.11.2."""
    (oldest,) = pip_bounds(ROOT)["python"]
    pinned = pins(ROOT)
    installed = {canonicalize_name(d.name): d for d in distributions()}
    too_new = {
        name: wanted
        for name in pinned.keys() & installed.keys()
        if installed[name].version == pinned[name]
        and (wanted := installed[name].metadata.get("Requires-Python"))
        and f"{oldest.version}.0" not in SpecifierSet(wanted)
    }
    assert too_new == {}, "run `make constraints PYTHON=` with an older Python"
