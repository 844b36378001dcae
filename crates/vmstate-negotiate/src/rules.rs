//! The rules by which ends are compared as a whole. Sections are compared by the rules of `vmstate-schema`.

vmstate_schema::rule_table! {
    /// A rule about two ends as a whole. What each of them says is in `docs/check-rules.md`.
    pub enum Rule;

    /// The versions of the protocol.
    N01: "no version of the protocol in common",
        "migrate with the QEMU stream (x-peer=qemu), or through a release that speaks a version of both";
    /// What one end needs.
    N02: "required capability is missing at the other end",
        "set the same capabilities at both ends before migrating";
    /// What one end would like.
    N03: "wanted capability is not used",
        "nothing, unless you rely on it";
    /// What one end has more of than the other takes.
    N04: "limit exceeded",
        "raise the limit of the destination";
    /// The size of target pages.
    N05: "target page size differs",
        "start the destination with the machine type and CPU of the source";
    /// The instruction set.
    N06: "architecture differs",
        "start the destination for the architecture of the source";
    /// The two machines.
    N08: "machine type differs",
        "start the destination with the machine type of the source";
    /// A peer that only speaks QEMU's stream.
    N09: "the peer does not speak VM state over BER",
        "start a peer that does, or allow the QEMU stream (x-peer=auto)";
    /// What the stream does not say, because both ends must have it.
    N10: "number of elements differs",
        "configure the destination as the source is: as many processors, queues or ports";
}

/// What somebody can do about a finding of this rule, whoever's it is.
pub(crate) fn advice(id: &str) -> Option<&'static str> {
    let ours = Rule::by_id(id).map(Rule::advice);
    ours.or_else(|| vmstate_schema::Rule::by_id(id).map(vmstate_schema::Rule::advice))
}
