//! The rules by number. What each of them says is in `docs/check-rules.md`.

crate::rule_table! {
    /// A rule: what kind of difference was found. What each of them says is in `docs/check-rules.md`.
    pub enum Rule;

    /// Two sections whose types, with all that they embed, are the same.
    C00: "identical digest",
        "nothing";
    /// A field that only versions from the new one on have.
    C01: "field added with a new version",
        "move guests to the newer side only, or send the field in a subsection that is left out for older machine types";
    /// A field without a version gate or test.
    C02: "field added without a version",
        "raise the version and give the field that version, or put it into a subsection";
    /// A field whose presence the device decides.
    C03: "conditional field added",
        "make sure that the condition is false for machine types that the other side knows";
    /// A field that only the older side has.
    C04: "field removed",
        "keep its place: unused bytes of the same size, with the old name as an alias";
    /// Unused bytes in place of fields, or the reverse.
    C05: "field replaced by unused bytes",
        "nothing, if the device does without the value";
    /// Another name, and an alias says so.
    C06: "field renamed, with an alias",
        "nothing";
    /// Another name for something of the same size at the same place.
    C07: "field renamed, without an alias",
        "if it is the same thing, say so with an alias; if it is another, give it a place of its own";
    /// More bytes for a number.
    C08: "number widened",
        "keep the old field, and send the wider value in a new version or a subsection";
    /// Fewer bytes for a number.
    C09: "number narrowed",
        "keep the width that travels; convert when loading";
    /// Another kind of thing.
    C10: "kind changed",
        "keep the old field for older streams, and add a new one with a new version";
    /// Signed and unsigned.
    C11: "signedness changed",
        "check that no value has its highest bit set";
    /// Another fixed number of elements, bytes or bits.
    C12: "fixed length changed",
        "add a second field for the new part, with a new version, or in a subsection";
    /// A number of elements that is now counted at run time, or no longer.
    C13: "fixed and counted length exchanged",
        "check that the counts agree on both sides";
    /// Another counter, or another factor.
    C14: "count changed",
        "keep the count that travels";
    /// A subsection that only the newer side has.
    C15: "subsection added",
        "make sure that it is not needed for machine types that the other side knows";
    /// A subsection that only the older side has.
    C16: "subsection removed",
        "keep the subsection for loading, even if it is never needed for saving";
    /// Another version that is saved.
    C17: "version changed",
        "save the older version for older machine types, or use subsections in place of versions";
    /// Older versions are no longer loaded.
    C18: "minimum version raised above what the other side writes",
        "keep loading the older version, or move guests through a release that knows both";
    /// The same fields in another order.
    C19: "order of fields changed",
        "restore the order";
    /// The same fields, now inside of an embedded structure or no longer.
    C20: "fields moved into or out of a structure",
        "nothing for QEMU streams; for BER give aliases with the path";
    /// A section that only the reader has.
    C21: "section only in the destination",
        "check that the device may stay as it is after reset";
    /// A section that only the writer has.
    C22: "section only in the source",
        "configure the same devices on both sides";
    /// A section whose instance id or path differs.
    C23: "section has another name or instance id",
        "put the device at the same place of its bus, or register an alias for the old instance id";
    /// A value that must be equal, a validator.
    C24: "check added or removed",
        "make sure that both sides are configured equally";
    /// Something else decides about presence.
    C25: "condition of a field changed",
        "compare the conditions in the code: the files do not say them";
    /// Markers for absent elements.
    C26: "elements may now be absent",
        "make sure that both sides have the same elements";
    /// Markers before every element.
    C27: "markers of pointers changed",
        "keep the form of the array, and add a new field for the new one";
    /// What stands around the elements of a list.
    C28: "framing of a list changed",
        "keep the old list for older versions, and add a new one";
    /// Another number of bits in as many words.
    C29: "number of bits changed within the same words",
        "check that no bit beyond the smaller number is set";
    /// Another name for the same bytes.
    C30: "kind changed within one family",
        "nothing";
    /// Bytes that nobody described are described now, or no longer.
    C31: "undescribed bytes are described now, or the reverse",
        "check with real streams that both have the same bytes";
    /// One of the two does not migrate at all.
    C32: "device cannot be migrated",
        "unplug the device before migrating";
    /// Another place in the stream.
    C33: "priority or early setup changed",
        "check that no device depends on the order";
    /// Another version from or up to which a field is there.
    C34: "version gate of a field changed",
        "give the field the version again that it had";
    /// Another bound of this end for a count.
    C35: "bound of a count changed",
        "raise the bound of the side that reads";
    /// Embedded structures carry no version.
    C36: "version of an embedded structure changed, which does not travel",
        "gate new fields of embedded structures by a test of the enclosing device, or raise the enclosing version";
    /// Two subsections that only their content tells apart.
    C37: "several subsections of one name",
        "give each a name of its own; QEMU loads all of them as the first";
    /// A value of the discriminant that has a case on one side only.
    C38: "case of a variant added or removed",
        "make sure that the other side is never sent a case that it does not know";
    /// Another field decides about the case, or the same one by another name.
    C39: "discriminant of a variant changed",
        "nothing, if the field was renamed; else keep the field that decides";
    /// Sections of the core, and devices that register their state by themselves.
    N07: "section that no class of the dump describes",
        "compare it with a stream of the other side, if it matters";
    /// The two machines.
    N08: "machine type differs",
        "start the destination with the machine type of the source (-machine)";
}
