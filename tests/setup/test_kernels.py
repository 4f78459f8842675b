# SPDX-License-Identifier: GPL-2.0-only
"""`make kernels`: the pair it built, and, on a toy tree that compiles in a second, how it builds.

The toy is a Makefile with the few targets of a kernel's that matter here. Its mm/memory.c is the
context of the patch for 6.12, so that patch fits it; its bzImage is its sources, one after the
other.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from waiting import PATIENCE, until

pytestmark = pytest.mark.kernels

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "analysis/setup/kernels"
FRAGMENT = ROOT / "data/kernels/config.fragment"
PATCHES = {  # by the series they are written for, and what they change there
    "6.12": (ROOT / "data/kernels/early-check-6.12.patch", "mm/memory.c"),
    "7.3": (ROOT / "data/kernels/early-check-7.3.patch", "mm/mmap_lock.c"),
}
PATCH = PATCHES["6.12"][0]
DEV_ZERO = ROOT / "data/kernels/dev-zero-7.3.patch"
CHECK = "vma_is_anonymous(vma) && !vma->anon_vma"

TOY = """\
srctree := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
OBJECTS := $(addprefix $(O)/,init/main.o kernel/fork.o mm/memory.o mm/mmap.o mm/rmap.o mm/vmscan.o)
.DELETE_ON_ERROR:
kernelversion:
	@echo 6.12.0
allnoconfig:
	@mkdir -p $(O) && grep -v KALLSYMS_ALL $(KCONFIG_ALLCONFIG) >$(O)/.config
$(O)/%.o: $(srctree)%.c
	@echo '  CC      $*.o'
	@mkdir -p $(@D) && head -c 9 $< >$@ && sleep 0.3
	@if grep -n FAULTY $<; then echo '$<:1: error: it is faulty'; exit 1; fi
	@cp --no-preserve=timestamps $< $@
boot := $(O)/arch/$(or $(ARCH),x86)/boot
bzImage Image: $(OBJECTS)
	@echo '  LD      vmlinux'
	@mkdir -p $(O)/include/config $(boot)
	@echo 6.12.0$(LOCALVERSION) >$(O)/include/config/kernel.release
	@touch $(O)/System.map && cat $^ >$(boot)/$@
"""
TOY_NAMES = ["init/main", "kernel/fork", "mm/memory", "mm/mmap", "mm/rmap", "mm/vmscan"]
TOY_FILES = len(TOY_NAMES)


def context_of(patch: Path) -> str:
    """What the patch finds before it is applied, at the line where it expects it."""
    start, _, hunk = patch.read_text().partition("\n@@ -")[2].partition("\n")
    before = "\n" * (int(start.partition(",")[0]) - 1)
    return before + "".join(
        line[1:] for line in hunk.splitlines(keepends=True) if line.startswith(" ")
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A toy kernel tree."""
    tree = tmp_path / "linux"
    for name in TOY_NAMES:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / f"{name}.c").write_text(f"/* {name} */\n")
    (tree / "mm/memory.c").write_text(context_of(PATCH))
    (tree / "Kbuild").touch()
    options = (line.partition("=")[0].removeprefix("CONFIG_") for line in fragment_lines())
    kconfig = "".join(f"config {option}\n\tbool\n" for option in options if option != "BPF_JIT")
    (tree / "init/Kconfig").write_text(f"\t{kconfig}")  # in a choice it is indented
    (tree / "Makefile").write_text(TOY)
    return tree


def git(tree: Path, *words: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.invalid"]
    done = subprocess.run(
        ["git", "-C", tree, *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tree: Path) -> Path:
    """The toy tree as a git repository with two commits, tagged a and b; b changes mm/mmap.c."""
    git(tree, "init", "--quiet")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message=mm: a base")
    git(tree, "tag", "a")
    (tree / "mm/mmap.c").write_text("/* mm/mmap, changed */\n")
    git(tree, "commit", "--quiet", "--all", "--message=mm: a head")
    git(tree, "tag", "b")
    return tree


def command(tree: Path, *words: str) -> list[str | Path]:
    build = tree.parent / "build"
    return [sys.executable, SCRIPT, "--jobs=1", "--build", build, "--tree", tree, *words]


def kernels(tree: Path, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(tree, *words), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def refusal(tree: Path, *words: str, expect: int = 1) -> str:
    """Why the pair could not be built: one sentence, and no image."""
    done = kernels(tree, *words, expect=expect)
    assert not list((tree.parent / "build").rglob("bzImage"))
    last = done.stderr.splitlines()[-1]
    assert last.startswith("anonvma: ") if expect == 1 else "error: " in last
    return last


def image(tree: Path, name: str) -> str:
    return (tree.parent / "build" / name / "bzImage").read_text()


def facts(tree: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tree.parent / "build" / name / "kernel.json").read_text())
    return found


def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("kernels_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


# ---- The pair ----


@pytest.fixture(scope="session")
def pair() -> dict[str, Path]:
    """The directories of `early` and `delayed`, as `make kernels` left them."""
    found = {name: ROOT / "build/kernels" / name for name in ("early", "delayed")}
    for directory in found.values():
        assert (directory / "bzImage").exists(), f"no {directory}/bzImage: run `make kernels`"
    return found


def fragment_lines() -> list[str]:
    return [line for line in FRAGMENT.read_text().splitlines() if line.startswith("CONFIG_")]


@pytest.mark.parametrize("name", ["early", "delayed"])
def test_every_line_of_the_fragment_took_effect(pair: dict[str, Path], name: str) -> None:
    config = (pair[name] / "config").read_text().splitlines()
    assert [line for line in fragment_lines() if line not in config] == []
    assert json.loads((pair[name] / "kernel.json").read_text())["config_missing"] == []


@pytest.mark.parametrize("file", sorted(FRAGMENT.parent.glob("*.fragment")), ids=lambda x: x.name)
def test_every_line_of_a_fragment_says_why(file: Path) -> None:
    """Each option stands below a comment, its own or that of the lines it stands with."""
    text = file.read_text()
    for paragraph in text.split("\n\n"):
        assert paragraph.startswith("# "), paragraph
    options = re.findall(r"(?m)^(?:# )?(CONFIG_\w+)(?:=| is not set$)", text)
    assert len(options) == len(set(options))


def test_configurations_are_equal(pair: dict[str, Path]) -> None:
    assert (pair["early"] / "config").read_text() == (pair["delayed"] / "config").read_text()


@pytest.mark.parametrize("name", ["early", "delayed"])
def test_image_is_a_kernel_that_says_which_it_is(pair: dict[str, Path], name: str) -> None:
    """The header is that of Documentation/arch/x86/boot.rst."""
    data = (pair[name] / "bzImage").read_bytes()
    assert data[0x202:0x206] == b"HdrS"
    version = int.from_bytes(data[0x20E:0x210], "little") + 0x200
    release = data[version : data.index(b"\0", version)].split()[0].decode()
    assert release == json.loads((pair[name] / "kernel.json").read_text())["release"]
    assert release.endswith(f"-{name}")
    # Not who built it, nor where: this gets into manifests.
    assert b"(anonvma@anonvma)" in data[version : version + 200]


def function_sizes(system_map: Path) -> dict[str, int]:
    """Bytes from each function to the next symbol of the kernel's code."""
    symbols = [line.split() for line in system_map.read_text().splitlines()]
    code = sorted((int(address, 16), name) for address, kind, name in symbols if kind in "tT")
    starts = sorted({address for address, _ in code})
    following = dict(itertools.pairwise(starts))
    return {name: following[start] - start for start, name in code if start in following}


def test_images_differ_in_one_function(pair: dict[str, Path]) -> None:
    sizes = {name: function_sizes(directory / "System.map") for name, directory in pair.items()}
    early, delayed = sizes["early"], sizes["delayed"]
    assert early.keys() == delayed.keys()
    # Up to an *_end, which the linker sets, only padding follows.
    differ = {n for n in early if early[n] != delayed[n] and not n.endswith("_end")}
    assert differ == {"lock_vma_under_rcu"}
    assert early["lock_vma_under_rcu"] > delayed["lock_vma_under_rcu"]


def test_second_kernel_came_from_the_objects_of_the_first(pair: dict[str, Path]) -> None:
    compiled = {
        name: json.loads((directory / "kernel.json").read_text())["files_compiled"]
        for name, directory in pair.items()
    }
    assert compiled["early"] < 100 < compiled["delayed"]


def test_cached_pair_is_there_at_once(pair: dict[str, Path]) -> None:
    images = {name: (directory / "bzImage").stat() for name, directory in pair.items()}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "delayed and early are built already" in done.stdout
    assert {name: (directory / "bzImage").stat() for name, directory in pair.items()} == images


# ---- How a pair is built, on the toy ----


def test_only_early_has_the_check(tree: Path) -> None:
    done = kernels(tree)
    assert CHECK in image(tree, "early")
    assert CHECK not in image(tree, "delayed")
    assert (facts(tree, "delayed")["patch"], facts(tree, "early")["patch"]) == (None, PATCH.name)
    compiled = [facts(tree, name)["files_compiled"] for name in ("delayed", "early")]
    assert compiled == [TOY_FILES, 1]
    assert facts(tree, "early")["release"] == "6.12.0-early"
    assert CHECK not in (tree / "mm/memory.c").read_text()  # the user's own
    assert done.stdout.splitlines()[-2:] == [
        f"{tree.parent}/build/{name}/bzImage" for name in ("delayed", "early")
    ]
    assert not list((tree.parent / "build").glob("work-*"))


def test_kernels_of_another_machine(tree: Path) -> None:
    """They are configured by the usual lines, but for those that its own files replace."""
    done = kernels(tree, "--arch=arm64", "--pages=64k")
    place = tree.parent / "build/arm64-64k"
    assert done.stdout.splitlines()[-2:] == [
        f"{place}/{name}/Image" for name in ("delayed", "early")
    ]
    assert CHECK in (place / "early/Image").read_text()
    assert "clang" in json.loads((place / "early/kernel.json").read_text())["compiler"]
    config = (place / "delayed/config").read_text().splitlines()
    assert {"CONFIG_ARM64_64K_PAGES=y", "# CONFIG_ACPI is not set"} <= set(config)
    assert "CONFIG_ACPI=y" not in config and "CONFIG_PER_VMA_LOCK_STATS=y" in config
    assert refusal(tree, "--arch=arm64", "--pages=3k").endswith(
        "no kernel of arm64 with pages of 3k is configured in data/kernels."
    )


def test_line_of_the_fragment_without_effect_is_named(tree: Path) -> None:
    done = kernels(tree)
    assert "delayed: this source has not taken CONFIG_KALLSYMS_ALL=y" in done.stdout
    assert facts(tree, "early")["config_missing"] == ["CONFIG_KALLSYMS_ALL=y"]


def test_option_that_the_source_does_not_have_is_not_called_refused(tree: Path) -> None:
    done = kernels(tree)
    assert "delayed: this source knows no CONFIG_BPF_JIT, which config.fragment names" in (
        done.stdout
    )
    assert facts(tree, "early")["config_unknown"] == ["CONFIG_BPF_JIT"]


def test_the_patch_is_the_one_that_fits(tree: Path) -> None:
    (tree / "mm/memory.c").write_text("/* another series */\n")
    patch, file = PATCHES["7.3"]
    (tree / file).write_text(context_of(patch))
    (tree / "Makefile").write_text(TOY.replace("mm/mmap.o", "mm/mmap.o mm/mmap_lock.o"))
    kernels(tree)
    assert facts(tree, "early")["patch"] == patch.name
    assert CHECK in image(tree, "early")
    assert CHECK not in image(tree, "delayed")


def test_source_that_has_the_check_already(tree: Path) -> None:
    run = ["patch", "--strip=1", "--silent", f"--input={PATCH}"]
    subprocess.run(run, cwd=tree, check=True)
    kernels(tree)
    assert CHECK in image(tree, "early")
    assert CHECK not in image(tree, "delayed")


def test_third_kernel_has_its_own_change_alone(tree: Path) -> None:
    (tree / "mm/vma.c").write_text(context_of(DEV_ZERO))
    (tree / "Makefile").write_text(TOY.replace("mm/mmap.o", "mm/mmap.o mm/vma.o"))
    kernels(tree, "--also=dev-zero")
    has = {name: image(tree, name) for name in ("delayed", "early", "dev-zero")}
    assert [name for name in has if CHECK in has[name]] == ["early"]
    assert [name for name in has if "map->file = NULL" in has[name]] == ["dev-zero"]
    assert facts(tree, "dev-zero")["patch"] == DEV_ZERO.name
    done = kernels(tree, "--also=dev-zero")
    assert "delayed, early and dev-zero are built already" in done.stdout
    assert "delayed and early are built already" in kernels(tree).stdout


def test_cached_pair_is_not_built_again(tree: Path) -> None:
    kernels(tree)
    before = (tree.parent / "build/early/bzImage").stat()
    done = kernels(tree)
    assert "built already" in done.stdout
    assert (tree.parent / "build/early/bzImage").stat() == before


def test_changed_source_is_another_pair(tree: Path) -> None:
    kernels(tree)
    (tree / "mm/rmap.c").write_text("/* mm/rmap, changed */\n")
    kernels(tree)
    assert "changed" in image(tree, "early")
    assert "changed" in image(tree, "delayed")


def running_in(directory: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:  # gone
            continue
        if str(directory).encode() in words:
            found.append(int(process.name))
    return found


def interrupt(tree: Path, number: signal.Signals, *, all_at_once: bool) -> list[str]:
    """Build until three files are compiled, then interrupt; the objects that are left."""
    build = tree.parent / "build"
    process = subprocess.Popen(
        command(tree), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until(lambda: process.poll() is not None or len(list(build.rglob("*.o"))) >= 3)
    assert process.poll() is None
    if all_at_once:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(timeout=PATIENCE) != 0
    until(lambda: not running_in(build), lambda: "make works on although nobody waits for it")
    assert not list(build.rglob("bzImage"))
    return [path.name for path in build.rglob("*.o")]


@pytest.mark.parametrize("all_at_once", [False, True], ids=["alone", "with-make"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_interrupted_build_goes_on(tree: Path, number: signal.Signals, all_at_once: bool) -> None:
    left = interrupt(tree, number, all_at_once=all_at_once)
    kernels(tree)
    sources = [(tree / f"{name}.c").read_text() for name in TOY_NAMES]
    assert image(tree, "delayed") == "".join(sources)
    assert CHECK in image(tree, "early")
    if number != signal.SIGKILL:  # after that the youngest objects are not trusted
        assert facts(tree, "delayed")["files_compiled"] == TOY_FILES - len(left) < TOY_FILES


def test_object_that_is_older_survives_a_kill(tree: Path) -> None:
    interrupt(tree, signal.SIGKILL, all_at_once=True)
    (main,) = (tree.parent / "build").rglob("main.o")
    minute_ago = time.time() - 60
    for path in (tree.parent / "build").glob("work-*/source/init/main.c"):
        os.utime(path, (minute_ago - 1, minute_ago - 1))
    os.utime(main, (minute_ago, minute_ago))
    kernels(tree)
    assert facts(tree, "delayed")["files_compiled"] == TOY_FILES - 1


def test_directory_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    laid_whole = script().laid_whole
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), laid_whole(tmp_path / "early") as fresh:
            (fresh / "bzImage").write_bytes(b"half of it")
            raise KeyboardInterrupt
        assert not (tmp_path / "early").exists()
    with laid_whole(tmp_path / "early") as fresh:
        assert list(fresh.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["early"]


def test_two_calls_at_once_build_once(tree: Path) -> None:
    first = subprocess.Popen(command(tree), stdout=subprocess.PIPE, text=True)
    until(lambda: list((tree.parent / "build").rglob("*.o")))
    second = kernels(tree)
    out, _ = first.communicate(timeout=PATIENCE)
    assert "Another make kernels is at work here" in second.stdout
    assert "built already" in second.stdout
    assert "compiled" in out


# ---- Two revisions, and a working tree, of a repository ----


def snapshot(directory: Path) -> dict[str, int]:
    """Every file and when it changed; of an object only that it is there: git renews its time."""
    return {
        str(path): 0 if "/.git/objects/" in str(path) else path.lstat().st_mtime_ns
        for path in directory.rglob("*")
    }


def test_two_revisions(repository: Path) -> None:
    before = snapshot(repository)
    kernels(repository, "--base=a", "--head=b")
    assert snapshot(repository) == before
    assert "/* mm/mmap */" in image(repository, "base")
    assert "/* mm/mmap, changed */" in image(repository, "head")
    assert CHECK not in image(repository, "base") + image(repository, "head")
    assert facts(repository, "base")["subject"] == "mm: a base"
    assert str(repository) not in json.dumps(facts(repository, "base"))
    assert facts(repository, "head")["commit"] == git(repository, "rev-parse", "b")
    assert facts(repository, "head")["files_compiled"] == 1


def test_next_revision_compiles_what_changed(repository: Path) -> None:
    kernels(repository, "--base=a", "--head=b")
    (repository / "mm/rmap.c").write_text("/* mm/rmap, changed */\n")
    git(repository, "commit", "--quiet", "--all", "--message=mm: more")
    (work,) = (repository.parent / "build").glob("work-*")
    (work / "index.lock").touch()  # as a git that was killed leaves it
    kernels(repository, "--base=b", "--head=HEAD")
    assert facts(repository, "base")["files_compiled"] == 0
    assert facts(repository, "head")["files_compiled"] == 1


def test_working_tree_with_what_is_not_committed(repository: Path) -> None:
    (repository / "mm/rmap.c").write_text("/* mm/rmap, not committed */\n")
    (repository / "mm/vmscan.c").unlink()
    (repository / "mm/vmscan.c").symlink_to("vmscan-new.c")
    (repository / "mm/vmscan-new.c").write_text("/* mm/vmscan, not added */\n")
    before = snapshot(repository)
    kernels(repository)
    assert snapshot(repository) == before
    for name in ("delayed", "early"):
        assert "not committed" in image(repository, name)
        assert "not added" in image(repository, name)
    assert CHECK in image(repository, "early")
    assert CHECK not in image(repository, "delayed")


def test_worktree_of_a_repository(repository: Path) -> None:
    other = repository.parent / "other"
    git(repository, "worktree", "add", "--quiet", "--detach", str(other), "a")
    kernels(other)
    assert "/* mm/mmap */" in image(other, "early")
    assert CHECK in image(other, "early")


# ---- What cannot be built ----


def test_patch_that_does_not_fit(tree: Path) -> None:
    (tree / "mm/memory.c").write_text("/* another kernel's */\n")
    said = refusal(tree)
    assert re.search(
        r"early-check are written for 6\.12 and 7\.3, .* source, 6\.12\.0; .*BASE=", said
    )


def test_compiler_error_is_told(tree: Path) -> None:
    (tree / "mm/rmap.c").write_text("FAULTY\n")
    said = refusal(tree)
    assert "building delayed failed" in said
    assert "rmap.c:1: error: it is faulty" in said
    (tree / "mm/rmap.c").write_text("/* mm/rmap */\n")
    kernels(tree)


def test_revision_that_is_not_there(repository: Path) -> None:
    assert "has no revision nowhere" in refusal(repository, "--base=a", "--head=nowhere")


def test_two_names_of_one_revision(repository: Path) -> None:
    assert "b and HEAD are the same source" in refusal(repository, "--base=b", "--head=HEAD")


def test_revisions_without_a_repository(tree: Path) -> None:
    assert "not a git repository" in refusal(tree, "--base=a", "--head=b")


def test_tree_that_is_none(tree: Path) -> None:
    shutil.rmtree(tree / "mm")
    assert "is not a kernel source tree" in refusal(tree)


def test_tree_that_was_built_in(tree: Path) -> None:
    (tree / ".config").touch()
    assert "make mrproper" in refusal(tree)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base=a"], "BASE and HEAD go together"),
        (["--jobs=0"], "JOBS has to be 1 or more"),
        (["--series=7.3"], "SERIES is of Debian's source, and TREE of your own"),
        (["--base=a", "--head=b", "--also=dev-zero"], "ALSO goes with the pair of one source"),
        (["--jobs=many"], "invalid int value"),
    ],
)
def test_wrong_usage(tree: Path, words: list[str], said: str) -> None:
    assert said in refusal(tree, *words, expect=2)


def test_revisions_of_nothing() -> None:
    done = subprocess.run([SCRIPT, "--base=a", "--head=b"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "revisions of TREE, which is not given" in done.stderr


def test_too_little_disk(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script()
    full = shutil.disk_usage(tree)._replace(free=1_200_000_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: full)
    build = tree.parent / "build"
    monkeypatch.setattr(sys, "argv", ["kernels", "--tree", str(tree), "--build", str(build)])
    with pytest.raises(module.Stop, match=r"needs about \d+ GB in .* and 1\.2 GB are free"):
        module.main()
    assert not list(build.rglob("source"))


def test_missing_tools_are_named_as_packages(tmp_path: Path) -> None:
    """With a PATH that lacks some, and leave to install nothing."""
    for directory in ("/usr/bin", "/bin"):
        for tool in Path(directory).iterdir():
            if tool.name not in {"bison", "bc", "pahole"}:
                (tmp_path / tool.name).unlink(missing_ok=True)
                (tmp_path / tool.name).symlink_to(tool)
    done = subprocess.run(
        [ROOT / "analysis/setup/os-packages", "--for", "kernels", "kernels"],
        env={**os.environ, "PATH": str(tmp_path), "OS_PACKAGES": "no"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert re.search(r"make kernels lacks bc \(.*\), bison \(.*\), pahole \(.*\); OS_P", said)
