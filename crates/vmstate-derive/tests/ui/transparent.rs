use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(transparent)]
struct Two {
    a: u8,
    b: u8,
}

#[derive(VmState)]
#[vmstate(transparent)]
struct None;

#[derive(VmState)]
#[vmstate(transparent, version = 2)]
struct Versioned(u8);

#[derive(VmState)]
#[vmstate(transparent)]
struct WithField(#[vmstate(since = 2)] u8);

#[derive(VmState)]
#[vmstate(transparent)]
struct Wide(usize);

fn main() {}
