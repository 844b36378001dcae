use vmstate_derive::VmState;

type Hidden = i64;

#[derive(VmState)]
struct State {
    #[vmstate(equal)]
    a: Hidden,
}

fn main() {}
