use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(custom(name = "irq", save = Self::save))]
    a: u8,
    #[vmstate(custom(name = "irq", save = Self::save, load = Self::load, length = 4))]
    b: u8,
}

fn main() {}
