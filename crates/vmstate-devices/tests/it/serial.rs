//! 16550: on the ISA bus and memory-mapped.

use vmstate_desc::{Timer, VmState as _};
use vmstate_devices::fifo::Fifo8;
use vmstate_devices::serial::{
    IsaSerial, MemorySerial, PC_CLOCK, Polling, ReceiveTimeout, TransmitInterrupt, TransmitQueue,
    Transmitting, Uart,
};

use crate::common::{Capture, describe};
use vmstate_wire::vmdesc::VmdescDialect;

#[test]
fn every_generation() {
    for release in ["7.2", "10.0", "11.1"] {
        let capture = Capture::read(&format!("pc-{release}-serial"));
        let serial = capture.check(&IsaSerial::default());
        let uart = &serial.uart;
        // What the guest wrote to its ports.
        assert_eq!(uart.divider, 12);
        assert_eq!(uart.baud_rate(PC_CLOCK), Some(9600));
        assert_eq!(uart.line_control, 0x03, "8n1");
        assert_eq!(uart.modem_control, 0x0b);
        assert_eq!(uart.scratch, 0x5a);
        assert_eq!(uart.fifo_control, 0xc1, "queues on, 14 bytes");
        // Five bytes came; the guest read none. So the data ready bit is set and the timeout's interrupt is pending.
        assert_eq!(uart.line_status & 1, 1);
        assert_eq!(uart.interrupt_id & 0x0f, 0x0c);
        let queue = &uart.receive_queue.as_ref().unwrap().queue;
        assert_eq!(queue.iter().collect::<Vec<_>>(), b"hello");
        assert_eq!((queue.head, queue.len), (0, 5));
        assert_eq!(uart.timeout_interrupt.as_ref().unwrap().pending, 1);
        assert_eq!(uart.transmit_queue, None);
    }
}

#[test]
fn memory_mapped() {
    let capture = Capture::read("arm-11.1-serial");
    let serial = capture.check(&MemorySerial::default());
    assert_eq!(serial.uart.divider, 12);
    assert_eq!(serial.uart.line_status, 0x60, "transmitter empty");
    assert_eq!(serial.uart.receive_queue, None);
}

#[test]
fn nothing_of_the_old_state_remains() {
    let capture = Capture::read("arm-11.1-serial");
    let mut serial = MemorySerial::default();
    serial.uart.transmitting = Some(Transmitting::default());
    serial.uart.receive_queue = Some(vmstate_devices::serial::ReceiveQueue::default());
    let serial = capture.load(serial);
    assert_eq!(serial.uart.transmitting, None);
    assert_eq!(serial.uart.receive_queue, None);
}

/// All optional parts at once: no recording has them all.
#[test]
fn all_subsections() {
    let uart = Uart {
        divider: 1,
        transmit_interrupt: Some(TransmitInterrupt { pending: 1 }),
        transmitting: Some(Transmitting {
            retries: 3,
            holding: b'a',
            shift: b'b',
        }),
        transmit_queue: Some(TransmitQueue {
            queue: Fifo8 {
                data: [b'x'; 16],
                head: 15,
                len: 2,
            },
        }),
        receive_timeout: Some(ReceiveTimeout {
            deadline: Timer(Some(1_000)),
        }),
        polling: Some(Polling {
            mode: -1,
            next: Timer(None),
        }),
        ..Uart::default()
    };
    let serial = IsaSerial { uart };
    let (payload, entry) = describe(&serial, VmdescDialect::V11_1, "serial", 0);
    let mut loaded = IsaSerial::default();
    let capture = Capture::read("pc-11.1-serial");
    assert_eq!(
        capture.try_load(&mut loaded, &payload).unwrap(),
        payload.len()
    );
    assert_eq!(loaded, serial);
    for name in [
        "thr_ipending",
        "tsr",
        "xmit_fifo",
        "fifo_timeout_timer",
        "poll",
    ] {
        assert!(entry.contains(&format!("\"vmsd_name\": \"serial/{name}\"")));
    }
    assert!(IsaSerial::DESCRIPTION.check().is_ok());
}

#[test]
fn version_2_has_no_queue_control() {
    // The wrapper's version is not handed down: an embedded UART is always at version 3.
    let mut uart = Uart {
        fifo_control: 0xc1,
        ..Uart::default()
    };
    let bytes = [0, 12, 1, 2, 3, 4, 5, 6, 7, 8];
    let used =
        vmstate_wire::codec::decode(&mut uart, 2, &bytes, vmstate_desc::Limits::default()).unwrap();
    assert_eq!(
        (used, uart.divider, uart.scratch, uart.fifo_control),
        (10, 12, 8, 0)
    );
}

#[test]
fn hostile() {
    let capture = Capture::read("pc-11.1-serial");
    let refusal = |at: usize, byte: u8| {
        let mut payload = capture.payload.clone();
        payload[at] = byte;
        capture
            .try_load(&mut IsaSerial::default(), &payload)
            .unwrap_err()
            .to_string()
    };
    // The subsection's header is 05, a length byte, 16 letters, be32 version 1; then 16 bytes, head, number.
    let fifo = 11 + 2 + 16 + 4;
    assert_eq!(
        refusal(fifo + 23, 17),
        "serial/state/serial/recv_fifo/recv_fifo: post_load refused: 17 bytes from 0 do not fit a queue of 16 \
         (byte 0x39)"
    );
    assert_eq!(
        refusal(fifo + 16, 0x80),
        "serial/state/serial/recv_fifo/recv_fifo: post_load refused: 5 bytes from 2147483648 do not fit a queue of \
         16 (byte 0x39)"
    );
    // A subsection that the UART does not have.
    assert_eq!(
        refusal(11 + 2 + 7, b'x'),
        "serial/state: subsection serial/xecv_fifo does not exist in serial (known: serial/thr_ipending, serial/tsr, \
         serial/recv_fifo, serial/xmit_fifo, serial/fifo_timeout_timer, serial/timeout_ipending, serial/poll) (byte \
         0xb)"
    );
    // A version that is too new.
    assert!(refusal(fifo - 1, 2).contains("version 2 of serial/recv_fifo is not loadable"));
}
