//! 8259 interrupt controller.

use vmstate_derive::VmState;

/// Section `i8259`: instance 0 is the one at the processor, instance 1 the one behind it. Registers have a bit per input.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "i8259", version = 1, minimum_version = 1)]
pub struct Pic {
    /// Levels of the inputs at the last look, for edges.
    #[vmstate(name = "last_irr")]
    pub last_inputs: u8,
    /// Interrupt requests.
    #[vmstate(name = "irr")]
    pub requested: u8,
    /// Masked inputs.
    #[vmstate(name = "imr")]
    pub masked: u8,
    /// Interrupts in service.
    #[vmstate(name = "isr")]
    pub in_service: u8,
    /// Input with the highest priority.
    #[vmstate(name = "priority_add")]
    pub highest_priority: u8,
    /// Vector of input 0.
    #[vmstate(name = "irq_base")]
    pub vector_base: u8,
    /// Which register is read: 0 requests, 1 interrupts in service.
    pub read_reg_select: u8,
    /// Not 0 in poll mode.
    pub poll: u8,
    /// Not 0 in special mask mode.
    pub special_mask: u8,
    /// Which initialisation word comes next; 0 if none.
    pub init_state: u8,
    /// Not 0 if interrupts end by themselves.
    pub auto_eoi: u8,
    /// Not 0 if priorities rotate when interrupts end by themselves.
    pub rotate_on_auto_eoi: u8,
    /// Not 0 in special fully nested mode.
    pub special_fully_nested_mode: u8,
    /// Not 0 if a fourth initialisation word comes.
    pub init4: u8,
    /// Not 0 if there is one controller only.
    pub single_mode: u8,
    /// Level-triggered inputs.
    #[vmstate(name = "elcr")]
    pub level_triggered: u8,
    /// All inputs are level-triggered, whatever [`Pic::level_triggered`] says. QEMU 10.0 and later.
    #[vmstate(subsection)]
    pub all_level_triggered: Option<AllLevelTriggered>,
}

/// Subsection `i8259/ltim`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "i8259/ltim", version = 1, minimum_version = 1)]
pub struct AllLevelTriggered {
    /// The bit of the first initialisation word: 8 if set.
    #[vmstate(name = "ltim")]
    pub bit: u8,
}

impl Pic {
    /// Whether an input is level-triggered.
    #[must_use]
    pub fn is_level_triggered(&self, input: u8) -> bool {
        let all = self
            .all_level_triggered
            .as_ref()
            .is_some_and(|l| l.bit != 0);
        all || 1_u8
            .checked_shl(input.into())
            .is_some_and(|bit| self.level_triggered & bit != 0)
    }
}
