"""Runs cases, each with a line that says what came of it, and starts servers that end with it."""

import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

from google.protobuf import unknown_fields

# So long may anything take.
DEADLINE = 20
# And so long a case.
CASE_DEADLINE = 60


class Process:
    """A server that prints where it listens, and ends when its input does."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = []
        reader = threading.Thread(target=lambda: line.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(DEADLINE)
        # `listening HOST:PORT`, or with words before it.
        if not line or "listening " not in line[0]:
            self.stop()
            raise AssertionError(f"{command[0]} does not say where it listens: {line}")
        self.address = line[0].split()[-1]

    def stop(self):
        self.process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        self.process.wait(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def unknown(message):
    """The numbers of the fields that are in an envelope and not in its `.proto` file."""
    parts = [message, *message.entry]
    if message.HasField("status"):
        parts.append(message.status)
    return [field.field_number for part in parts for field in unknown_fields.UnknownFieldSet(part)]


def equal(got, expected, what="the answer"):
    if got != expected:
        raise AssertionError(f"{what}: expected {short(expected)}, got {short(got)}")


def short(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "..."


def main(cases, arguments):
    """Runs the functions whose name has one of the parts in it; they are called with no argument."""
    names = [name for name in cases if not arguments.parts or any(part in name for part in arguments.parts)]
    if arguments.list:
        for name in names:
            print(name)
        return 0
    failed = not names
    for name in names:
        start = time.monotonic()
        message = None
        # A case that hangs says where, and ends this program: those that did not run have failed.
        faulthandler.dump_traceback_later(CASE_DEADLINE, exit=True)
        try:
            cases[name]()
        except Exception as error:  # A case may fail in any way, and the next one runs all the same.
            message = str(error) or repr(error)
            traceback.print_exc()
        faulthandler.cancel_dump_traceback_later()
        millis = round((time.monotonic() - start) * 1000)
        if message is None:
            print(f"case {name} ok {millis}", flush=True)
        else:
            failed = True
            message = message.replace("\n", "\\n")
            print(f"case {name} FAILED {millis} {message}", flush=True)
    return int(failed)
