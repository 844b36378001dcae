use vmstate_derive::VmState;

const NEW: u32 = 3;

#[derive(VmState)]
#[vmstate(version = 2)]
struct State {
    #[vmstate(since = NEW)]
    a: u8,
}

fn main() {}
