use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(skip = "configured", since = 1)]
    a: u8,
    #[vmstate(default = 4, skip = "configured")]
    b: u8,
}

fn main() {}
