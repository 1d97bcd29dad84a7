"""One item in processes of its own, of which nothing is left when it has ended
or its time is over: a namespace of pids, whose end the kernel makes the end of
all in it. Daemons that detach themselves are no exception."""

import os
import signal
import subprocess
import sys


def run(command, seconds):
    """Runs a command to its end; returns why it failed, or None."""
    # Without root, a namespace of users gives the right to make the others.
    users = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    namespace = ["unshare", *users, "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        # Even when this process is killed, nothing stays.
        code = subprocess.run(["setpriv", "--pdeathsig", "KILL", *namespace, *command], timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return f"not done within {seconds / 60:g} minutes"
    return f"it exited with {code}" if code else None


def become_init():
    """Splits the first process of the namespace: the parent only reaps, as
    whatever has lost its parent becomes its child. Returns in the child."""
    child = os.fork()
    while child:
        pid, status = os.wait()
        if pid == child:
            sys.stdout.flush()
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    # So that an interrupted item ends its contenders and removes their folders.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
