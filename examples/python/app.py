"""A WSGI application for gunicorn."""

import os


def application(environ, start_response):
    body = f"hello from slot {os.environ['SUPERVISOR_INSTANCE']}, pid {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
