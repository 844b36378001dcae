#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmstate_testkit::targets::ber_moved(data));
