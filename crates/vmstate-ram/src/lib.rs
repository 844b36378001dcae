//! Guest RAM in QEMU migration streams: page records, XBZRLE, multifd, mapped-ram, without I/O.
#![forbid(unsafe_code)]
