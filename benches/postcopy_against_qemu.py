#!/usr/bin/env python3
"""Moves a guest that reads its memory at random in postcopy, from QEMU to QEMU and from `vmstate machine` to `vmstate machine`,
turn about, and compares.

usage: postcopy_against_qemu.py QEMU VMSTATE [--rounds N] [--region MIB] [--cases TEXT]

QEMU is a command that runs qemu-system-riscv64 11.1, VMSTATE the release binary. No page of the region is zero. The guest
goes as soon as the migration has begun, with next to nothing sent before. Prints a table of medians and the ratios of ours to QEMU's:

- Latency of page faults (p50, p99), as the guest sees it: it reads `mtime` (10 MHz) before and behind each read of the region, and
  writes down every read of 10 microseconds or more. Those count that are the first of their page since the source stopped, so that a
  hart that stood still for another reason is not taken for one that waited for a page.
- The same from the distribution that both destinations keep with `postcopy-blocktime`, from a fault's arrival to the placing of its
  page. It has one bucket for each power of two of microseconds, so that values within a bucket are by interpolation.
- Time stopped, from the source's STOP event to the destination's RESUME event; total time, from STOP to the source's `completed`.
"""

import argparse
import pathlib
import struct
import tempfile
import time

from common import machines, place, table

ZERO, A0 = 0, 10
S0, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10 = 8, 9, 18, 19, 20, 21, 22, 23, 24, 25, 26
T0, T1, T2, T3, T4, T5, T6 = 5, 6, 7, 28, 29, 30, 31

# The guest's memory: what it tells, which reads were slow, when each page was read last; the region begins at 0x8800_0000.
STATUS, LOG, STAMPS = 0x8020_0000, 0x8100_0000, 0x8400_0000
ENTRY = 32
# In ticks of mtime: 10 microseconds.
SLOW = 100
TICKS_IN_US = 10


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


def sub(rd, rs1, rs2):
    return 0x20 << 25 | r_type(0, rd, rs1, rs2)


def lui(rd, value):
    return value >> 12 << 12 | rd << 7 | 0x37


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
    """Flat code: writes its number into each page of the region, then reads pages at random for ever, as long as each holds what
    it should. Keeps in STATUS: 1 once it reads, the number of the last read, what a wrong page held, the end of the log."""
    assert pages & (pages - 1) == 0
    begin = [
        addi(S0, ZERO, 0x88), slli(S0, S0, 24),
        addi(S1, ZERO, 1), slli(S1, S1, pages.bit_length() - 1), addi(S1, S1, -1),
        addi(S2, ZERO, 0),
    ]
    fill = [slli(T0, S2, 12), add(T0, T0, S0), addi(T1, S2, 1), sd(T1, T0, 0), addi(S2, S2, 1)]
    fill.append(branch(7, S1, S2, -4 * len(fill)))
    seed = [
        addi(S3, ZERO, 0x5A5), addi(S4, ZERO, STATUS >> 21), slli(S4, S4, 21), addi(S5, ZERO, 0),
        lui(S6, 0x0200_C000), addi(S6, S6, -8),
        addi(S7, ZERO, SLOW),
        addi(S8, ZERO, STAMPS >> 24), slli(S8, S8, 24),
        addi(S9, ZERO, LOG >> 24), slli(S9, S9, 24), addi(S10, ZERO, (LOG >> 24) + 2), slli(S10, S10, 24),
        sd(S9, S4, 24), addi(T0, ZERO, 1), sd(T0, S4, 0),
    ]
    read = [
        slli(T0, S3, 13), xor(S3, S3, T0), srli(T0, S3, 7), xor(S3, S3, T0), slli(T0, S3, 17), xor(S3, S3, T0),
        addi(S5, S5, 1), sd(S5, S4, 8),
        and_(T0, S3, S1), slli(T1, T0, 12), add(T1, T1, S0),
        slli(T5, T0, 3), add(T5, T5, S8), ld(T6, T5, 0),
        ld(T4, S6, 0), ld(T2, T1, 0), ld(T3, S6, 0),
        sd(S5, T5, 0), addi(A0, T0, 1), sub(T3, T3, T4),
    ]
    log = [sd(S5, S9, 0), sd(T6, S9, 8), sd(T3, S9, 16), addi(S9, S9, ENTRY), sd(S9, S4, 24)]
    # A wrong value ends it; fast reads, and those that the log has no room for, do not get there.
    read.append(branch(1, T2, A0, 4 * (len(log) + 4)))
    read.append(branch(6, T3, S7, -4 * len(read)))
    read.append(branch(7, S9, S10, -4 * len(read)))
    read += log
    read.append(jump(-4 * len(read)))
    wrong = [sd(T2, S4, 16), jump(0)]
    words = begin + fill + seed + read + wrong
    return struct.pack(f"<{len(words)}I", *words)


def memory(machine, address, size, directory):
    """Guest memory as 64-bit words."""
    path = pathlib.Path(directory) / "memory"
    machine.run("pmemsave", val=address, size=size, filename=str(path))
    words = struct.unpack(f"<{size // 8}Q", path.read_bytes())
    path.unlink()
    return words


def waits(source, destination, directory):
    """How long the guest waited for each page, in microseconds, ascending."""
    _, last, _, _ = memory(source, STATUS, 32, directory)
    reading, now, wrong, end = memory(destination, STATUS, 32, directory)
    if not reading or wrong or now <= last:
        raise RuntimeError(f"the guest has come from read {last} to {now}, and found {wrong:#x} where it should not be")
    words = memory(destination, LOG, max(end - LOG, ENTRY), directory)
    width = ENTRY // 8
    entries = zip(words[0::width], words[1::width], words[2::width])
    # Without the read that the source may have been at.
    return sorted(ticks / TICKS_IN_US for read, before, ticks in entries if read > last and before <= last)


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


def quantile(ordered, share):
    """So many of the values are not greater."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


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
    def line(monitor, incoming):
        return command(kind, options, code, monitor, incoming)

    with machines(line, directory) as ((source, destination), _):
        deadline = time.monotonic() + 120
        while memory(source, STATUS, 8, directory) != (1,):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{kind}: the guest does not begin to read")
            time.sleep(0.1)
        time.sleep(options.settle)
        uri = place(transport, directory)
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
        # What comes by itself may come behind the answer that tells the same.
        for machine, event in ((source, "STOP"), (source, "completed"), (destination, "RESUME")):
            while event not in machine.events and time.monotonic() < deadline:
                machine.run("query-status")
        distribution = info["postcopy-latency-dist"]
        waited = waits(source, destination, directory)
        stop = source.events["STOP"]
        return {
            "p50 µs": quantile(waited, 0.5),
            "p99 µs": quantile(waited, 0.99),
            "waits": len(waited),
            "served p50 µs": percentile(distribution, 0.5),
            "served p99 µs": percentile(distribution, 0.99),
            "faults": sum(distribution),
            "stopped ms": destination.events["RESUME"] - stop,
            "total ms": source.events["completed"] - stop,
        }


def name_of(transport, preempt):
    return f"{transport}, {'preempt' if preempt else 'plain'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qemu")
    parser.add_argument("vmstate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--region", type=int, default=1024, help="MiB, a power of two")
    parser.add_argument("--settle", type=float, default=1.0, help="seconds that the guest reads before it goes")
    parser.add_argument("--cases", default="", help="only those whose name has this in it, as `tcp` or `unix, plain`")
    options = parser.parse_args()
    cases = [(transport, preempt) for transport in ("unix", "tcp") for preempt in (False, True)]
    cases = [case for case in cases if options.cases in name_of(*case)]
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        code = f"{directory}/guest.bin"
        pathlib.Path(code).write_bytes(guest(options.region << 8))
        for number in range(options.rounds):
            # What one leaves of the host's memory is the other's beginning.
            kinds = ("qemu", "vmstate") if number % 2 == 0 else ("vmstate", "qemu")
            for transport, preempt in cases:
                for kind in kinds:
                    result = migrate(kind, options, code, transport, preempt, directory)
                    for name, value in result.items():
                        found.setdefault(((transport, preempt), kind), {}).setdefault(name, []).append(value)
    names = list(next(iter(found.values())))
    table([(case, name_of(*case)) for case in cases], ("qemu", "vmstate"), names, found)


if __name__ == "__main__":
    main()
