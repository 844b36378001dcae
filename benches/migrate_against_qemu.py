#!/usr/bin/env python3
"""Migrates the same guest from QEMU to QEMU and from `vmstate machine` to `vmstate machine`, turn about, and compares.

usage: migrate_against_qemu.py QEMU VMSTATE DIRTIER_ELF [--rounds N] [--ram MIB] [--fill MIB] [--formats]

QEMU is a command that runs qemu-system-riscv64 11.1, VMSTATE the release binary, DIRTIER_ELF the guest
crates/vmstate-spike/guests/dirtier.elf. Both machines take their RAM from the host beforehand. Each round also measures
what a bare socket carries. Prints a table of medians: total time as the source reports it, time stopped from the source's STOP
event to the destination's RESUME event, throughput beside the socket's, CPU seconds of both processes without the threads
of the harts, the most memory of each beyond guest RAM, and the ratios of ours to QEMU's.

With --formats, both machines are ours: over QEMU's stream, and over VM state over BER. QEMU is not started, - will do.
"""

import argparse
import mmap
import os
import pathlib
import socket
import struct
import tempfile
import time

from common import machines, place, table

MAGIC = b"vmstate\0"
START = 0x8020_0000
PAGE = 4096


def guest(elf, ring, rate, fill):
    """The guest with its parameters set: 100 ticks a second, 64 bytes in each page."""
    data = bytearray(pathlib.Path(elf).read_bytes())
    at = data.index(MAGIC + struct.pack("<Q", 2)) + 0x40
    pages = rate // PAGE // 100
    words = [START, ring, 100_000, pages, START + ring, fill, 8, 0]
    data[at:at + 64] = struct.pack("<8Q", *words)
    return bytes(data)


def ticks(stat):
    """Name, and user plus system time."""
    text = stat.read_text()
    name, rest = text[text.index("(") + 1:].rsplit(")", 1)
    fields = rest.split()
    return name, int(fields[11]) + int(fields[12])


def cpu_seconds(pid):
    """User and system time of a process, threads that have ended included, without the threads of the harts."""
    process = pathlib.Path(f"/proc/{pid}")
    total = ticks(process / "stat")[1]
    for task in (process / "task").iterdir():
        name, time_spent = ticks(task / "stat")
        if name.startswith(("hart ", "CPU ")):
            total -= time_spent
    return total / os.sysconf("SC_CLK_TCK")


def beyond_ram(pid, ram):
    """MiB of memory that a process has had at most, without `ram` MiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024 - ram
    raise RuntimeError(f"process {pid} has ended")


def command(kind, options, elf, monitor, incoming):
    ram = options.ram
    if kind == "qemu":
        line = options.qemu.split() + [
            "-M", "spike,memory-backend=riscv.spike.ram", "-m", f"{ram}M", "-nodefaults", "-display", "none",
            "-object", f"memory-backend-ram,id=riscv.spike.ram,size={ram}M,prealloc=on",
            "-bios", elf, "-qmp", f"unix:{monitor},server=on,wait=off",
        ]
        return line + (["-incoming", "defer"] if incoming else [])
    line = [options.vmstate, "machine", "--quiet", "--prealloc", "--ram", f"{ram}M", "--guest", elf, "--qmp", monitor]
    if options.formats:
        line += ["--peer", "vmstate" if kind == "ber" else "qemu"]
    return line + (["--incoming", "defer"] if incoming else [])


def migrate(kind, options, elf, transport, directory):
    def line(monitor, incoming):
        return command(kind, options, elf, monitor, incoming)

    with machines(line, directory) as ((source, destination), processes):
        # Until memory is filled and the guest ticks.
        time.sleep(options.settle)
        uri = place(transport, directory)
        source.run("migrate-set-parameters", **{"max-bandwidth": 100 << 30})
        destination.run("migrate-incoming", uri=uri)
        before = [cpu_seconds(process.pid) for process in processes]
        source.run("migrate", uri=uri)
        deadline = time.monotonic() + 120
        while True:
            info = source.run("query-migrate")
            if info.get("status") in ("completed", "failed", "cancelled") or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        after = [cpu_seconds(process.pid) for process in processes]
        if info.get("status") != "completed":
            raise RuntimeError(f"{kind}: {info.get('status')} {info.get('error-desc')}")
        # The event may come behind the answer that knows of it.
        while destination.run("query-status")["status"] != "running" or "RESUME" not in destination.events:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{kind}: the guest does not go on")
            time.sleep(0.005)
        source.run("query-status")
        total = info["total-time"]
        return {
            "total ms": total,
            "stopped ms": destination.events["RESUME"] - source.events["STOP"],
            "GiB/s": info["ram"]["transferred"] / total * 1000 / (1 << 30),
            "src CPU s": after[0] - before[0],
            "dst CPU s": after[1] - before[1],
            "passes": info["ram"]["dirty-sync-count"],
            "src MiB": beyond_ram(processes[0].pid, options.ram),
            "dst MiB": beyond_ram(processes[1].pid, options.ram),
        }


def bare(transport, size=1 << 30):
    """GiB/s of a socket between two processes, 1 MiB at a time, from touched memory into touched memory as large as what is sent."""
    if transport == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = memoryview(memory)
    piece = os.urandom(1 << 20)
    child = os.fork()
    for at in range(0, size, len(piece)):
        view[at:at + len(piece)] = piece
    if child == 0:
        ours.close()
        theirs.sendall(b"r")
        at = 0
        while count := theirs.recv_into(view[at:at + (1 << 20)]):
            at += count
        # Before the memory is given back, which takes long.
        theirs.sendall(b"d")
        os._exit(at != size)
    theirs.close()
    ours.recv(1)
    start = time.monotonic()
    for at in range(0, size, 1 << 20):
        ours.sendall(view[at:at + (1 << 20)])
    ours.shutdown(socket.SHUT_WR)
    ours.recv(1)
    rate = size / (time.monotonic() - start) / (1 << 30)
    _, status = os.waitpid(child, 0)
    ours.close()
    if status:
        raise RuntimeError("the bare socket lost something")
    view.release()
    memory.close()
    return rate


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qemu")
    parser.add_argument("vmstate")
    parser.add_argument("elf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ram", type=int, default=2048, help="MiB")
    parser.add_argument("--fill", type=int, default=1280, help="MiB beside the ring of 256 that are not zero")
    parser.add_argument("--settle", type=float, default=6.0, help="seconds until the guest has filled its memory")
    parser.add_argument("--formats", action="store_true", help="compare our formats with each other")
    options = parser.parse_args()
    kinds = ("vmstate", "ber") if options.formats else ("qemu", "vmstate")
    cases = [(t, rate) for t in ("unix", "tcp") for rate in (0, 64, 256)]
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(options.rounds):
            sockets = {transport: bare(transport) for transport in ("unix", "tcp")}
            for transport, rate in cases:
                elf = f"{directory}/guest.elf"
                image = guest(options.elf, 256 << 20, rate << 20, options.fill << 20)
                pathlib.Path(elf).write_bytes(image)
                # Neither always comes first.
                for kind in kinds if number % 2 == 0 else kinds[::-1]:
                    result = migrate(kind, options, elf, transport, directory)
                    result["of socket"] = result["GiB/s"] / sockets[transport]
                    for name, value in result.items():
                        found.setdefault(((transport, rate), kind), {}).setdefault(name, []).append(value)
    names = ["total ms", "stopped ms", "GiB/s", "of socket", "src CPU s", "dst CPU s", "passes", "src MiB", "dst MiB"]
    table([(case, f"{case[0]}, dirty {case[1]} MiB/s") for case in cases], kinds, names, found)


if __name__ == "__main__":
    main()
