#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod array;
pub mod clock;
pub mod fifo;
pub mod nvme_like;
pub mod pic;
pub mod pit;
pub mod pl011;
pub mod rtc;
pub mod serial;
