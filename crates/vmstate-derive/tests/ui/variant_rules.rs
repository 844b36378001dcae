use vmstate_derive::VmState;

#[derive(Default, VmState)]
struct State {
    a: u8,
}

#[derive(VmState)]
enum Wide {
    #[vmstate(case = 1)]
    One(State),
    #[vmstate(case = 256)]
    None,
}

#[derive(VmState)]
struct Narrow {
    kind: u8,
    #[vmstate(variant = kind)]
    target: Wide,
}

#[derive(VmState)]
#[vmstate(version = 2, minimum_version = 1)]
struct Younger {
    #[vmstate(since = 2)]
    kind: u16,
    #[vmstate(variant = kind)]
    target: Wide,
}

const ONE: u8 = 1;

#[derive(VmState)]
enum Unordered {
    #[vmstate(case = 2)]
    Two(State),
    #[vmstate(case = ONE)]
    One(State),
}

#[derive(VmState)]
struct Order {
    kind: u8,
    #[vmstate(variant = kind)]
    target: Unordered,
}

#[derive(VmState)]
enum Scalar {
    #[vmstate(case = 1)]
    One(u8),
}

#[derive(VmState)]
struct NotStruct {
    kind: u8,
    #[vmstate(variant = kind)]
    target: Scalar,
}

fn main() {}
