# SPDX-License-Identifier: GPL-2.0-only
"""analysis/setup's fetch-deb and stock-kernel: where packages are found, and what is in them.

Without a network: real .debs, handed out by an apt of the test's own, which knows two sets of
suites as apt does that is pointed at other lists. With one: the real apt and Debian's own kernels.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import guests
import pytest

from anonvma.target import kernel_image

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "analysis/setup"

APT = '''\
#!/usr/bin/python3
"""apt-get and apt-cache of a machine whose own suites are in own/, and all others in other/."""
import hashlib, pathlib, shutil, subprocess, sys

root = pathlib.Path({root!r})
words, options = [], {{}}
rest = iter(sys.argv[1:])
for word in rest:
    if word == "-o":
        name, _, value = next(rest).partition("=")
        options[name] = value
    elif not word.startswith("-"):
        words.append(word)
private = "Dir::State::Lists" in options
suites = [root / "other"] if private else [root / "own"]
packages = {{}}
for suite in suites:
    for deb in suite.glob("*.deb"):
        packages[deb.name.partition("_")[0]] = deb
with (root / "asked").open("a") as log:
    whose = "private" if private else "own"
    print(*words, whose, options.get("APT::Architecture", ""), file=log)
match words:
    case ["indextargets", *_]:
        print("Debian main http://mirror.example/debian/ oldname")
        print("Debian main http://mirror.example/debian-security/ oldname-security")
        print("Other main http://elsewhere.example/ oldname")
    case ["update"]:
        lists = pathlib.Path(options["Dir::State::Lists"])
        sources = pathlib.Path(options["Dir::Etc::SourceList"]).read_text()
        (root / "sources").write_text(sources)
        if (root / "other").exists():
            release = "Suite: stable\\nCodename: newname\\n"
            (lists / "mirror_dists_stable_InRelease").write_text(release)
            (lists / "mirror_dists_stable_main_Packages").touch()
    case ["pkgnames"]:
        print(*packages, "linux-image-9.9.9-mentioned-only", sep="\\n")
    case ["show", *names]:
        for name in names:
            if name in packages:
                print("Package:", name)
                print("SHA256:", hashlib.sha256(packages[name].read_bytes()).hexdigest())
        sys.exit(0 if set(names) <= set(packages) else 100)
    case ["download", name]:
        if (root / "broken").exists():
            sys.exit("E: Failed to fetch it")
        shutil.copy(packages[name], ".")
    case _:
        sys.exit("E: what is " + " ".join(words))
'''


class Debian:
    """A machine with apt, and what its mirror has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        for name in ("apt-get", "apt-cache"):
            (root / "bin" / name).write_text(APT.format(root=str(root)))
            (root / "bin" / name).chmod(0o755)
        for name in ("own", "other", "cache"):
            (root / name).mkdir()

    def has(self, suites: str, name: str, depends: str = "", **files: str) -> None:
        """Have a package in the suites, with files whose paths have __ for each slash."""
        tree = self.root / "trees" / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.invalid>\n"
            f"{depends and f'Depends: {depends}'}\nDescription: d\n".replace("\n\n", "\n")
        )
        for path, content in files.items():
            file = tree / path.replace("__", "/").replace("_at_", name.partition("-amd64")[0])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        deb = self.root / suites / f"{name}_1_all.deb"
        subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, capture_output=True)

    def run(self, script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts on it."""
        env = {
            **os.environ,
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(self.root / "cache"),
        }
        return subprocess.run(
            [SETUP / script, *words], env=env, capture_output=True, text=True, timeout=60
        )

    def asked(self, what: str) -> int:
        """How often apt was asked for something."""
        return (self.root / "asked").read_text().count(what)


@pytest.fixture
def debian(tmp_path: Path) -> Debian:
    return Debian(tmp_path)


# ---- fetch-deb ----


def test_the_newest_by_version_of_what_the_system_knows(debian: Debian, tmp_path: Path) -> None:
    for name in ("tool-6.1.0-9", "tool-6.1.0-10", "tool-6.1.0-10-extra"):
        debian.has("own", name)
    debian.has("other", "tool-6.1.0-11")
    done = debian.run("fetch-deb", r"tool-6\.1\.0-[0-9]+", tmp_path / "to")
    assert done.stdout == f"{tmp_path}/to/tool-6.1.0-10_1_all.deb\n", done.stderr
    assert Path(done.stdout.strip()).exists()
    done = debian.run("fetch-deb", "--everywhere", r"tool-6\.1\.0-[0-9]+", tmp_path / "to")
    assert done.stdout == f"{tmp_path}/to/tool-6.1.0-11_1_all.deb\n", done.stderr


def test_other_suites_of_the_same_mirror(debian: Debian, tmp_path: Path) -> None:
    debian.has("other", "tool-7.3")
    done = debian.run("fetch-deb", r"tool-7\.3", tmp_path / "to")
    assert done.returncode == 0, done.stderr
    sources = (tmp_path / "sources").read_text().splitlines()
    assert {line.split()[-2] for line in sources} == {
        "oldname", "oldname-backports", "newname", "newname-backports", "oldstable", "testing",
        "unstable",
    }  # fmt: skip
    # Of this system's own mirror, and only that of Debian's archive.
    assert all("http://mirror.example/debian" in line for line in sources)
    assert not any("elsewhere" in line for line in sources)


def test_another_distribution_by_the_keys_that_this_one_has(debian: Debian, tmp_path: Path) -> None:
    key = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    debian.has("own", "ubuntu-keyring", **{key.replace("/", "__"): "its keys"})
    template = "usr__share__python-apt__templates__Ubuntu.info"
    words = ["dpkg", "--print-architecture"]
    here = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    uri = f"BaseURI: https://other.example/\nBaseURI-{here}: https://archive.example/ubuntu\n"
    debian.has("own", "python-apt-common", **{template: uri})
    debian.has("own", "tool-6.8")
    debian.has("other", "tool-6.8-generic")
    done = debian.run("fetch-deb", "--from", "ubuntu", r"tool-6\.8.*", tmp_path / "to")
    assert done.stdout == f"{tmp_path}/to/tool-6.8-generic_1_all.deb\n", done.stderr
    sources = (tmp_path / "sources").read_text().splitlines()
    assert {line.split()[-2] for line in sources} >= {"noble", "noble-updates", "devel"}
    for line in sources:
        assert " http://archive.example/ubuntu " in line
        keys = Path(line.partition("signed-by=")[2].partition("]")[0])
        assert keys.name == "ubuntu-archive-keyring.gpg" and keys.read_text() == "its keys"
    done = debian.run("fetch-deb", "--from", "suse", "tool", tmp_path / "to")
    assert done.returncode == 1
    assert "but those of debian and of ubuntu" in done.stderr


def test_what_is_in_the_cache_is_not_fetched_again(debian: Debian, tmp_path: Path) -> None:
    debian.has("other", "tool-7.3")
    for _ in range(2):
        assert debian.run("fetch-deb", r"tool-7\.3", tmp_path / "to").returncode == 0
    assert debian.asked("download tool-7.3") == 1
    assert debian.asked("update private") == 2  # once for stable's name, once for all
    (cached,) = (tmp_path / "cache").rglob("tool-7.3_1_all.deb")
    cached.unlink()
    cached.write_bytes(b"damaged")
    done = debian.run("fetch-deb", r"tool-7\.3", tmp_path / "again")
    assert subprocess.run(["dpkg-deb", "--info", done.stdout.strip()]).returncode == 0


def test_what_is_nowhere(debian: Debian, tmp_path: Path) -> None:
    done = debian.run("fetch-deb", r"tool-8\.0", tmp_path / "to")
    assert done.returncode == 1
    assert "anonvma: no suite within this system's reach has a package named like" in done.stderr
    # A name that is only mentioned by other packages is none.
    done = debian.run("fetch-deb", r"linux-image-9\.9.*", tmp_path / "to")
    assert done.returncode == 1


def test_a_machine_without_lists(debian: Debian, tmp_path: Path) -> None:
    (tmp_path / "other").rmdir()
    done = debian.run("fetch-deb", r"tool-8\.0", tmp_path / "to")
    assert done.returncode == 1
    assert "knows no mirror of Debian (or needs `apt-get update` first)" in done.stderr


def test_a_download_that_fails(debian: Debian, tmp_path: Path) -> None:
    debian.has("own", "tool-6.1")
    (tmp_path / "broken").touch()
    done = debian.run("fetch-deb", r"tool-6\.1", tmp_path / "to")
    assert done.returncode == 1
    assert "could not download tool-6.1; its words are above." in done.stderr
    assert not list((tmp_path / "to").glob("*"))


# ---- stock-kernel, by every layout that Debian has had ----


def architecture() -> str:
    return subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()


def test_image_and_modules_in_one_package(debian: Debian, tmp_path: Path) -> None:
    name = f"linux-image-6.1.0-9-{architecture()}"
    debian.has("own", name, "kmod, linux-base", boot__vmlinuz="K", lib__modules__X__kernel__m="M")
    done = debian.run("stock-kernel", "6.1", tmp_path / "stock")
    assert done.stdout == f"{tmp_path}/stock/6.1/vmlinuz\n", done.stderr
    assert Path(done.stdout.strip()).read_text() == "K"


@pytest.mark.parametrize("place", ["boot__vmlinuz-X", "usr__lib__modules__X__vmlinuz"])
def test_image_and_modules_in_packages_it_depends_on(
    debian: Debian, tmp_path: Path, place: str
) -> None:
    x = f"7.2.13+deb14-{architecture()}"
    depends = "dracut | initramfs-tools, " + ", ".join(
        f"linux-{part}-{x} (= 1)" for part in ("base", "binary", "modules")
    )
    debian.has("other", f"linux-image-{x}", depends)
    debian.has("other", f"linux-base-{x}")
    debian.has("other", f"linux-binary-{x}", **{place: "K"})
    debian.has("other", f"linux-modules-{x}", usr__lib__modules__X__kernel__m="M")
    image = tmp_path / "stock/7.2/vmlinuz"
    done = debian.run("stock-kernel", "--image-only", "7.2", tmp_path / "stock")
    assert (done.stdout, image.read_text()) == (f"{image}\n", "K"), done.stderr
    assert debian.asked("download linux-modules") == 0
    done = debian.run("stock-kernel", "7.2", tmp_path / "stock")  # with modules, now
    assert (done.stdout, image.read_text()) == (f"{image}\n", "K"), done.stderr
    assert list((tmp_path / "stock/7.2").rglob("kernel/m"))
    assert debian.asked("download linux-base") == 0
    done = debian.run("stock-kernel", "7.2", tmp_path / "stock")  # once
    assert debian.asked("download linux-modules") == 1


def test_a_kernel_of_another_architecture(debian: Debian, tmp_path: Path) -> None:
    other = "amd64" if architecture() == "arm64" else "arm64"
    for arch in (other, f"{other}-16k"):
        debian.has("other", f"linux-image-6.12.1-{arch}", boot__vmlinuz=arch)
        done = debian.run("stock-kernel", "--arch", arch, "6.12", tmp_path / "stock")
        assert done.stdout == f"{tmp_path}/stock/{arch}/6.12/vmlinuz\n", done.stderr
        assert Path(done.stdout.strip()).read_text() == arch
        assert debian.asked(f"download linux-image-6.12.1-{arch} private {other}\n") == 1
    done = debian.run("stock-kernel", "--arch", other, "ubuntu-6.8", tmp_path / "stock")
    assert done.returncode == 1 and f"not those of {other}." in done.stderr


def test_a_package_without_an_image(debian: Debian, tmp_path: Path) -> None:
    debian.has("own", f"linux-image-6.1.0-9-{architecture()}", "kmod")
    done = debian.run("stock-kernel", "6.1", tmp_path / "stock")
    assert done.returncode == 1
    assert done.stderr.endswith("holds a vmlinuz.\n")
    assert not list((tmp_path / "stock").glob("6.1*"))


def test_a_version_that_is_none(debian: Debian, tmp_path: Path) -> None:
    done = debian.run("stock-kernel", "six", tmp_path / "stock")
    assert done.returncode == 1
    assert done.stderr == (
        "anonvma: six is not the beginning of a kernel's version, such as 6.12 or ubuntu-6.8.\n"
    )


def test_the_newest_there_is_and_the_newest_of_each_release(debian: Debian, tmp_path: Path) -> None:
    stock = tmp_path / "stock"

    def fetched(which: str) -> list[str]:
        done = debian.run("stock-kernel", "--image-only", which, stock)
        assert done.returncode == 0, done.stderr
        return [Path(line).parent.name for line in done.stdout.splitlines()]

    def appears(suites: str, release: str) -> None:
        image = {f"boot__vmlinuz-{release}-{architecture()}": release}
        debian.has(suites, f"linux-image-{release}-{architecture()}", **image)

    for release in ("6.1.0-9", "7.3.4+deb13", "7.3.3+deb14"):
        appears("other", release)
    assert fetched("all") == ["6.1", "7.3"]
    assert (stock / "7.3/vmlinuz").read_text() == "7.3.4+deb13"
    asked = debian.asked("download")
    appears("other", "7.3.4+deb14")  # the same version from another suite is no other kernel
    assert fetched("newest") == ["7.3"] and debian.asked("download") == asked
    appears("other", "7.3.10+deb13")
    assert fetched("newest") == ["7.3.10"]  # beside the earlier one
    appears("other", "7.4-rc5")  # what is no release
    assert fetched("newest") == ["7.3.10"]
    appears("other", "7.4.1+deb14")
    assert fetched("newest") == ["7.4"] == fetched("newest")
    assert (stock / "7.4/vmlinuz").read_text() == "7.4.1+deb14"


# ---- the real ones ----


def test_debians_own(tmp_path: Path) -> None:
    """One in a package of its own, and one of three packages; of that the image alone, 14 MB."""
    for version, options in (("6.12", {}), ("7.3", {"modules": False})):
        image = kernel_image.open_image(guests.stock(version, **options))
        assert image.release.startswith(version)
