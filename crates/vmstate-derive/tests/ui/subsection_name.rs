use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(name = "nic", subsection(name = "vlan", fields(a)))]
struct Prefix {
    a: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic", subsection(name = "nic", fields(a)))]
struct Same {
    a: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic")]
#[vmstate(subsection(name = "nic/a", fields(a), subsection(name = "nic/b", fields(b))))]
struct Nested {
    a: u8,
    b: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic", subsection(fields(a)))]
struct NoName {
    a: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic", subsection(name = "nic/a", version = 256, fields(a)))]
struct Version {
    a: u8,
}

fn main() {}
