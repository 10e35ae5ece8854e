//! The thermal zones in `class/thermal`, without those that `class/hwmon` shows already.
//!
//! In: the root of a sysfs and the chips read there. Out: each remaining zone as a chip with the one input `temp`.
//! Always: a zone that owns a hwmon chip is read once, as that chip. Never: reads trip points other than the
//! critical one; the others are set points of fans.

use std::{collections::BTreeMap, path::Path};

use super::{
    Celsius, Dropped, SensorError,
    address::Address,
    attribute::{self, number_in},
    chip::{Chip, Input},
    hwmon,
};

/// Reads every zone that no chip of `chips` stands for.
pub(super) fn read_zones(
    root: &Path,
    chips: &[Chip],
    dropped: &mut Vec<Dropped>,
) -> Result<Vec<Chip>, SensorError> {
    // The first is usually made of links to the second; a captured tree may have either.
    let mut folders = BTreeMap::new();
    for class in ["devices/virtual/thermal", "class/thermal"] {
        for number in hwmon::numbered_folders(&root.join(class), "thermal_zone", dropped)? {
            folders.insert(number, format!("{class}/thermal_zone{number}"));
        }
    }
    let mut zones = Vec::<Chip>::new();
    for (number, folder) in folders {
        match read_zone(&root.join(&folder), number, chips) {
            Ok(zone) => zones.extend(zone),
            Err(error) => dropped.push(hwmon::unreadable(&folder, &error)),
        }
    }
    number_by_type(&mut zones);
    Ok(zones)
}

/// Reads one zone; `None` if it has no temperature or a chip stands for it.
fn read_zone(folder: &Path, number: u32, chips: &[Chip]) -> std::io::Result<Option<Chip>> {
    let files = attribute::entries(folder)?;
    if !files.iter().any(|file| file == "temp") {
        return Ok(None);
    }
    let zone_type = attribute::read(&folder.join("type")).ok();
    let children = files.iter().filter_map(|file| number_in(file, "hwmon", "")).collect::<Vec<_>>();
    if chips.iter().any(|chip| stands_for(chip, number, zone_type.as_deref(), &children)) {
        return Ok(None);
    }
    let name = zone_type.as_deref().unwrap_or("thermal_zone");
    let path = folder.join("temp");
    Ok(Some(Chip {
        name: attribute::id_part(name),
        address: Address::Zone(0),
        device: None,
        number,
        zone: Some(number),
        inputs: vec![Input {
            feature: "temp".to_owned(),
            label: Some(attribute::shown(name)),
            value: hwmon::temperature(attribute::read(&path), &path),
            max: None,
            critical: critical_trip(folder, &files),
        }],
    }))
}

/// Whether `chip` shows what the zone measures: it is the zone's own, or that of its type. The kernel makes one chip
/// for all zones of a type, below the first of them, named after the type with `_` for `-`
/// (`drivers/thermal/thermal_hwmon.c`).
fn stands_for(chip: &Chip, zone: u32, zone_type: Option<&str>, children: &[u32]) -> bool {
    let of_type = || {
        let is_a_zones = chip.zone.is_some() || chip.device.is_none();
        is_a_zones
            && zone_type
                .is_some_and(|zone_type| chip.name == attribute::id_part(&zone_type.replace('-', "_")))
    };
    chip.zone == Some(zone) || children.contains(&chip.number) || of_type()
}

/// The temperature of the zone's critical trip point, if it has one that can be believed.
fn critical_trip(folder: &Path, files: &[String]) -> Option<Celsius> {
    let mut trips =
        files.iter().filter_map(|file| number_in(file, "trip_point_", "_type")).collect::<Vec<_>>();
    trips.sort_unstable();
    let is_critical = |trip: &u32| {
        attribute::read(&folder.join(format!("trip_point_{trip}_type"))).is_ok_and(|kind| kind == "critical")
    };
    // The kernel allows 12 trip points.
    let trip = trips.into_iter().take(12).find(is_critical)?;
    hwmon::limit(&folder.join(format!("trip_point_{trip}_temp")))
}

/// Numbers the zones of each type from 0, in the kernel's order.
fn number_by_type(zones: &mut [Chip]) {
    let mut seen = BTreeMap::<String, u32>::new();
    for zone in zones {
        let place = seen.entry(zone.name.clone()).or_default();
        zone.address = Address::Zone(*place);
        *place += 1;
    }
}
