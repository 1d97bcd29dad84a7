"""The peers: which versions, where they are, how they get there."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Peer(NamedTuple):
    """`program` is below the folder of the peers, or a name in the PATH."""

    source: str  # npm, pypi, deb (unpacked), apt (installed) or system (to be there)
    packages: tuple
    program: str
    version: str = ""


PEERS = {
    "node": Peer("system", ("nodejs",), "node"),
    "pm2": Peer("npm", ("pm2@7.0.4",), "npm/node_modules/.bin/pm2", "7.0.4"),
    "supervisord": Peer("pypi", ("supervisor==4.3.0",), "python/bin/supervisord", "4.3.0"),
    "circus": Peer("pypi", ("circus==0.19.0",), "python/bin/circusd", "0.19.0"),
    "gunicorn": Peer("pypi", ("gunicorn==27.0.1",), "python/bin/gunicorn", "27.0.1"),
    "runit": Peer("deb", ("runit=2.1.2-54",), "debian/usr/bin/runsvdir", "2.1.2-54"),
    # Its programs look for each other in /usr/bin.
    "s6": Peer("apt", ("s6=2.11.3.2-1",), "s6-svscan"),
    "redis": Peer("system", ("redis-server",), "redis-server"),
    "wrk": Peer("system", ("wrk",), "wrk"),
}


class Peers:
    """Those that are installed in `folder`, and wanted."""

    def __init__(self, folder, wanted):
        self.folder = folder
        self.wanted = set(wanted) | {"wrk"}

    def program(self, name):
        """Where a peer's main program is, whether or not it is there."""
        peer = PEERS[name]
        return shutil.which(peer.program) if peer.source in ("apt", "system") else str(self.folder / peer.program)

    def beside(self, name, program):
        """Where another program of the same peer is."""
        return str(Path(self.program(name)).with_name(program))

    def missing(self, name):
        """Why a peer cannot be measured, or None."""
        program = self.program(name)
        if name not in self.wanted:
            return f"{name}: not in --peers"
        if program and os.access(program, os.X_OK):
            return None
        if PEERS[name].source == "system":
            return f"{name}: not installed: apt-get install {' '.join(PEERS[name].packages)}"
        return f"{name}: not installed: scripts/bench --install"

    def environment(self):
        """Variables with which programs of unpacked packages find each other."""
        root = self.folder / "debian" / "usr"
        return {"PATH": f"{root / 'bin'}:{root / 'sbin'}:{os.environ.get('PATH', '')}"}

    def versions(self, names):
        """The versions of these, as far as they are there."""
        found = {}
        for name in names:
            if self.missing(name) is None:
                found[name] = PEERS[name].version or installed_version(PEERS[name].packages[0], self.program(name))
        return found


def installed_version(package, program):
    """The version of a package, or what its program says."""
    package = package.split("=")[0]
    for command in (["dpkg-query", "-W", "-f", "${Version}", package], [program, "--version"]):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            return result.stdout.strip()
    return "of an unknown version"


def install(folder):
    """Installs those that are pinned into `folder`, and as packages where it must be."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = {
        source: [package for peer in PEERS.values() if peer.source == source for package in peer.packages]
        for source in ("npm", "pypi", "deb", "apt")
    }
    run = lambda *command, cwd=folder: subprocess.run(command, cwd=cwd, check=True)

    (folder / "npm").mkdir(exist_ok=True)
    run("npm", "install", "--prefix", "npm", "--no-audit", "--no-fund", "--loglevel=error", *packages["npm"])

    run("python3", "-m", "venv", "python")
    # Circus imports a module that newer setuptools do not have any more.
    run("python/bin/pip", "install", "--quiet", "--disable-pip-version-check", "setuptools<81", *packages["pypi"])

    archives = folder / "archives"
    archives.mkdir(exist_ok=True)
    run("apt-get", "download", "-qq", *packages["deb"], cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        run("dpkg-deb", "-x", str(archive), "debian")

    if shutil.which(PEERS["s6"].program) is None:
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        run(*as_root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages["apt"])
