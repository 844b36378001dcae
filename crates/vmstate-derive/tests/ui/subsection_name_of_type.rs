use vmstate_derive::VmState;

#[derive(VmState, Default)]
#[vmstate(name = "other")]
struct Part {
    a: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic")]
struct State {
    #[vmstate(subsection)]
    part: Option<Part>,
}

fn main() {}
