# SPDX-License-Identifier: GPL-2.0-only
"""JupyterLab on the explorer, its kernel unprivileged, on the loopback address only.

Started by an ordinary user it simply runs as that user, and the probe is privileged by ``sudo -n``
or by the file capabilities that it may have. Started by root it gives root up first: JupyterLab
and its kernels run as the user behind sudo, or, on a machine that has none but root, as a user
number that nothing else uses. What remains privileged is a copy of the probe with file
capabilities, which only that user may execute and which goes when JupyterLab ends.

Root's checkout, or root's Python, may lie where no other user may look, such as in /root. Then
JupyterLab gets a view of the machine of its own (a mount namespace) in which that directory holds
nothing but these, read as they are.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from anonvma.base import paths
from anonvma.base.errors import SetupError
from anonvma.explore.live import CAPABILITIES

__all__ = ["NOTEBOOK", "User", "becoming", "command", "run", "user_of"]

NOTEBOOK = Path("notebooks") / "explore.ipynb"
_FREE = range(61184, 65520)  # what systemd hands out as dynamic users, and nobody else
_PREFIX = "lab-"
_OWNER = ".owner"


class User(NamedTuple):
    """Whom JupyterLab runs as."""

    uid: int
    gid: int
    name: str
    home: Path | None
    """None for one that has no home: it gets a directory that goes with JupyterLab."""


def user_of(environment: Mapping[str, str], name: str | None = None) -> User:
    """Return whom root becomes: the one named, the one behind sudo, or one nobody else is.

    Raises
    ------
    SetupError
        When there is no such user, or it is root.
    """
    if name is None and environment.get("SUDO_UID", "0") != "0":
        name = environment.get("SUDO_USER")
    if name is not None:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise SetupError(f"there is no user {name!r} on this machine.") from None
        if found.pw_uid == 0:
            raise SetupError(f"{name!r} is root: name an ordinary user.")
        return User(found.pw_uid, found.pw_gid, name, Path(found.pw_dir))
    taken = {each.pw_uid for each in pwd.getpwall()} | {each.gr_gid for each in grp.getgrall()}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            taken.add(path.stat().st_uid)
    free = next(number for number in _FREE if number not in taken)
    return User(free, free, "anonvma-lab", None)


# Until it handles Ctrl-C itself, that ends it without a traceback.
_START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "from jupyterlab.labapp import main; sys.exit(main())"
)


def command(notebook: Path, browser: bool, port: int, more: Sequence[str] = ()) -> list[str]:
    """Return the words that start JupyterLab; what it listens on comes last, and so counts."""
    words = [
        sys.executable,
        "-c",
        _START,
        *([] if browser else ["--no-browser"]),
        *more,
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.allow_remote_access=False",
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={paths.root()}",
        # What it prints, and a browser elsewhere is given, opens the notebook, not the launcher.
        f"--LabApp.default_url=/lab/tree/{urllib.parse.quote(str(notebook))}",
        # Its kernels' own sockets, too.
        "--KernelManager.ip=127.0.0.1",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    return [*words, str(paths.root() / notebook)]


def run(
    notebook: Path = NOTEBOOK,
    *,
    browser: bool = True,
    port: int = 8888,
    user: str | None = None,
    words: Sequence[str] = (),
) -> int:
    """Run JupyterLab until it ends, and return its exit status.

    Parameters
    ----------
    notebook : path
        What it opens, in the checkout.
    browser : bool
        Whether to open a browser.
    port : int
        If it is taken, the next one that is free.
    user : str, optional
        Whom root becomes.
    words : sequence of str
        More options of JupyterLab.

    Raises
    ------
    SetupError
        When root cannot be given up, or that user cannot read the checkout.
    """
    argv = command(notebook, browser, port, words)
    if os.geteuid() != 0:
        if user is not None:
            raise SetupError("only root can become another user: leave --user out.")
        return _until_its_end(argv, dict(os.environ))
    with _given_up(user_of(os.environ, user), notebook) as (become, environment):
        return _until_its_end([*become, *argv], environment)


@contextmanager
def _given_up(user: User, notebook: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Prepare what an unprivileged JupyterLab needs; the words that give root up, and its world."""
    with _directory() as directory:
        become = becoming(directory, user, notebook)
        home = user.home or _home(directory / "home", user)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SUDO_", "JUPYTER_", "XDG_", "IPYTHON"))
        }
        environment |= {
            "HOME": str(home),
            "USER": user.name,
            "LOGNAME": user.name,
            "ANONVMA_BUILD": str(_programs(directory / "build", user)),
        }
        environment.pop("TMPDIR", None)
        if user.home is not None:
            yield become, environment
            return
        runs = _private(directory / "runs", user)
        environment |= {"SHELL": "/bin/sh", "ANONVMA_RUNS": str(runs)}
        print(
            f"anonvma: JupyterLab runs as user number {user.uid}, who cannot change this checkout; "
            f"what is exported or collected goes to {paths.runs()} when it ends.",
            file=sys.stderr,
        )
        try:
            yield become, environment
        finally:
            _keep(runs)


def _keep(made: Path) -> None:
    """Give root what was made by the user that is gone, and put it where it belongs."""
    for path in sorted(made.iterdir()):
        for inner in (path, *path.rglob("*")):
            os.chown(inner, 0, 0, follow_symlinks=False)
        paths.runs().mkdir(parents=True, exist_ok=True)
        place, number = paths.runs() / path.name, 1
        while place.exists() or place.is_symlink():
            number += 1
            place = paths.runs() / f"{path.name}-{number}"
        shutil.move(path, place)
        print(f"anonvma: kept {place}", file=sys.stderr)


def becoming(directory: Path, user: User, notebook: Path = NOTEBOOK) -> list[str]:
    """Return the words that, before a command, make it the user's, with our Python in sight.

    Parameters
    ----------
    directory : Path
        For what is mounted.
    user : User
    notebook : Path
        That the user has to be able to read.

    Raises
    ------
    SetupError
        When root cannot be given up, or Python or the notebook not be brought into sight.
    """
    if shutil.which("setpriv") is None:
        raise SetupError("setpriv is missing, which gives root up: install util-linux.")
    groups = ["--init-groups"] if user.home else ["--clear-groups"]
    words = ["setpriv", "--reuid", str(user.uid), "--regid", str(user.gid), *groups]
    # setpriv itself still has what it needs to start anything; the shell after it has not.
    words += ["--inh-caps=-all", "--", "sh", "-c", 'exec "$@"', "sh"]
    return [*_in_sight(directory, words, user, notebook), *words]


# Each directory that hides something, then what it is to show, as words; "--" ends both.
_SHOW = """
set -e
place=$1 && shift
number=0
for path in "$@"; do
	[ "$path" = -- ] && break
	case $path in hidden:*) continue ;; esac
	number=$((number + 1))
	mkdir "$place/$number"
	mount --bind "$path" "$place/$number"
done
number=0
while [ "$1" != -- ]; do
	case $1 in
	hidden:*) mount -t tmpfs -o mode=755 tmpfs "${1#hidden:}" ;;
	*)
		number=$((number + 1))
		mkdir -p "$1"
		mount --bind "$place/$number" "$1"
		;;
	esac
	shift
done
shift
exec "$@"
"""


def _in_sight(directory: Path, become: list[str], user: User, notebook: Path) -> list[str]:
    """Return the words that bring Python and the checkout into the user's sight; none if they are.

    Raises
    ------
    SetupError
        When they cannot be brought there.
    """
    refusal = _refusal([], become, notebook)
    if refusal is None:
        return []
    needed = [paths.root(), Path(sys.prefix), Path(sys.base_prefix)]
    needed += [Path(os.path.realpath(path)) for path in needed]
    hidden: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(needed):
        closed = [up for up in reversed(path.parents) if not up.stat().st_mode & 0o001]
        if closed:
            hidden.setdefault(closed[0], []).append(path)
    place = directory / "shown"
    place.mkdir(mode=0o700)
    words = [f"hidden:{up}" for up in hidden]
    # A directory inside another one that is shown comes with it.
    for shown in hidden.values():
        words += [str(p) for p in shown if not any(other in p.parents for other in shown)]
    show = ["unshare", "--mount", "sh", "-c", _SHOW, "sh", str(place), *words, "--"]
    again = _refusal(show, become, notebook)
    if not hidden or again is not None:
        raise SetupError(
            f"JupyterLab is not run as root, and user {user.name} ({user.uid}) cannot use this "
            f"checkout ({again or refusal}): move it, and the Python it was made with, to where "
            "other users can read them, such as /opt, or name one who can with --user."
        )
    for left in place.iterdir():  # the mounts went with the namespace, the directories did not
        left.rmdir()
    return show


def _refusal(show: list[str], become: list[str], notebook: Path) -> str | None:
    """Return why the user cannot run our Python and read the notebook, or None if that works."""
    script = "import sys, anonvma.explore.explorer; open(sys.argv[1]).close()"
    python = [sys.executable, "-c", script, str(paths.root() / notebook)]
    done = subprocess.run([*show, *become, *python], capture_output=True, cwd="/", check=False)
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return said[-1]


def _private(path: Path, user: User) -> Path:
    path.mkdir(mode=0o700)
    os.chown(path, user.uid, user.gid)
    return path


def _home(path: Path, user: User) -> Path:
    """Make a home for a user that has none, whose JupyterLab asks nothing before it begins."""
    _private(path, user)
    settings = Path(".jupyter", "lab", "user-settings", "@jupyterlab", "apputils-extension")
    (path / settings).mkdir(parents=True)
    (path / settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}\n')
    for made in (path / ".jupyter").rglob("*"):
        os.chown(made, user.uid, user.gid)
    os.chown(path / ".jupyter", user.uid, user.gid)
    return path


def _programs(directory: Path, user: User) -> Path:
    """Lay out the programs, the probe with its capabilities for this user alone."""
    directory.mkdir(mode=0o755)
    for name in ("vmload", "specimens", "guest-init"):
        with suppress(SetupError):
            (directory / name).symlink_to(paths.program(name))
    probe = directory / "vmaprobe"
    try:
        shutil.copyfile(paths.program("vmaprobe"), probe)
    except SetupError as error:
        print(f"anonvma: {error} Until then there is no live view.", file=sys.stderr)
        return directory
    # Executed by the group, which for a user without a name is nobody else's.
    os.chown(probe, 0, user.gid)
    probe.chmod(0o750)
    if os.statvfs(probe).f_flag & os.ST_NOSUID:
        why = f"{directory.parent.parent} is mounted nosuid, so capabilities do not count there"
    elif (setcap := shutil.which("setcap", path=f"{os.defpath}:/usr/sbin:/sbin")) is None:
        why = "setcap is missing (package libcap2-bin)"
    else:
        done = subprocess.run([setcap, CAPABILITIES, probe], capture_output=True, check=False)
        why = done.stderr.decode(errors="replace").strip() if done.returncode else ""
    if why:
        print(f"anonvma: the live view will need sudo, for {why}.", file=sys.stderr)
    return directory


# ---- a directory that goes with us ----


@contextmanager
def _directory() -> Iterator[Path]:
    """Make a directory beside the built programs, and remove those of others that were killed."""
    build = paths.build()
    try:
        build.mkdir(exist_ok=True)
        for stale in build.glob(f"{_PREFIX}*"):
            if not _has_owner(stale):
                shutil.rmtree(stale, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=build))
        path.chmod(0o711)
    except OSError as error:
        raise SetupError(f"cannot write to {build}: {error.strerror}.") from None
    with (path / _OWNER).open("wb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _has_owner(path: Path) -> bool:
    try:
        with (path / _OWNER).open("rb") as owner:
            fcntl.flock(owner, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _until_its_end(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command; whoever asks us to end asks it, and we end when it has."""
    process = subprocess.Popen(argv, env=environment, cwd="/")

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGHUP)}
    # Ctrl-C reaches it from the terminal; it asks whether that was meant.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Asked to end it ends by that signal, as it should.
    return 0 if status in (0, -signal.SIGTERM) else 130 if status == -signal.SIGINT else 1
