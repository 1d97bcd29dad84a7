"""Tells the file EVENTS when a worker begins, as c/worker.c does."""

import os
import time


def post_fork(server, worker):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(f"{os.getpid():10} {time.monotonic_ns():20}\n")
