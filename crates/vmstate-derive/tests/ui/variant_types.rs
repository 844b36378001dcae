use vmstate_derive::VmState;

#[derive(Default, VmState)]
struct State {
    a: u8,
}

#[derive(VmState)]
enum Good {
    #[vmstate(case = 1)]
    One(State),
    #[vmstate(case = 256)]
    None,
}

#[derive(VmState)]
struct Alone {
    target: Good,
}

#[derive(VmState)]
struct NoCases {
    kind: u8,
    #[vmstate(variant = kind)]
    target: State,
}

#[derive(VmState)]
struct OtherDiscriminant {
    kind: State,
    #[vmstate(variant = kind)]
    target: Good,
}

struct Plain;

#[derive(VmState)]
enum NotState {
    #[vmstate(case = 1)]
    One(Plain),
}

fn main() {}
