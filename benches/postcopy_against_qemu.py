#!/usr/bin/env python3
"""Moves a guest that reads its memory at random in postcopy, from QEMU to QEMU and from `vmstate machine` to `vmstate machine`,
turn about, and compares.

usage: postcopy_against_qemu.py QEMU VMSTATE [--rounds N] [--region MIB]

QEMU is a command that runs qemu-system-riscv64 11.1, VMSTATE the release binary. No page of the region is zero. The guest
goes as soon as the migration has begun, with next to nothing sent before. Prints a table of medians: latency of page faults
(p50, p99) from the distribution that both destinations keep with `postcopy-blocktime`, which has one bucket for each power of two
of microseconds, so that values within a bucket are by interpolation; faults; time stopped from the source's STOP event to the
destination's RESUME event; total time from STOP to the source's `completed`; and the ratios of ours to QEMU's.
"""

import argparse
import pathlib
import socket
import statistics
import struct
import subprocess
import tempfile
import time

from migrate_against_qemu import Monitor

ZERO, S0, S1, S2, S3, S4, S5, T0, T1, T2, T3 = 0, 8, 9, 18, 19, 20, 21, 5, 6, 7, 28


def i_type(opcode, funct3, rd, rs1, value):
    return (value & 0xFFF) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def addi(rd, rs1, value):
    return i_type(0x13, 0, rd, rs1, value)


def slli(rd, rs1, by):
    return i_type(0x13, 1, rd, rs1, by)


def srli(rd, rs1, by):
    return i_type(0x13, 5, rd, rs1, by)


def ld(rd, rs1, offset):
    return i_type(0x03, 3, rd, rs1, offset)


def r_type(funct3, rd, rs1, rs2):
    return rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | 0x33


def add(rd, rs1, rs2):
    return r_type(0, rd, rs1, rs2)


def xor(rd, rs1, rs2):
    return r_type(4, rd, rs1, rs2)


def and_(rd, rs1, rs2):
    return r_type(7, rd, rs1, rs2)


def sd(rs2, rs1, offset):
    return (offset >> 5) << 25 | rs2 << 20 | rs1 << 15 | 3 << 12 | (offset & 31) << 7 | 0x23


def branch(funct3, rs1, rs2, offset):
    bits = offset & 0x1FFF
    return (
        (bits >> 12) << 31
        | (bits >> 5 & 0x3F) << 25
        | rs2 << 20
        | rs1 << 15
        | funct3 << 12
        | (bits >> 1 & 0xF) << 8
        | (bits >> 11 & 1) << 7
        | 0x63
    )


def jump(offset):
    bits = offset & 0x1FFFFF
    return (bits >> 20) << 31 | (bits >> 1 & 0x3FF) << 21 | (bits >> 11 & 1) << 20 | (bits >> 12 & 0xFF) << 12 | 0x6F


def guest(pages):
    """Flat code: writes its number into each page of the region at 0x8800_0000, then reads pages at random for ever, as long as
    each holds what it should."""
    assert pages & (pages - 1) == 0
    begin = [
        addi(S0, ZERO, 0x88), slli(S0, S0, 24),
        addi(S1, ZERO, 1), slli(S1, S1, pages.bit_length() - 1), addi(S1, S1, -1),
        addi(S2, ZERO, 0),
    ]
    fill = [slli(T0, S2, 12), add(T0, T0, S0), addi(T1, S2, 1), sd(T1, T0, 0), addi(S2, S2, 1)]
    fill.append(branch(7, S1, S2, -4 * len(fill)))
    seed = [addi(S3, ZERO, 0x5A5), addi(S4, ZERO, 0x401), slli(S4, S4, 21), addi(T0, ZERO, 1), sd(T0, S4, 0)]
    read = [
        slli(T0, S3, 13), xor(S3, S3, T0), srli(T0, S3, 7), xor(S3, S3, T0), slli(T0, S3, 17), xor(S3, S3, T0),
        and_(T0, S3, S1), slli(T1, T0, 12), add(T1, T1, S0), ld(T2, T1, 0), addi(T3, T0, 1),
        branch(1, T2, T3, 16),
        addi(S5, S5, 1), sd(S5, S4, 8),
    ]
    read.append(jump(-4 * len(read)))
    wrong = [sd(T2, S4, 16), jump(0)]
    words = begin + fill + seed + read + wrong
    return struct.pack(f"<{len(words)}I", *words)


def command(kind, options, code, monitor, incoming):
    ram = options.region + 192
    if kind == "qemu":
        line = options.qemu.split() + [
            "-M", "spike", "-m", f"{ram}M", "-nodefaults", "-display", "none",
            "-bios", code, "-qmp", f"unix:{monitor},server=on,wait=off",
        ]
    else:
        line = [options.vmstate, "machine", "--quiet", "--ram", f"{ram}M", "--guest", code, "--qmp", monitor]
    return line + (["-incoming" if kind == "qemu" else "--incoming", "defer"] if incoming else [])


def percentile(distribution, share):
    """In µs: where in its bucket the fault stands that so many are not slower than."""
    wanted = sum(distribution) * share
    seen = 0
    for number, count in enumerate(distribution):
        if count and seen + count >= wanted:
            return (1 << number) * (1 + (wanted - seen) / count)
        seen += count
    return float("nan")


def migrate(kind, options, code, transport, preempt, directory):
    paths = [f"{directory}/{side}" for side in ("source", "destination")]
    processes = []
    try:
        for path, incoming in zip(paths, (False, True)):
            line = command(kind, options, code, path, incoming)
            processes.append(subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        source, destination = map(Monitor, paths)
        # Until memory is filled.
        time.sleep(options.settle)
        if transport == "unix":
            uri = f"unix:{directory}/migration"
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                uri = f"tcp:127.0.0.1:{probe.getsockname()[1]}"
        names = ["postcopy-ram", "events"] + (["postcopy-preempt"] if preempt else [])
        for machine, more in ((source, []), (destination, ["postcopy-blocktime"])):
            on = [{"capability": name, "state": True} for name in names + more]
            machine.run("migrate-set-capabilities", capabilities=on)
        source.run("migrate-set-parameters", **{"max-bandwidth": 1 << 20, "max-postcopy-bandwidth": 0})
        destination.run("migrate-incoming", uri=uri)
        source.run("migrate", uri=uri)
        while source.run("query-migrate").get("status") in (None, "setup"):
            time.sleep(0.001)
        source.run("migrate-start-postcopy")
        deadline = time.monotonic() + 120
        for machine in (source, destination):
            while True:
                info = machine.run("query-migrate")
                if info.get("status") in ("completed", "failed") or time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            if info.get("status") != "completed":
                raise RuntimeError(f"{kind}: {info.get('status')} {info.get('error-desc')}")
            machine.run("query-status")
        distribution = info["postcopy-latency-dist"]
        stop = source.events["STOP"]
        return {
            "p50 µs": percentile(distribution, 0.5),
            "p99 µs": percentile(distribution, 0.99),
            "faults": sum(distribution),
            "stopped ms": destination.events["RESUME"] - stop,
            # The last MIGRATION event is the one of the end.
            "total ms": source.events["MIGRATION"] - stop,
        }
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for path in paths + [f"{directory}/migration"]:
            pathlib.Path(path).unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qemu")
    parser.add_argument("vmstate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--region", type=int, default=1024, help="MiB, a power of two")
    parser.add_argument("--settle", type=float, default=6.0, help="seconds until the guest has filled its memory")
    options = parser.parse_args()
    cases = [(transport, preempt) for transport in ("unix", "tcp") for preempt in (False, True)]
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        code = f"{directory}/guest.bin"
        pathlib.Path(code).write_bytes(guest(options.region << 8))
        for _ in range(options.rounds):
            for transport, preempt in cases:
                for kind in ("qemu", "vmstate"):
                    result = migrate(kind, options, code, transport, preempt, directory)
                    for name, value in result.items():
                        found.setdefault((transport, preempt, kind), {}).setdefault(name, []).append(value)
    names = ["p50 µs", "p99 µs", "faults", "stopped ms", "total ms"]
    print("| case | machine | " + " | ".join(names) + " |")
    print("|" + "---|" * (len(names) + 2))
    for transport, preempt in cases:
        case = f"{transport}, {'preempt' if preempt else 'plain'}"
        median = {}
        for kind in ("qemu", "vmstate"):
            values = found[transport, preempt, kind]
            median[kind] = {name: statistics.median(values[name]) for name in names}
            cells = [f"{median[kind][name]:.4g} ({min(values[name]):.3g}..{max(values[name]):.3g})" for name in names]
            print(f"| {case} | {kind} | " + " | ".join(cells) + " |")
        ratio = [f"{median['vmstate'][n] / median['qemu'][n]:.2f}" if median["qemu"][n] else "-" for n in names]
        print(f"| {case} | ratio | " + " | ".join(ratio) + " |")


if __name__ == "__main__":
    main()
