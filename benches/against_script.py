#!/usr/bin/env python3
"""Times `vmstate inspect --format json` against QEMU's own analysis script on the same streams, in one run.

usage: against_script.py SCRIPT VMSTATE TIME_INSPECT STREAM...

  SCRIPT        scripts/analyze-migration.py of a QEMU source tree (not part of this repository)
  VMSTATE       the release build of the command
  TIME_INSPECT  the release build of the example of that name (crates/vmstate-io/examples)
  STREAM        recorded main channels, not compressed

Streams that the script cannot read are left out. Prints the sum over all others, as whole processes (alternating, the
median of five runs) and in process (the shortest of three and fifteen runs), and the ratios.
"""
import contextlib
import importlib.util
import io
import statistics
import subprocess
import sys
import time

RUNS = 5


def whole(command):
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def load(script):
    spec = importlib.util.spec_from_file_location("analysis", script)
    module = importlib.util.module_from_spec(spec)
    argv, sys.argv = sys.argv, [script, "-f", sys.argv[4], "-d", "desc"]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(module)
    finally:
        sys.argv = argv
    return module


def in_process(module, stream):
    import json

    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        dump = module.MigrationDump(stream)
        dump.read(dump_memory=False)
        module.JSONEncoder(indent=4, separators=(",", ": ")).encode(dump.getDict()) if hasattr(
            module, "JSONEncoder"
        ) else json.dumps(dump.getDict(), default=str)
        best = min(best, time.perf_counter() - start)
    return best


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    script, vmstate, timer, streams = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    readable = []
    for stream in streams:
        run = subprocess.run([sys.executable, script, "-f", stream], capture_output=True)
        (readable.append if run.returncode == 0 else lambda s: print(f"script cannot read {s}"))(stream)
    if not readable:
        sys.exit("the script reads none of these")
    theirs, ours = 0.0, 0.0
    for stream in readable:
        a, b = [], []
        for _ in range(RUNS):
            a.append(whole([sys.executable, script, "-f", stream]))
            b.append(whole([vmstate, "inspect", "--format", "json", stream]))
        theirs += statistics.median(a)
        ours += statistics.median(b)
    print(f"whole process, {len(readable)} streams: script {theirs:.3f} s, vmstate {ours:.3f} s, {theirs / ours:.1f} times")
    module = load(script)
    theirs = sum(in_process(module, stream) for stream in readable)
    lines = subprocess.run([timer, *readable], capture_output=True, check=True, text=True).stdout.splitlines()
    ours = sum(int(line.split()[0]) for line in lines) / 1e6
    print(f"in process,    {len(readable)} streams: script {theirs:.3f} s, vmstate {ours:.4f} s, {theirs / ours:.1f} times")


if __name__ == "__main__":
    main()
