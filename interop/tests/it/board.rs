//! The machines of the tests. Each comes with a guest that shows that it runs by changing a word of its memory.

use vmstate_interop::{Generation, Machine, Program, Ram, Result, find};

/// A machine with its devices and its guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Board {
    /// As in `qemu-system-ARCHITECTURE`.
    pub(crate) architecture: &'static str,
    /// Machine type; the generation's number is put behind a final `-`.
    pub(crate) machine: &'static str,
    /// Main memory.
    pub(crate) ram: Ram<'static>,
    /// Further arguments, separated by blanks.
    pub(crate) arguments: &'static str,
    /// Program of the guest, in the machine's directory as `guest`.
    pub(crate) guest: &'static [u8],
    /// Offset in main memory of a word that the running guest changes.
    pub(crate) pulse: u64,
}

/// Where the BIOS counts ticks, 18 a second.
const BIOS_TICKS: u64 = 0x46c;

pub(crate) const PC: Board = Board {
    architecture: "x86_64",
    machine: "pc-i440fx-",
    ram: Ram {
        block: "pc.ram",
        size: 16 << 20,
    },
    arguments: "-rtc base=2026-01-01T00:00:00,clock=vm -device VGA,vgamem_mb=1,romfile= -device e1000,romfile= \
        -device rtl8139,romfile= -device virtio-rng-pci -device virtio-net-pci,romfile= -device piix3-usb-uhci \
        -device usb-tablet -device usb-kbd -serial null -parallel null -device virtio-serial-pci \
        -device virtio-balloon-pci -device i6300esb -device lsi53c895a -device sdhci-pci -device pvpanic",
    guest: b"",
    pulse: BIOS_TICKS,
};

pub(crate) const Q35: Board = Board {
    architecture: "x86_64",
    machine: "pc-q35-",
    ram: Ram {
        block: "pc.ram",
        size: 32 << 20,
    },
    arguments: "-smp 2 -device e1000e,romfile= -device vmxnet3,romfile= -device virtio-rng-pci \
        -device virtio-scsi-pci -device virtio-net-pci,romfile= -device ich9-usb-ehci1 -device usb-mouse \
        -device qemu-xhci,id=x -device usb-tablet,bus=x.0 -serial null -device pcie-root-port,id=p,chassis=1 \
        -device virtio-keyboard-pci,bus=p -device ioh3420,chassis=2 -audiodev none,id=a -device AC97,audiodev=a -device bochs-display,vgamem=4M \
        -device pci-bridge,chassis_nr=3",
    guest: b"",
    pulse: BIOS_TICKS,
};

/// A PC whose firmware does nothing but count in sixteen pages, from 64 KiB on.
pub(crate) const COUNTING_PC: Board = Board {
    architecture: "x86_64",
    machine: "pc-i440fx-",
    ram: Ram {
        block: "pc.ram",
        size: 16 << 20,
    },
    arguments: "-bios DIR/guest -serial null -device e1000,romfile=",
    guest: &counting_firmware(),
    pulse: 0x1_0000,
};

pub(crate) const SPIKE: Board = Board {
    architecture: "riscv64",
    machine: "spike",
    ram: Ram {
        block: "riscv.spike.ram",
        size: 16 << 20,
    },
    arguments: "-smp 2 -bios DIR/guest",
    guest: RISCV_COUNTER,
    pulse: 0x1000,
};

pub(crate) const RISCV_VIRT: Board = Board {
    architecture: "riscv64",
    machine: "virt",
    ram: Ram {
        block: "riscv_virt_board.ram",
        size: 16 << 20,
    },
    arguments: "-bios DIR/guest -serial null -device virtio-rng-pci -device virtio-net-pci,romfile= \
        -device virtio-serial-device -device e1000e,romfile=",
    guest: RISCV_COUNTER,
    pulse: 0x1000,
};

pub(crate) const ARM_VIRT: Board = Board {
    architecture: "aarch64",
    machine: "virt-",
    ram: Ram {
        block: "mach-virt.ram",
        size: 16 << 20,
    },
    arguments: "-cpu cortex-a57 -device loader,file=DIR/guest,addr=0x40200000,cpu-num=0,force-raw=on -serial null \
        -device virtio-rng-pci -device virtio-net-device -device qemu-xhci -device usb-kbd",
    guest: ARM_COUNTER,
    pulse: 0x10_0000,
};

/// ```text
/// F000:0000   mov ax, 0x1000; mov ds, ax
/// again:      xor si, si
/// page:       inc word [si]; add si, 0x1000; jnz page; jmp again
/// F000:FFF0   jmp F000:0000
/// ```
const fn counting_firmware() -> [u8; 0x1_0000] {
    const PROGRAM: [u8; 17] = [
        0xb8, 0x00, 0x10, 0x8e, 0xd8, 0x31, 0xf6, 0xff, 0x04, 0x81, 0xc6, 0x00, 0x10, 0x75, 0xf8,
        0xeb, 0xf4,
    ];
    let mut image = [0; 0x1_0000];
    let mut at = 0;
    while at < PROGRAM.len() {
        image[at] = PROGRAM[at];
        at += 1;
    }
    image[0xfff0] = 0xea;
    image[0xfff4] = 0xf0;
    image
}

/// ```text
///         auipc t0, 1
/// again:  ld t1, 0(t0); addi t1, t1, 1; sd t1, 0(t0); j again
/// ```
const RISCV_COUNTER: &[u8] = &[
    0x97, 0x12, 0x00, 0x00, 0x03, 0xb3, 0x02, 0x00, 0x13, 0x03, 0x13, 0x00, 0x23, 0xb0, 0x62, 0x00,
    0x6f, 0xf0, 0x5f, 0xff,
];

/// ```text
///         movz x0, #0x4010, lsl #16
/// again:  ldr x1, [x0]; add x1, x1, #1; str x1, [x0]; b again
/// ```
const ARM_COUNTER: &[u8] = &[
    0x00, 0x02, 0xa8, 0xd2, 0x01, 0x00, 0x40, 0xf9, 0x21, 0x04, 0x00, 0x91, 0x01, 0x00, 0x00, 0xf9,
    0xfd, 0xff, 0xff, 0x17,
];

/// Further arguments: a monitor beside the harness's own, at `drive` in the machine's directory.
pub(crate) const MONITOR: &[&str] = &[
    "-chardev",
    "socket,id=drive,path=DIR/drive,server=on,wait=off",
    "-mon",
    "chardev=drive,mode=control",
];

/// Changes of its word until a guest counts as running: half a second of BIOS ticks.
const BEATS: usize = 10;

impl Board {
    /// The QEMU that runs this board, if there is one.
    pub(crate) fn find(&self, generation: Generation) -> Option<Program> {
        find(generation, self.architecture)
    }

    /// A machine whose guest has run for a while.
    pub(crate) fn start(&self, program: &Program) -> Result<Machine> {
        let mut machine = self.launch(program, &[])?;
        for _ in 0..BEATS {
            machine.wait_for_change(self.pulse)?;
        }
        Ok(machine)
    }

    /// A machine that waits for a stream and will not run by itself.
    pub(crate) fn waiting(&self, program: &Program) -> Result<Machine> {
        self.launch(program, &["-S", "-incoming", "defer"])
    }

    /// A machine with further arguments.
    pub(crate) fn launch(&self, program: &Program, more: &[&str]) -> Result<Machine> {
        self.launch_as(program, program.generation, more)
    }

    /// The same with the machine type of a generation.
    pub(crate) fn launch_as(
        &self,
        program: &Program,
        generation: Generation,
        more: &[&str],
    ) -> Result<Machine> {
        let mut machine = self.machine.to_owned();
        if machine.ends_with('-') {
            machine += generation.number();
        }
        let mut arguments = vec![
            "-machine".to_owned(),
            format!("{machine},memory-backend={}", self.ram.block),
        ];
        arguments.extend(self.arguments.split_whitespace().map(str::to_owned));
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        Machine::start(program, self.ram, &[("guest", self.guest)], &arguments)
    }
}

/// Stops the guest where QEMU cannot be trusted with a running one: before 9.0, writes of an emulated processor
/// between two rounds may be missed, and the stream then has other memory than the machine.
pub(crate) fn settle(machine: &mut Machine, generation: Generation) -> Result<()> {
    if generation == Generation::V7_2 {
        machine.run("stop", serde_json::json!({}))?;
    }
    Ok(())
}
