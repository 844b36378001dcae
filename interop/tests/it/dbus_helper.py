"""A helper in Python, by a D-Bus library that shares nothing with ours.

usage: dbus_helper.py ADDRESS ID STATE

Keeps the bytes of STATE (in hex), prints "ready" when it can be found, "saved" and "loaded HEX" when it is called.
"""

import asyncio
import sys

from dbus_fast import PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property


class VMState1(ServiceInterface):
    def __init__(self, name, state):
        super().__init__("org.qemu.VMState1")
        self.identity = name
        self.state = state

    @dbus_property(access=PropertyAccess.READ)
    def Id(self) -> "s":
        return self.identity

    @dbus_method()
    def Save(self) -> "ay":
        print("saved", flush=True)
        return self.state

    @dbus_method()
    def Load(self, data: "ay"):
        self.state = bytes(data)
        print("loaded", self.state.hex(), flush=True)


async def main(address, name, state):
    bus = await MessageBus(bus_address=address).connect()
    bus.export("/org/qemu/VMState1", VMState1(name, bytes.fromhex(state)))
    await bus.request_name("org.qemu.VMState1")
    print("ready", flush=True)
    await bus.wait_for_disconnect()


asyncio.run(main(*sys.argv[1:]))
