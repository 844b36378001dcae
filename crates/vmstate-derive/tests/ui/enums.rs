use vmstate_derive::VmState;

#[derive(VmState)]
enum NoRepr {
    A = 1,
}

#[derive(VmState)]
#[vmstate(repr = u8)]
enum NoValues {
    A,
    B = 2,
}

#[derive(VmState)]
#[vmstate(repr = u8)]
#[repr(u8)]
enum Data {
    A(u8) = 1,
    B { b: u8 } = 2,
}

#[derive(VmState)]
#[vmstate(repr = u8)]
enum Empty {}

#[derive(VmState)]
#[vmstate(repr = usize)]
enum Wide {
    A = 1,
}

#[derive(VmState)]
#[vmstate(repr = i128)]
enum Huge {
    A = 1,
}

#[derive(VmState)]
#[vmstate(repr = u8, version = 1)]
enum Versioned {
    A = 1,
}

#[derive(VmState)]
#[vmstate(repr = u8)]
enum Attributes {
    #[vmstate(name = "a")]
    A = 1,
}

#[derive(VmState)]
#[vmstate(repr = u8)]
struct Struct {
    a: u8,
}

fn main() {}
