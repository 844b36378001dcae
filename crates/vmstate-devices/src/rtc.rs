//! MC146818 real-time clock with its battery-backed memory.

use vmstate_derive::VmState;
use vmstate_desc::Timer;

use crate::array::Array;

/// Section `mc146818rtc`.
///
/// Before saving, the source writes its current time into the registers in [`Rtc::cmos`], so these say what time it was for
/// the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "mc146818rtc", version = 3, minimum_version = 1)]
pub struct Rtc {
    /// Registers and memory, two banks of 64 bytes.
    #[vmstate(name = "cmos_data", buffer)]
    pub cmos: Array<u8, 128>,
    /// The byte that the guest has selected.
    #[vmstate(name = "cmos_index")]
    pub index: u8,
    #[vmstate(unused = 28)]
    #[doc(hidden)]
    pub _broken_down_time: (),
    /// When the periodic interrupt is due, in ns of the clock that the device is set to.
    pub periodic_timer: Timer,
    /// The same deadline, as it was computed last.
    pub next_periodic_time: i64,
    #[vmstate(unused = 24)]
    #[doc(hidden)]
    pub _second_timers: (),
    /// Periodic interrupts that the guest has missed and still gets.
    #[vmstate(name = "irq_coalesced", since = 2)]
    pub coalesced: u32,
    /// Ticks of 32768 Hz between two periodic interrupts; 0 if there are none.
    #[vmstate(since = 2)]
    pub period: u32,
    /// Seconds since 1970 at [`Rtc::last_update`].
    #[vmstate(name = "base_rtc", since = 3)]
    pub base_seconds: u64,
    /// When the time was set last, in ns of the device's clock.
    #[vmstate(since = 3)]
    pub last_update: u64,
    /// Offset within the second, in ns.
    #[vmstate(since = 3)]
    pub offset: i64,
    /// When the next second or alarm is due, in ns of the device's clock.
    #[vmstate(since = 3)]
    pub update_timer: Timer,
    /// When the alarm is due, in ns of the device's clock.
    #[vmstate(since = 3)]
    pub next_alarm_time: u64,
    /// Interrupts that are raised again when the guest acknowledges one.
    #[vmstate(subsection)]
    pub reinjection: Option<Reinjection>,
}

/// Subsection `mc146818rtc/irq_reinject_on_ack_count`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(
    name = "mc146818rtc/irq_reinject_on_ack_count",
    version = 1,
    minimum_version = 1
)]
pub struct Reinjection {
    /// How often the interrupt has been raised again.
    #[vmstate(name = "irq_reinject_on_ack_count")]
    pub count: u16,
}

/// What the clock's registers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    /// With the century.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

const SECONDS: usize = 0x00;
const MINUTES: usize = 0x02;
const HOURS: usize = 0x04;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const REGISTER_B: usize = 0x0b;
const CENTURY: usize = 0x32;

/// Register B: 24 hours.
const HOURS_24: u8 = 0x02;
/// Register B: binary.
const BINARY: u8 = 0x04;
/// Hours register with 12 hours: afternoon.
const AFTERNOON: u8 = 0x80;

impl Rtc {
    fn register(&self, index: usize) -> u8 {
        self.cmos.get(index).copied().unwrap_or(0)
    }

    /// A register in the number format that register B says; none if its digits are none.
    fn number(&self, value: u8) -> Option<u8> {
        if self.register(REGISTER_B) & BINARY != 0 {
            return Some(value);
        }
        let (tens, ones) = (value >> 4, value & 0xf);
        (tens <= 9 && ones <= 9).then_some(tens * 10 + ones)
    }

    /// The guest's date and time; none if the registers hold none.
    #[must_use]
    pub fn date_time(&self) -> Option<DateTime> {
        let number = |index| self.number(self.register(index));
        let hours = self.register(HOURS);
        let hour = if self.register(REGISTER_B) & HOURS_24 != 0 {
            self.number(hours)?
        } else {
            let afternoon = if hours & AFTERNOON != 0 { 12 } else { 0 };
            self.number(hours & !AFTERNOON)? % 12 + afternoon
        };
        let time = DateTime {
            year: u16::from(number(CENTURY)?) * 100 + u16::from(number(YEAR)?),
            month: number(MONTH)?,
            day: number(DAY)?,
            hour,
            minute: number(MINUTES)?,
            second: number(SECONDS)?,
        };
        let fits = (1..=12).contains(&time.month)
            && (1..=31).contains(&time.day)
            && time.hour < 24
            && time.minute < 60
            && time.second < 60;
        fits.then_some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_formats() {
        let mut rtc = Rtc::default();
        let set = |rtc: &mut Rtc, values: [u8; 8]| {
            let at = [
                SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY, REGISTER_B,
            ];
            for (index, value) in at.into_iter().zip(values) {
                rtc.cmos[index] = value;
            }
        };
        assert_eq!(rtc.date_time(), None, "month 0");
        set(&mut rtc, [0x59, 0x58, 0x23, 0x31, 0x12, 0x26, 0x20, 0x02]);
        let bcd = rtc.date_time();
        let expected = DateTime {
            year: 2026,
            month: 12,
            day: 31,
            hour: 23,
            minute: 58,
            second: 59,
        };
        assert_eq!(bcd, Some(expected));
        set(&mut rtc, [59, 58, 23, 31, 12, 26, 20, 0x06]);
        assert_eq!(rtc.date_time(), Some(expected));
        // Eleven in the evening, in twelve hours.
        set(&mut rtc, [59, 58, 11 | 0x80, 31, 12, 26, 20, 0x04]);
        assert_eq!(rtc.date_time(), Some(expected));
        // Half past midnight is twelve in twelve hours.
        set(&mut rtc, [0, 0x30, 0x12, 1, 1, 0, 0x20, 0]);
        assert_eq!(rtc.date_time().map(|t| t.hour), Some(0));
        set(&mut rtc, [0x5a, 0, 0, 1, 1, 0, 0x20, 0]);
        assert_eq!(rtc.date_time(), None);
    }
}
