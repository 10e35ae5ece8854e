//! The chips in `class/hwmon`.
//!
//! In: the root of a sysfs. Out: every chip there with every `tempN_input` it has.
//! Always: one chip or input that cannot be read costs that chip or input only. Of links only `hwmonN`, its
//! `device`, and the `device` of a thermal zone behind it are followed, each once.
//! Never: reads anything but temperatures (nouveau labels its core voltage "GPU core").

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
};

use tracing::debug;

use super::{
    Celsius, DropReason, Dropped, MAX_CHIPS, MAX_INPUTS_PER_CHIP, MAX_READINGS, SensorError,
    address::{Address, address_of},
    attribute::{self, number_in},
    chip::{Chip, Input, NoValue},
};

/// Reads every chip that has at least one temperature input, in the order of the folders' numbers.
///
/// What could not be read at all is added to `dropped`.
pub(super) fn read_chips(root: &Path, dropped: &mut Vec<Dropped>) -> Result<Vec<Chip>, SensorError> {
    let class = root.join("class/hwmon");
    let mut chips = Vec::<Chip>::new();
    let mut inputs = 0;
    for number in numbered_folders(&class, "hwmon", dropped)? {
        if inputs > MAX_READINGS {
            // Not even read: what is over the limit would be thrown away.
            note_excess(inputs, MAX_READINGS, "class/hwmon", dropped);
            break;
        }
        match read_chip(root, &class.join(format!("hwmon{number}")), number, dropped) {
            Ok(chip) => {
                inputs += chip.as_ref().map_or(0, |chip| chip.inputs.len());
                chips.extend(chip);
            }
            Err(error) => dropped.push(unreadable(&format!("class/hwmon/hwmon{number}"), &error)),
        }
    }
    Ok(chips)
}

/// The numbers of the entries `PREFIXn` of a class folder, rising, at most [`MAX_CHIPS`]; none if there is no such
/// folder.
pub(super) fn numbered_folders(
    class: &Path,
    prefix: &str,
    dropped: &mut Vec<Dropped>,
) -> Result<Vec<u32>, SensorError> {
    let names = match attribute::entries(class) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SensorError::List { path: class.to_owned(), source }),
    };
    let mut numbers = names.iter().filter_map(|name| number_in(name, prefix, "")).collect::<Vec<_>>();
    numbers.sort_unstable();
    note_excess(numbers.len(), MAX_CHIPS, &format!("{prefix}*"), dropped);
    numbers.truncate(MAX_CHIPS);
    Ok(numbers)
}

/// A folder or file that could not be read, for diagnosis.
pub(super) fn unreadable(sensor: &str, error: &io::Error) -> Dropped {
    debug!(sensor, error = %error, "sensor skipped: cannot be read");
    Dropped { sensor: sensor.to_owned(), label: String::new(), raw: None, why: DropReason::Unreadable }
}

/// Takes a temperature from the text of its file.
pub(super) fn temperature(text: io::Result<String>, path: &Path) -> Result<Celsius, NoValue> {
    let text = text.map_err(|error| {
        debug!(path = %path.display(), error = %error, "sensor skipped: cannot be read");
        NoValue { raw: None, why: DropReason::Unreadable }
    })?;
    let dropped = |why| NoValue { raw: Some(attribute::shown(&text)), why };
    let millidegrees = text.parse::<i64>().map_err(|_| dropped(DropReason::NotANumber))?;
    Celsius::from_millidegrees(millidegrees).ok_or_else(|| dropped(DropReason::OutOfRange))
}

/// Takes a limit from the text of its file. Drivers write 0, −273.15, 255 or 65261.85 where they have none.
pub(super) fn limit(path: &Path) -> Option<Celsius> {
    let millidegrees = attribute::read(path).ok()?.parse::<i64>().ok()?;
    Celsius::from_millidegrees(millidegrees).filter(|limit| limit.degrees() != 0.0)
}

/// Reads one chip; `None` if it has no temperature input.
fn read_chip(
    root: &Path,
    folder: &Path,
    number: u32,
    dropped: &mut Vec<Dropped>,
) -> io::Result<Option<Chip>> {
    let place = Place::of(root, folder)?;
    let mut attributes = folder.to_owned();
    let mut files = attribute::entries(folder)?.into_iter().collect::<BTreeSet<_>>();
    let mut numbers = input_numbers(&files);
    // Old drivers (applesmc, atk0110) keep their files with the device, and nothing but links with the chip.
    if let (true, false, Some(device)) = (numbers.is_empty(), files.contains("name"), &place.path) {
        attributes.clone_from(device);
        files = attribute::entries(device)?.into_iter().collect();
        numbers = input_numbers(&files);
    }
    if numbers.is_empty() {
        return Ok(None);
    }
    note_excess(numbers.len(), MAX_INPUTS_PER_CHIP, &format!("hwmon{number}/temp*_input"), dropped);
    numbers.truncate(MAX_INPUTS_PER_CHIP);
    let name = attribute::read(&attributes.join("name")).unwrap_or_else(|error| {
        let name = place.device.clone().unwrap_or_else(|| format!("hwmon{number}"));
        debug!(chip = %folder.display(), error = %error, name, "chip has no name of its own");
        name
    });
    let inputs = numbers.into_iter().map(|input| read_input(&attributes, &files, input)).collect();
    Ok(Some(Chip {
        name: attribute::id_part(&name),
        address: place.address,
        device: place.device,
        number,
        zone: place.zone,
        inputs,
    }))
}

/// The numbers N of the files `tempN_input`, rising.
fn input_numbers(files: &BTreeSet<String>) -> Vec<u32> {
    let mut numbers = files.iter().filter_map(|file| number_in(file, "temp", "_input")).collect::<Vec<_>>();
    numbers.sort_unstable();
    numbers
}

/// Reads `tempN_input` and what stands beside it.
fn read_input(attributes: &Path, files: &BTreeSet<String>, number: u32) -> Input {
    let feature = format!("temp{number}");
    let path_of = |suffix: &str| {
        let file = format!("{feature}_{suffix}");
        files.contains(&file).then(|| attributes.join(file))
    };
    let text_of = |suffix: &str| path_of(suffix).and_then(|path| attribute::read(&path).ok());
    let input = attributes.join(format!("{feature}_input"));
    let value = match text_of("fault") {
        Some(fault) if fault != "0" => {
            // Read all the same: what a faulty input says is the first thing that is asked.
            let raw = attribute::read(&input).ok().map(|text| attribute::shown(&text));
            Err(NoValue { raw, why: DropReason::Fault })
        }
        _ => temperature(attribute::read(&input), &input),
    };
    Input {
        label: text_of("label").map(|label| attribute::shown(&label)),
        value,
        max: path_of("max").and_then(|path| limit(&path)),
        critical: path_of("crit").and_then(|path| limit(&path)),
        feature,
    }
}

/// Says that only `limit` of `count` are read.
fn note_excess(count: usize, limit: usize, what: &str, dropped: &mut Vec<Dropped>) {
    if count > limit {
        debug!(what, count, limit, "sensors skipped: too many");
        dropped.push(Dropped {
            sensor: what.to_owned(),
            label: String::new(),
            raw: Some(count.to_string()),
            why: DropReason::TooMany,
        });
    }
}

/// Where a chip sits.
struct Place {
    address: Address,
    /// The device's folder, if its link leads to one below the root.
    path: Option<PathBuf>,
    /// The last part of the device's path.
    device: Option<String>,
    /// The thermal zone that is the chip's device.
    zone: Option<u32>,
}

impl Place {
    /// Finds out where the chip in `folder` sits: by its `device` link; by the text of that link if it leads nowhere,
    /// as in a tree that was captured without its devices; without the link by the chip's own path.
    fn of(root: &Path, folder: &Path) -> io::Result<Self> {
        let link = folder.join("device");
        let (path, parts) = match below(root, &link) {
            Some((path, parts)) => (Some(path), parts),
            None => match fs::read_link(&link) {
                Ok(text) => (None, names_in(&text)),
                Err(_) => {
                    let real = fs::canonicalize(folder)?;
                    return Ok(Self::without_device(root, &real));
                }
            },
        };
        let device = parts.last().cloned();
        let zone = device.as_deref().and_then(|device| number_in(device, "thermal_zone", ""));
        let mut address = address_of(&parts);
        // The kernel lists zones as virtual; firmware's zones link to the device that they stand for.
        if let (Some(path), Some(_), Address::Virtual) = (&path, zone, address) {
            address = below(root, &path.join("device")).map_or(address, |(_, parts)| address_of(&parts));
        }
        Ok(Self { address, path, device, zone })
    }

    /// As [`Place::of`], for a chip without a `device` link, by the folder that it really is.
    fn without_device(root: &Path, real: &Path) -> Self {
        let parts = real.strip_prefix(root).map(names_in).unwrap_or_default();
        let zone = parts.iter().rev().find_map(|part| number_in(part, "thermal_zone", ""));
        // A folder that lies in the class itself says nothing about any bus.
        let address = if parts.first().is_some_and(|first| first == "devices") {
            address_of(&parts)
        } else {
            Address::Virtual
        };
        Self { address, path: None, device: None, zone }
    }
}

/// Follows a link to what it names; the path's parts below the root. `None` if it leads nowhere or out of sysfs.
fn below(root: &Path, link: &Path) -> Option<(PathBuf, Vec<String>)> {
    let path = fs::canonicalize(link).ok()?;
    let parts = names_in(path.strip_prefix(root).ok()?);
    Some((path, parts))
}

/// The names in a path, without `.`, `..` and what is not UTF-8.
fn names_in(path: &Path) -> Vec<String> {
    let name = |component| match component {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    };
    path.components().filter_map(name).collect()
}
