"""Reads a stream of VM state over BER with asn1tools and the module that the documentation ships.

usage: ber_judge.py MODULE STREAM [--live | --open | --cut]

Decodes the whole stream, then each frame, encodes each frame again as DER and compares the octets, and checks every checksum and the
digest with Python's own library. Prints the numbers of frames by kind, as JSON.

--live: what one end of a live migration has sent, which has no digest; --open: the same of a channel that ends with its connection
and not with an end; --cut: the same of a connection that was cut, perhaps inside of a frame, which is left out.
"""

import collections
import hashlib
import json
import sys
import zlib

import asn1tools

MAGIC = b"\x60\x80\x0c\x0dvmstate-ber/1"


def length_of(stream, at):
    """Octets of identifier and length, and of the content, of the value at this place."""
    first = stream[at + 1]
    if first < 0x80:
        return 2, first
    count = first & 0x7F
    assert 1 <= count <= 4, f"length octet {first:#x} at {at:#x}"
    return 2 + count, int.from_bytes(stream[at + 2 : at + 2 + count], "big")


def whole_frames(stream):
    """The stream up to the last frame that is there as a whole, with an end of contents."""
    at = len(MAGIC)
    while at < len(stream):
        try:
            header, content = length_of(stream, at)
        except IndexError:
            break
        if at + header + content > len(stream):
            break
        at += header + content
    return stream[:at] + b"\0\0"


def frames(stream):
    """Place and octets of each frame."""
    assert stream.startswith(MAGIC), "no stream"
    assert stream.endswith(b"\0\0"), "no end of contents"
    at, end = len(MAGIC), len(stream) - 2
    while at < end:
        header, content = length_of(stream, at)
        assert at + header + content <= end, f"frame at {at:#x} is too long"
        yield at, header, stream[at : at + header + content]
        at += header + content


def main():
    module, path, *mode = sys.argv[1:]
    assert mode in ([], ["--live"], ["--open"], ["--cut"]), mode
    with open(path, "rb") as file:
        stream = file.read()
    if mode == ["--open"]:
        stream += b"\0\0"
    elif mode == ["--cut"]:
        stream = whole_frames(stream)
    der = asn1tools.compile_files(module, "der")
    whole = asn1tools.compile_files(module, "ber").decode("VmStream", stream)
    counts = collections.Counter()
    last = None
    for number, (at, header, octets) in enumerate(frames(stream)):
        kind, value = der.decode("Frame", octets)
        assert (kind, value) == whole[number + 1], f"frame at {at:#x}: two values"
        again = der.encode("Frame", (kind, value))
        assert again == octets, f"frame {kind} at {at:#x}: encoded again it differs"
        if "crc" in value:
            covered = octets[header:-6]
            assert octets[-6:-4] == b"\x8f\x04", f"frame {kind} at {at:#x}: no checksum at its end"
            computed = zlib.crc32(covered).to_bytes(4, "big")
            assert computed == value["crc"], f"frame {kind} at {at:#x}: wrong checksum"
        counts[kind] += 1
        last = kind, value, at
    kind, value, at = last
    if mode in (["--open"], ["--cut"]):
        assert kind != "end", "it has an end"
        print(json.dumps(counts, sort_keys=True))
        return
    assert kind == "end", "the last frame is no end"
    assert value["frames"] == sum(counts.values()) == len(whole) - 1
    assert value["octets"] == at
    if mode:
        assert "digest" not in value, "a live migration has no digest"
    else:
        assert value["digest"] == hashlib.sha256(stream[:at]).digest(), "wrong digest"
    print(json.dumps(counts, sort_keys=True))


main()
