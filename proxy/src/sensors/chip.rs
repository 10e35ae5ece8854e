//! What hwmon chips and thermal zones have in common, and the ids that tell them apart.
//!
//! In: chips as `hwmon` and `thermal` read them. Out: the same with an id each, sorted by it.
//! Always: no two chips have one id, and the order does not depend on that in which the kernel lists them, as long
//! as name, address or device differ. Never: touches a file.

use std::collections::BTreeMap;

use super::{Celsius, DropReason, address::Address, attribute};

/// A hwmon chip, or a thermal zone read as one.
pub(super) struct Chip {
    /// The driver's name for it, or the zone's type, fit for an id.
    pub(super) name: String,
    pub(super) address: Address,
    /// The last part of its device's path, if there is a device: `nvme0`.
    pub(super) device: Option<String>,
    /// Its folder in `class/hwmon` or `class/thermal`: the number changes from boot to boot.
    pub(super) number: u32,
    /// The thermal zone that made this chip, if one did.
    pub(super) zone: Option<u32>,
    /// By rising number.
    pub(super) inputs: Vec<Input>,
}

/// One temperature input of a chip.
pub(super) struct Input {
    /// `temp1`
    pub(super) feature: String,
    /// The driver's label, if it gives one.
    pub(super) label: Option<String>,
    pub(super) value: Result<Celsius, NoValue>,
    pub(super) max: Option<Celsius>,
    pub(super) critical: Option<Celsius>,
}

/// Why an input has no value, and what was read instead.
pub(super) struct NoValue {
    pub(super) raw: Option<String>,
    pub(super) why: DropReason,
}

/// A chip and its id.
pub(super) struct Identified {
    pub(super) id: String,
    pub(super) chip: Chip,
}

/// Gives each chip its id, as lm-sensors makes it, and sorts by name and address.
///
/// Of chips that would share an id, each gets its device's name behind an `@`; of those that are still the same, all
/// but the first get `#2`, `#3` and so on, by the number of their folder, which is all that is left.
pub(super) fn identify(mut chips: Vec<Chip>) -> Vec<Identified> {
    chips.sort_by_cached_key(|chip| (chip.name.clone(), chip.address, chip.device.clone(), chip.number));
    let plain = |chip: &Chip| format!("{}-{}", chip.name, chip.address);
    let mut sharing = BTreeMap::<String, usize>::new();
    for chip in &chips {
        *sharing.entry(plain(chip)).or_default() += 1;
    }
    let mut taken = BTreeMap::<String, usize>::new();
    let mut identified = Vec::with_capacity(chips.len());
    for chip in chips {
        let mut id = plain(&chip);
        if let (Some(2..), Some(device)) = (sharing.get(&id), &chip.device) {
            id = format!("{id}@{}", attribute::id_part(device));
        }
        let place = taken.entry(id.clone()).or_default();
        *place += 1;
        if *place > 1 {
            id = format!("{id}#{place}");
        }
        identified.push(Identified { id, chip });
    }
    identified
}
