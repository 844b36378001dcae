"""What the benchmarks against QEMU have in common: two processes with their monitors, a place between them, a table of medians."""

import contextlib
import json
import pathlib
import socket
import statistics
import subprocess
import time


class Monitor:
    def __init__(self, path):
        deadline = time.monotonic() + 30
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.file = self.socket.makefile("rwb")
        self.file.readline()
        self.events = {}
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        message = {"execute": command, "arguments": arguments}
        self.file.write(json.dumps(message).encode() + b"\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            stamp = answer["timestamp"]
            time_of = stamp["seconds"] * 1000 + stamp["microseconds"] / 1000
            self.events[answer["event"]] = time_of
            if answer["event"] == "MIGRATION":
                self.events[answer["data"]["status"]] = time_of


@contextlib.contextmanager
def machines(command, directory):
    """Starts a source and a destination, each with the line that `command` makes of its monitor's path and whether it waits for a
    guest. Gives both monitors and both processes, which end with this."""
    paths = [f"{directory}/{side}" for side in ("source", "destination")]
    processes = []
    try:
        for path, incoming in zip(paths, (False, True)):
            line = command(path, incoming)
            processes.append(subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        yield [Monitor(path) for path in paths], processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for path in paths + [f"{directory}/migration"]:
            pathlib.Path(path).unlink(missing_ok=True)


def place(transport, directory):
    """Where a destination may listen."""
    if transport == "unix":
        return f"unix:{directory}/migration"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp:127.0.0.1:{probe.getsockname()[1]}"


def table(cases, kinds, names, found):
    """Prints medians with their ranges, and the ratio of the second kind to the first. `found` has the values of a case's key and a
    kind; `cases` are keys and names."""
    print("| case | machine | " + " | ".join(names) + " |")
    print("|" + "---|" * (len(names) + 2))
    for key, case in cases:
        median = {}
        for kind in kinds:
            values = found[key, kind]
            median[kind] = {name: statistics.median(values[name]) for name in names}
            cells = [f"{median[kind][name]:.4g} ({min(values[name]):.3g}..{max(values[name]):.3g})" for name in names]
            print(f"| {case} | {kind} | " + " | ".join(cells) + " |")
        base, other = (median[kind] for kind in kinds)
        ratio = [f"{other[n] / base[n]:.2f}" if base[n] else "-" for n in names]
        print(f"| {case} | ratio | " + " | ".join(ratio) + " |")
