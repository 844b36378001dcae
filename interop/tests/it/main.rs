//! The crates against stock QEMU: what it writes is understood to the last byte, and it loads and runs what they write.

mod arrival;
mod board;
mod capabilities;
mod check;
mod compatibility;
mod dbus;
mod drive;
mod drive_ours;
mod drive_postcopy;
mod hops;
mod host;
mod hpet;
mod monitor;
mod ours;
mod postcopy;
mod probe;
mod proxy;
mod round_trip;
mod spike;
mod static_checker;
mod stored;
mod values;
