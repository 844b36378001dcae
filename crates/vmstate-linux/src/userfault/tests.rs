use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

const PAGE: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the next thread that waits.
fn next_fault(faults: &Userfault) -> Fault {
    let end = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while Instant::now() < end {
        let mut fds = [PollFd::new(faults, PollFlags::IN)];
        let second = Timespec::try_from(Duration::from_secs(1)).unwrap();
        poll(&mut fds, Some(&second)).unwrap();
        if faults.take_faults(&mut found).unwrap() > 0 {
            return found[0];
        }
    }
    panic!("nobody waits");
}

fn soon<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).unwrap()
}

/// What all kinds of memory do.
fn serves(ram: &GuestRam) {
    let page = ram.page_size();
    let bytes = |n: u8| vec![n; usize::try_from(page).unwrap()];
    let faults = Userfault::open().unwrap();
    // What is there before stays.
    ram.store(5, 9_u8);
    faults.register(ram).unwrap();
    assert_eq!(ram.load::<u8>(5), Some(9));
    assert_eq!(faults.place(ram, 0, &bytes(1)).unwrap(), 0);
    assert_eq!(ram.load::<u8>(5), Some(9));
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        scope.spawn(move || {
            let me = crate::thread_number();
            let read = ram.load::<u8>(page + 7);
            ram.store(2 * page, 3_u8);
            let zero = ram.load::<u8>(2 * page + 1);
            sender.send((me, read, zero)).unwrap();
        });
        let first = next_fault(&faults);
        assert_eq!(ram.offset_of(first.address).unwrap() / page, 1);
        assert!(!first.write);
        // Nobody goes on without the page.
        faults.wake(ram, page, page).unwrap();
        assert_eq!(next_fault(&faults), first);
        assert!(receiver.try_recv().is_err());
        assert_eq!(faults.place(ram, page, &bytes(4)).unwrap(), page);
        let second = next_fault(&faults);
        assert_eq!(ram.offset_of(second.address).unwrap() / page, 2);
        assert!(second.write);
        assert_eq!(faults.place_zero(ram, 2 * page, page).unwrap(), page);
        let (thread, read, zero) = soon(&receiver);
        assert_eq!((read, zero), (Some(4), Some(0)));
        if faults.names_threads() {
            assert_eq!((first.thread, second.thread), (thread, thread));
        }
    });
    // Several at once; what is there is passed over.
    assert_eq!(faults.place(ram, page, &bytes(6).repeat(3)).unwrap(), page);
    assert_eq!(
        [1, 2, 3].map(|n| ram.load::<u8>(n * page)),
        [Some(4), Some(3), Some(6)]
    );
    assert_eq!(faults.place_zero(ram, 0, 4 * page).unwrap(), 0);
    // What is discarded is missing again.
    ram.discard(page, page).unwrap();
    assert_eq!(faults.place(ram, page, &bytes(5)).unwrap(), page);
    assert_eq!(ram.load::<u8>(page), Some(5));
    // Those who wait go on when it ends.
    ram.discard(page, 2 * page).unwrap();
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        scope.spawn(move || sender.send(ram.load::<u8>(2 * page)).unwrap());
        next_fault(&faults);
        faults.unregister(ram).unwrap();
        assert_eq!(soon(&receiver), Some(0));
    });
    assert_eq!(ram.load::<u8>(page), Some(0));
}

#[test]
fn private_memory() {
    serves(&GuestRam::new(8 * PAGE).unwrap());
}

#[test]
fn shared_memory() {
    serves(&GuestRam::with_backing(8 * PAGE, Backing::Memfd).unwrap());
}

#[test]
fn huge_pages() {
    let bytes = 2 << 20;
    let backing = Backing::HugePages { bytes };
    // Most hosts have set none aside.
    match GuestRam::with_backing(4 * bytes, backing) {
        Ok(ram) if ram.populate(0, ram.len()).is_ok() => {
            ram.discard(0, ram.len()).unwrap();
            serves(&ram);
        }
        _ => eprintln!("skipped: no huge pages on this host"),
    }
}

#[test]
fn the_kernel_waits_for_pages_too() {
    let ram = GuestRam::new(2 * PAGE).unwrap();
    let faults = Userfault::open().unwrap();
    faults.register(&ram).unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    std::thread::scope(|scope| {
        let ram = &ram;
        scope.spawn(move || {
            let mut list = crate::Gather::new();
            list.ram(ram, PAGE, PAGE).unwrap();
            while list.left() > 0 {
                list.write_to(&writer).unwrap();
            }
        });
        let fault = next_fault(&faults);
        assert_eq!(ram.offset_of(fault.address).unwrap() & !0xfff, PAGE);
        faults.place(ram, PAGE, &[8; 4096]).unwrap();
        let mut page = [0; 4096];
        io::Read::read_exact(&mut reader, &mut page).unwrap();
        assert_eq!(page, [8; 4096]);
    });
}

#[test]
fn what_is_refused() {
    let ram = GuestRam::new(2 * PAGE).unwrap();
    let faults = Userfault::open().unwrap();
    let text = |result: Result<u64, UserfaultError>| result.unwrap_err().to_string();
    // Not registered.
    let refusal = text(faults.place(&ram, 0, &[1; 4096]));
    assert!(
        refusal.starts_with("cannot place pages of guest RAM"),
        "{refusal}"
    );
    faults.register(&ram).unwrap();
    for (offset, bytes) in [(1, 4096), (0, 100), (PAGE, 100)] {
        let refusal = text(faults.place(&ram, offset, &vec![1; bytes]));
        assert!(refusal.contains("invalid"), "{refusal}");
    }
    let outside = text(faults.place(&ram, 2 * PAGE, &[1; 4096]));
    assert_eq!(outside, "4096 bytes at 0x2000 of a memory of 0x2000 bytes");
    assert!(faults.place_zero(&ram, PAGE, 2 * PAGE).is_err());
    assert!(faults.wake(&ram, u64::MAX, 1).is_err());
    // A second one cannot have the same memory.
    let other = Userfault::open().unwrap();
    assert!(other.register(&ram).is_err());
    drop(faults);
    other.register(&ram).unwrap();
}

#[test]
fn a_refusal_says_what_to_do() {
    let refused =
        |kind: i32| UserfaultError::Unavailable(io::Error::from_raw_os_error(kind)).to_string();
    assert!(refused(libc::EPERM).contains("/dev/userfaultfd"));
    assert!(refused(libc::ENOSYS).contains("CONFIG_USERFAULTFD"));
}
