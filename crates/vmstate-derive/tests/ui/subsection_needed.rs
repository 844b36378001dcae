use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(name = "nic")]
struct State {
    #[vmstate(subsection(needed = Self::needed))]
    part: Option<u8>,
}

fn main() {}
