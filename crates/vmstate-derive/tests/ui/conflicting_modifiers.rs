use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    len: u8,
    #[vmstate(count = len, max = 1, range = 0..1)]
    e: [u8; 4],
    #[vmstate(subsection, since = 1)]
    f: Option<u8>,
    #[vmstate(size = 4)]
    g: [u8; 4],
    #[vmstate(buffer, bits = 4)]
    h: [u8; 4],
    #[vmstate(tmp = u8, count = len, max = 1)]
    i: (),
}

fn main() {}
