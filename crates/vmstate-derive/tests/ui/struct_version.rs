use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(struct_version = 1)]
    a: u8,
}

fn main() {}
