//! The structured fuzz targets on inputs from a fixed generator, so that every test run tries some thousands of shapes.

use vmstate_desc::{DynState, Limits};
use vmstate_testkit::{shape, targets};

/// Numbers without any pattern that matters here (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, count: usize, most: u64) -> Vec<u8> {
        (0..count)
            .map(|_| u8::try_from(self.next() % most).unwrap_or(0))
            .collect()
    }
}

/// Shape and payload, as the targets take them. Small numbers make counts small and loads succeed.
fn input(numbers: &mut Numbers) -> Vec<u8> {
    let shape = usize::try_from(numbers.next() % 120).unwrap_or(0);
    let mut data = u16::try_from(shape).unwrap_or(0).to_be_bytes().to_vec();
    data.extend(numbers.bytes(shape, 256));
    let most = [2, 4, 256][usize::try_from(numbers.next() % 3).unwrap_or(0)];
    data.extend(numbers.bytes(2000, most));
    data
}

#[test]
fn variants_are_among_the_shapes_that_load() {
    let mut numbers = Numbers(1);
    let mut loaded = 0;
    for _ in 0..20_000 {
        let data = input(&mut numbers);
        let (length, rest) = data.split_first_chunk().unwrap();
        let (chosen, payload) = rest.split_at(u16::from_be_bytes(*length).into());
        let mut bytes = arbitrary::Unstructured::new(chosen);
        let description = shape::description(&mut bytes).unwrap();
        if description.check().is_err() || !shape::has_variant(&description) {
            continue;
        }
        let version = description.version_id;
        let mut state = DynState::from(description);
        let result = vmstate_wire::codec::decode(&mut state, version, payload, Limits::default());
        loaded += u32::from(result.is_ok());
    }
    assert!(loaded >= 15, "{loaded}");
}

#[test]
fn any_shape_and_value_survives() {
    let mut numbers = Numbers(1);
    for _ in 0..20_000 {
        let data = input(&mut numbers);
        targets::device(&data);
        targets::ber_value(&data);
        targets::ber_moved(&data);
    }
}
