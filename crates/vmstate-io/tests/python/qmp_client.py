"""Talks to the monitor at the path in argv[1] as QEMU's own tools do. Prints what it finds; fails if anything is odd."""

import asyncio
import sys

from qemu.qmp import EventListener, ExecuteError, QMPClient


async def main() -> None:
    client = QMPClient("test")
    await client.connect(sys.argv[1])
    assert client.greeting.QMP.version["qemu"]["major"] == 11, client.greeting
    status = await client.execute("query-status")
    assert status == {"status": "running", "running": True}, status

    with client.listener(("STOP", "MIGRATION")) as listener:
        await client.execute("stop")
        event = await asyncio.wait_for(listener.get(), 10)
        assert event["event"] == "STOP", event
        assert event["timestamp"]["seconds"] > 0, event
        await client.execute("migrate", {"uri": "tcp:example:4444"})
        event = await asyncio.wait_for(listener.get(), 10)
        assert event["data"] == {"status": "setup"}, event
    assert (await client.execute("query-migrate"))["status"] == "setup"

    for command, arguments, expected in [
        ("migrate", {"uri": 1}, "Invalid parameter type for 'uri', expected: string"),
        ("nope", {}, "The command nope has not been found"),
    ]:
        try:
            await client.execute(command, arguments)
        except ExecuteError as e:
            assert str(e) == expected, e
        else:
            raise AssertionError(command)

    # Several commands at a time: replies find theirs.
    names = ["query-version", "query-status", "query-commands", "query-migrate-capabilities"]
    version, status, commands, capabilities = await asyncio.gather(
        *(client.execute(name) for name in names)
    )
    assert version["package"] == "toy", version
    assert not status["running"], status
    assert {"name": "migrate"} in commands, commands
    assert {"capability": "events", "state": True} in capabilities, capabilities

    await client.execute("quit")
    await client.disconnect()
    print("all as expected")


asyncio.run(main())
