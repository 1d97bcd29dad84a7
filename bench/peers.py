"""The peers: which versions, where they are, how they get there."""

import json
import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class Peer(NamedTuple):
    """`program` is below the folder of the peers, or a name in the PATH."""

    source: str  # npm, pypi, deb (unpacked), apt (installed) or system (to be there)
    package: str
    program: str
    pin: str = ""


PEERS = {
    "node": Peer("system", "nodejs", "node"),
    "pm2": Peer("npm", "pm2", "npm/node_modules/.bin/pm2", "@7.0.4"),
    "supervisord": Peer("pypi", "supervisor", "python/bin/supervisord", "==4.3.0"),
    "circus": Peer("pypi", "circus", "python/bin/circusd", "==0.19.0"),
    "gunicorn": Peer("pypi", "gunicorn", "python/bin/gunicorn", "==27.0.1"),
    "runit": Peer("deb", "runit", "debian/usr/bin/runsvdir", "=2.1.2-54"),
    # Its programs look for each other in /usr/bin.
    "s6": Peer("apt", "s6", "s6-svscan", "=2.11.3.2-1"),
    "redis": Peer("system", "redis-server", "redis-server"),
    "wrk": Peer("system", "wrk", "wrk"),
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
            return f"{name}: not installed: apt-get install {PEERS[name].package}"
        return f"{name}: not installed: scripts/bench --install"

    def environment(self):
        """Variables with which programs of unpacked packages find each other."""
        root = self.folder / "debian" / "usr"
        return {"PATH": f"{root / 'bin'}:{root / 'sbin'}:{os.environ.get('PATH', '')}"}

    def versions(self, names):
        """The versions of these, as far as they are there."""
        return {name: self.version(name) for name in names if self.missing(name) is None}

    def version(self, name):
        """What is installed, which may not be what is pinned by now."""
        source, package = PEERS[name].source, PEERS[name].package
        if source == "npm":
            return json.loads((self.folder / "npm" / "node_modules" / package / "package.json").read_text())["version"]
        if source == "pypi":
            places = map(str, self.folder.glob("python/lib/*/site-packages"))
            return next(metadata.distributions(name=package, path=list(places))).version
        if source == "deb":
            [archive] = self.folder.glob(f"archives/{package}_*.deb")
            return archive.name.split("_")[1]
        return system_version(package, self.program(name))


def system_version(package, program):
    """The version of a package, or what its program says."""
    for command in (["dpkg-query", "-W", "-f", "${Version}", package], [program, "--version"]):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            return result.stdout.strip()
    return "of an unknown version"


def install(folder):
    """Installs those that are pinned into `folder`, and as packages where it must be."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = {
        source: [peer.package + peer.pin for peer in PEERS.values() if peer.source == source]
        for source in ("npm", "pypi", "deb", "apt")
    }
    run = lambda *command, cwd=folder: subprocess.run(command, cwd=cwd, check=True)

    (folder / "npm").mkdir(exist_ok=True)
    run("npm", "install", "--prefix", "npm", "--no-audit", "--no-fund", "--loglevel=error", *packages["npm"])

    run("python3", "-m", "venv", "python")
    # Circus imports a module that newer setuptools do not have any more.
    run("python/bin/pip", "install", "--quiet", "--disable-pip-version-check", "setuptools<81", *packages["pypi"])

    archives = folder / "archives"
    for old in (archives, folder / "debian"):
        shutil.rmtree(old, ignore_errors=True)
    archives.mkdir()
    run("apt-get", "download", "-qq", *packages["deb"], cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        run("dpkg-deb", "-x", str(archive), "debian")

    if shutil.which(PEERS["s6"].program) is None:
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        run(*as_root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages["apt"])
