use vmstate_derive::VmState;

#[derive(Default, VmState)]
struct State {
    a: u8,
}

#[derive(VmState)]
enum Good {
    #[vmstate(case = 1)]
    One(State),
    #[vmstate(case = 2)]
    None,
}

#[derive(VmState)]
enum NoCase {
    #[vmstate(case = 1)]
    One(State),
    Two(State),
}

#[derive(VmState)]
enum Twice {
    #[vmstate(case = 1)]
    One(State),
    #[vmstate(case = 0x1)]
    Two(State),
}

#[derive(VmState)]
enum Fields {
    #[vmstate(case = 1)]
    One { a: u8 },
    #[vmstate(case = 2)]
    Two(u8, u8),
}

#[derive(VmState)]
enum Unknown {
    #[vmstate(cases = 1)]
    One(State),
}

#[derive(VmState)]
#[vmstate(name = "versioned", version = 1)]
enum Versioned {
    #[vmstate(case = 1)]
    One(State),
}

#[derive(VmState)]
struct Missing {
    #[vmstate(variant = kind)]
    target: Good,
}

#[derive(VmState)]
struct Behind {
    #[vmstate(variant = kind)]
    target: Good,
    kind: u8,
}

#[derive(VmState)]
struct Skipped {
    #[vmstate(skip = "configured")]
    kind: u8,
    #[vmstate(variant = kind)]
    target: Good,
}

#[derive(VmState)]
struct NotInteger {
    kind: bool,
    #[vmstate(variant = kind)]
    target: Good,
}

#[derive(VmState)]
struct Several {
    kind: u8,
    #[vmstate(variant = kind)]
    target: [Good; 2],
}

#[derive(VmState)]
struct Combined {
    kind: u8,
    #[vmstate(variant = kind, count = kind, max = 2)]
    target: Good,
}

fn main() {}
