# SPDX-License-Identifier: GPL-2.0-only
"""Identity: what names a machine, its users or what they run, and what names nobody.

Facts are values to look for: what a run says of its processes and files, and what this machine
says of itself. Shapes are how values look that nobody wrote down: addresses, kernel pointers, ids.
What `anonvma.report.public_words` knows is neither.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from anonvma.base import paths
from anonvma.report import reproduction, secret_patterns
from anonvma.report.public_words import is_of_systems, is_ours, is_public, own_words, sources
from anonvma.run.manifest import Manifest
from anonvma.run.runs import Run

Fact = tuple[str, str]
"""A kind (``host``, ``user``, ...) and a value to look for."""

# Columns whose words are not ours: processes, files and kernel modules chose them.
FOREIGN = {
    "comm": "process",
    "path": "path",
    "file": "path",
    "name": "mapping",
    "vm_ops": "symbol",
    "asked_by": "symbol",
    "symbol": "symbol",
    "call_path": "symbol",
    "function": "symbol",
    "event": "event",
    "counter": "counter",
    "fact": "fact",
    "unit": "unit",
}
_EVERYBODYS = re.compile(
    r"\[vdso\]|(?:.*/)?(?:(?:ld-(?:linux|musl)[\w.-]*|lib(?:c|m|pthread|dl|rt|gcc_s|stdc\+\+)(?:-\d[\d.]*)?\.so[\d.]*)"
    r"|vmload|specimens|vmaprobe)"
)
"""Files whose functions everybody has, where they have the names of such: of the C library, and of
our own programs, which are linked with it."""
_KERNEL = "[kernel.kallsyms]"  # as perf names it; a module has another
_OF_THE_KERNEL = re.compile(r"(?!bpf_prog_[0-9a-f]{16}_)[\w.$]{1,500}")
"""Functions that are built into it; a program of BPF has its author's word behind its tag."""
_OF_SYSTEMS = ("counter", "event", "fact", "unit", "vm_ops", "asked_by", "call_path")
_RAW = re.compile(r"r[0-9a-f]{1,8}")
"""An event by its number."""
_MODIFIER = re.compile(r":[ukhpPSDIGHWeb]{1,8}$")
_OF_TABLES = re.compile(
    r"[r-][w-][x-][sp]|[0-9a-f]{2,3}:[0-9a-f]{2,5}|[0-9a-f]{12}|tsc|hpet|acpi_pm|kvm-clock|arch_sys_counter"
    r"|notsupported|notimplemented|forceoff"
)
"""Protections, devices, and what the kernel says of a machine's clock and threads; also hashes."""


def foreign(frame: pd.DataFrame) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each column of words that a table has, their kind, and which of them are not ours.

    Those of `FOREIGN` have words of others by their nature, and any other may have them in a run
    from somewhere else. Functions of the kernel, the C library and our own programs are anybody's,
    and no profile can be read without them; so are the events of perf and of the kernel, but for
    those that somebody named.
    """
    for column in frame.columns:
        if column not in FOREIGN and frame[column].dtype.name not in ("str", "category"):
            continue
        kind = FOREIGN.get(column, "word")
        words = {str(word) for word in frame[column].unique() if not pd.isna(word)}
        if column in _OF_SYSTEMS:  # a call path is many names
            words = {word for word in words if not all(map(_is_of_systems, word.split(";")))}
        if column == "function":  # of the kernel, but for those that a module is named with
            words = {word for word in words if not _OF_THE_KERNEL.fullmatch(word)}
        if column == "symbol" and "file" in frame:
            words -= _everybodys(frame)
        if column not in FOREIGN:
            words = {
                word for word in words if not _OF_TABLES.fullmatch(word) and any(own_words(word))
            }
        yield column, kind, sorted(word for word in words if not is_public(word))


def _is_of_systems(name: str) -> bool:
    bare = _MODIFIER.sub("", name)
    return bool(_RAW.fullmatch(bare)) or is_of_systems(bare)


def _everybodys(frame: pd.DataFrame) -> set[str]:
    """Return the functions of a table that no program of anybody's own has."""
    told = frame[["symbol", "file"]].astype("object").fillna("").drop_duplicates()
    shown: set[str] = set()
    private: set[str] = set()
    for symbol, file in told.itertuples(index=False):
        public = (file == _KERNEL and _OF_THE_KERNEL.fullmatch(symbol)) or (
            _EVERYBODYS.fullmatch(file) and is_of_systems(symbol)
        )
        (shown if public else private).add(symbol)
    return shown - private


_PUBLIC_ROOTS = r"(?:proc|sys|dev|usr|lib|lib64|bin|sbin|boot|etc)"
_PUBLIC_PLACE = re.compile(rf"/{_PUBLIC_ROOTS}/[\w./+-]*$")


# ---- what to look for ----


def facts_of_run(run: Run) -> list[Fact]:
    """Return what a run says of its machine: names, paths, symbols and command lines."""
    facts: list[Fact] = []
    for table in sorted(run.manifest.tables):
        facts += _facts_of_table(run.table(table))
    named = [*_facts_of_command(run.manifest), *_facts_of_files(run), *_facts_of_target(run)]
    return [*dict.fromkeys(facts), *named]


# A run's id is the time, the workload's name as a slug, and a number if need be.
_ID = re.compile(r"\d{8}T\d{6}Z-")


def _facts_of_files(run: Run) -> Iterator[Fact]:
    """Yield what a run and its files are called, where the name is not ours."""
    slug = _ID.sub("", run.id)
    if not all(is_ours(word) or word.isdigit() for word in re.split(r"[-_.]", slug)):
        yield "run", run.id
        if slug != run.id:
            yield "run", slug
    files = [entry.file for entry in run.manifest.tables.values()]
    for file in [*files, *(entry.file for entry in run.manifest.raw)]:
        for part in Path(file).parts:
            if not all(is_ours(word) for word in re.split(r"[-_.]", part)):
                yield "file", part


def _facts_of_target(run: Run) -> Iterator[Fact]:
    """Yield what a kernel's release and command line, and free words, say of whose they are.

    Kernel people give their kernels names of their own (CONFIG_LOCALVERSION), often a host's.
    """
    target, told = run.manifest.target, run.manifest.features
    for name, value in [*target.items(), *told.items()]:
        if name in OF_FEW_WORDS and isinstance(value, str):
            apart, known = OF_FEW_WORDS[name]
            named = [word for word in re.split(apart, value) if not known.fullmatch(word)]
            yield from ((OF_KINDS[name], word) for word in named)
            if name == "append":
                parts = (part for word in named for part in re.split(r"[=:,/]+", word))
                yield from ((OF_KINDS[name], part) for part in parts if not is_public(part))
    for text in _free_text(run.manifest):
        yield from (("word", word) for word in own_words(text))


def _free_text(manifest: Manifest) -> Iterator[str]:
    yield from manifest.notes
    yield manifest.pages_how or ""
    for one in manifest.unobserved:
        yield from (one.what, one.reason, one.remedy, *one.tables)
    yield from (manifest.anonvma, manifest.workload.maps or "", *manifest.losses)
    for told, apart in (
        (manifest.target, _LOOKED_INTO),
        (manifest.features, ("kernel",)),
        (manifest.parameters, ("workload",)),
    ):
        yield from _strings({name: value for name, value in told.items() if name not in apart})


_LOOKED_INTO = ("kernel_release", "append", "cpu_model", "image_sha256", "config_sha256")


def _strings(value: object) -> Iterator[str]:
    """Yield every string in what JSON can hold, names among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from (text for item in value.values() for text in _strings(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _strings(item))


_RELEASE = re.compile(
    r"v?\d{0,8}|rc\d+|rt\d+|g[0-9a-f]{7,40}|fc\d*|el\d+|deb\d+|bpo\d*|next|dirty|generic|cloud|amd64|arm64"
    r"|armhf|i686|x86|64|x86_64|aarch64|riscv64|s390x|ppc64le|lowlatency|default|debug|preempt|smp|lts"
    r"|azure|aws|gcp|gke|oem|hwe|arch\d*|zen\d*|pve|raspi|rpi|virtual|kvm|server|desktop|stable|mm"
    r"|vanilla|mainline|trunk|unsigned|linux|microsoft|standard|wsl\d*|amzn\d*|manjaro|chromeos"
    r"|early|delayed|base|head|16k|64k",
    re.I,
)
# Of a kernel's command line: a switch, or a parameter that many give, and a number or a switch.
_PARAMETER = re.compile(
    r"|quiet|nokaslr|nosmt|nosmp|ro|rw|debug|nopti|noapic|ignore_loglevel"
    r"|(?:console|panic|mem|maxcpus|nr_cpus|isolcpus|nohz_full|rcu_nocbs|numa|numa_balancing|preempt"
    r"|mitigations|transparent_hugepage|thp_\w{1,5}|hugepages|hugepagesz|default_hugepagesz|loglevel|audit"
    r"|selinux|apparmor|spectre_v2|pti|nmi_watchdog|earlyprintk|init_on_alloc|init_on_free|page_poison"
    r"|kfence\.sample_interval|psi|crashkernel|swapaccount|vsyscall|clocksource|tsc|idle|intel_pstate"
    r"|processor\.max_cstate|intel_idle\.max_cstate|random\.trust_cpu|log_buf_len|threadirqs)="
    r"(?:on|off|never|always|madvise|none|no|yes|auto|force|full|voluntary|lazy|within_size|advise"
    r"|(?:tty|ttyS|ttyAMA|hvc)\d{1,2}(?:,\d+)?|tsc|hpet|acpi_pm|poll|halt|-?\d[\d,-]{0,12}[kKmMgG]?)"
)
_CPU = re.compile(
    r"@|(?:genuine)?intel(?:\(r\))?|amd|arm|xeon(?:\(r\))?|core(?:\(tm\))?|epyc|ryzen|threadripper|cpu"
    r"|processor|gold|silver|platinum|bronze|max|ultra|pro|qemu|tcg|virtual|version|neoverse|cortex|ampere"
    r"|altra|graviton\d*|apple|atom(?:\(tm\))?|celeron(?:\(r\))?|pentium(?:\(r\))?|opteron(?:\(tm\))?"
    r"|power\d*|common|kvm|with|radeon|graphics|family|model|stepping|gen|th|vega|mobile|sapphire|rapids"
    r"|implementer|part|0x[0-9a-f]{2,3},?|(?:dual|quad|six|eight)-core"
    r"|(?:epyc-)?(?:haswell|broadwell|skylake|cascadelake|icelake|milan|rome|genoa)"
    r"(?:[-,]|server|client|notsx|ibrs|ep|sp|v\d)*"
    r"|(?:neoverse|cortex)-[a-z]\d{1,3}|[a-z]?\d[\d.]*[a-z]{0,3}\d{0,2}(?:ghz|mhz)?\+?"
    r"|[a-z]\d?-\d{3,5}[a-z]{0,3}\d?|\d+-core|\((?:r|tm|c)\)|[ivx]{0,3}",
    re.I,
)
OF_FEW_WORDS = {
    "kernel_release": (r"[-+.~_ ]+", _RELEASE),
    "kernel": (r"[-+.~_ ]+", _RELEASE),
    "append": (r"\s+", _PARAMETER),
    "cpu_model": (r"\s+", _CPU),
}
"""Facts of a machine that are made of few words: what is between these, and which they are."""
OF_KINDS = {
    **dict.fromkeys(("kernel_release", "kernel"), "kernel name"),
    "append": "kernel parameter",
    "cpu_model": "cpu name",
}


def _facts_of_table(frame: pd.DataFrame) -> Iterator[Fact]:
    for _, kind, words in foreign(frame):
        yield from ((kind, word) for word in words)


def _facts_of_command(manifest: Manifest) -> Iterator[Fact]:
    line = str(manifest.parameters.get("workload", ""))
    words = [*manifest.workload.argv, *line.split()]
    secret = [word for word in words if not is_public(word)]
    if secret:
        for whole in (line, " ".join(manifest.workload.argv)):
            if not is_public(whole):
                yield "command line", whole
    for word in secret:
        yield "argument", word
        if (name := Path(word).name) != word and not is_public(name):
            yield "argument", name
    if not is_public(manifest.workload.name):
        yield "process", manifest.workload.name


def facts_of_machine(environment: Mapping[str, str] | None = None) -> list[Fact]:
    """Return what names this machine and its users.

    Parameters
    ----------
    environment : mapping, optional
        Of the process; its own by default.
    """
    environment = os.environ if environment is None else environment
    facts: list[Fact] = [("host", name) for name in _host_names(environment)]
    for user in pwd.getpwall():
        if 1000 <= user.pw_uid < 65534 or user.pw_uid == os.getuid() != 0:
            facts += [("user", user.pw_name), ("path", user.pw_dir)]
            facts += [("user", name) for name in user.pw_gecos.split(",") if len(name) > 2]
    for variable in ("USER", "LOGNAME", "SUDO_USER"):
        if environment.get(variable, "root") != "root":
            facts.append(("user", environment[variable]))
    facts += [("path", str(Path.home())), ("path", str(paths.root()))]
    for file in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        facts.append(("machine id", _read(file)))
    for address in Path("/sys/class/net").glob("*/address"):
        facts.append(("address", _read(str(address))))
    facts += [("cgroup", part) for part in _cgroups()]
    for variable, value in environment.items():
        # The program that a shell has just started: us; and what the mail is to say.
        if variable in ("_", "ANONVMA_URL"):
            continue
        if len(value) >= 8 and not _PUBLIC_PLACE.match(value):
            facts.append(("environment", value))
    return [fact for fact in dict.fromkeys(facts) if not is_public(fact[1])]


def common_names(environment: Mapping[str, str] | None = None) -> list[Fact]:
    """Return hosts and users of this machine that cannot be withheld: they are common words."""
    environment = os.environ if environment is None else environment
    names = [("host", name) for name in _host_names(environment)]
    people = [user for user in pwd.getpwall() if 1000 <= user.pw_uid < 65534]
    names += [("user", user.pw_name) for user in people]
    variables = ("USER", "LOGNAME", "SUDO_USER")
    names += [("user", environment[variable]) for variable in variables if variable in environment]
    known = {"", "root", "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"}
    known |= {"ip6-allnodes", "ip6-allrouters", "ip6-localnet", "ip6-mcastprefix", "broadcasthost"}
    every = dict.fromkeys(fact for fact in names if fact[1] not in known)
    return [fact for fact in every if is_public(fact[1]) or len(fact[1]) <= 2]


def _host_names(environment: Mapping[str, str]) -> Iterator[str]:
    for name in (socket.gethostname(), _read("/etc/hostname"), environment.get("HOSTNAME", "")):
        yield name
        yield name.partition(".")[0]
    for line in _read("/etc/hosts").splitlines():
        yield from line.partition("#")[0].split()[1:]


def _cgroups() -> Iterator[str]:
    for line in _read("/proc/self/cgroup").splitlines():
        path = line.rpartition(":")[2].strip()
        yield path
        yield from (part for part in path.split("/") if len(part) > 3)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    return ""


def hashes_of(run: Run) -> set[str]:
    """Return the hashes that a report gives of a run: they name data, not a container."""
    manifest = run.manifest
    found = {
        reproduction.manifest_sha256(run),
        *(table.sha256 for table in manifest.tables.values()),
    }
    for name in ("image_sha256", "config_sha256"):
        found.add(str(manifest.target.get(name)))
    return found


# ---- shapes ----


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text.count(":") != 1


def _always(text: str) -> bool:
    return True


def _not_in_sources(text: str) -> bool:
    return text not in sources()


SHAPES: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    *(("secret", shape, _always) for shape in secret_patterns.TOKENS),
    ("kernel log", re.compile(r"\[ *\d{1,7}\.\d{6}\][^\n]*"), _always),
    (
        "secret",
        re.compile(r"(?i)\b[\w-]*(?:token|passw(?:or)?d|secret|api.?key)[\w-]*[=:]\s?\S+"),
        _always,
    ),
    ("cgroup", re.compile(r"[\w@.:\\-]+\.(?:slice|scope|service)\b"), _always),
    ("mail address", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), _always),
    ("machine id", re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.I), _always),
    ("machine id", re.compile(r"\b[0-9a-f]{32}\b", re.I), _always),
    ("container", re.compile(r"\b[0-9a-f]{64}\b", re.I), _always),
    ("address", re.compile(r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", re.I), _always),
    ("address", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)"), _is_address),
    (
        "address",
        re.compile(r"(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])", re.I),
        _is_address,
    ),
    ("pointer", re.compile(r"\b(?:0x)?[89a-f][0-9a-f]{15}\b", re.I), _always),
    ("pointer", re.compile(r"\b0x[c-f][0-9a-f]{7}\b", re.I), _always),
    (
        "cgroup",
        re.compile(r"\b(?:docker|kubepods|cri-containerd|crio|libpod|lxc)[-/][\w./:-]+"),
        _always,
    ),
    ("host", secret_patterns.HOST_NAME, _not_in_sources),
    ("address", re.compile(r"\b[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}\b", re.I), _always),
    ("path", secret_patterns.PRIVATE_PLACE, _not_in_sources),
    (
        "path",
        re.compile(
            rf"(?<![\w.<)\]/:*-])(?:~|/(?!{_PUBLIC_ROOTS}\b))[\w.+@~%-]*(?:/[\w.+@~%:-]+)+/?|/root\b"
        ),
        _always,
    ),
)
"""What is withheld whatever the run and the machine are: a kind, its shape, and a second look."""
