use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate]
struct NoList {
    a: u8,
}

#[derive(VmState)]
#[vmstate(version = "1")]
struct QuotedNumber {
    a: u8,
}

#[derive(VmState)]
#[vmstate(post_load = "Self::fix")]
struct QuotedPath {
    a: u8,
}

#[derive(VmState)]
struct Values {
    #[vmstate(name)]
    missing: u8,
    #[vmstate(buffer = 4)]
    surplus: [u8; 4],
    #[vmstate(name = "")]
    empty: u8,
    #[vmstate(range = 3)]
    index: [u8; 4],
    #[vmstate(range = 0..=2)]
    closed: [u8; 4],
}

fn main() {}
