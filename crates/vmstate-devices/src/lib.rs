#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod array;
pub mod clock;
mod codec;
pub mod fifo;
pub mod hpet;
pub mod nvme;
pub mod nvme_like;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pl011;
pub mod rtc;
pub mod serial;
pub mod virtio;
