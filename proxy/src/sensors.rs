//! The temperatures of this host, from sysfs.
//!
//! On the ring: beside `gate`, below `collect`, which decides when and whether to read.
//! In: the root of a sysfs (`/sys`, or a captured tree). Out: [`Readings`], one per temperature input.
//! Always: the same tree gives the same readings in the same order; what is missing is missing, never 0; the
//! package temperature of a host is the highest reading of kind [`SensorKind::CpuPackage`], and of one kind of
//! CPU sensor only; the work is bounded by the limits below.
//! Never: starts a program, walks a folder recursively, writes, or knows which node this host is.
//!
//! All of it blocks: callers run it where blocking is allowed.
//!
//! Source: Linux kernel, `Documentation/hwmon/sysfs-interface.rst` and `Documentation/driver-api/thermal/sysfs-api.rst`.

mod address;
mod attribute;
mod chip;
mod hwmon;
mod kind;
mod thermal;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use pulse_proto::SensorKind;
use serde::Serialize;

/// Hwmon chips, and thermal zones, read at most. A storage server with a chip for each of 200 disks fits twice.
pub const MAX_CHIPS: usize = 512;

/// Temperature inputs of one chip read at most. The largest socket has 288 cores and a package.
pub const MAX_INPUTS_PER_CHIP: usize = 512;

/// Readings of one host at most: the temperatures of eight of the largest sockets, and 1792 others.
pub const MAX_READINGS: usize = pulse_proto::MAX_READINGS;

/// A temperature in degrees Celsius.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Celsius(f64);

impl Celsius {
    /// The coldest value that is believed.
    pub const LOWEST: Self = Self(-40.0);
    /// The hottest value that is believed.
    pub const HIGHEST: Self = Self(150.0);

    /// Takes thousandths of a degree, as the kernel gives them.
    ///
    /// `None` for what no sensor of a running machine can mean: below [`Celsius::LOWEST`] or above
    /// [`Celsius::HIGHEST`].
    pub fn from_millidegrees(millidegrees: i64) -> Option<Self> {
        // Exact for every value in the range: both are exact in f64, so the quotient is the nearest double.
        let celsius = Self(millidegrees as f64 / 1000.0);
        (Self::LOWEST..=Self::HIGHEST).contains(&celsius).then_some(celsius)
    }

    /// The number of degrees Celsius.
    pub fn degrees(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Celsius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} °C", self.0)
    }
}

/// One temperature input and what it said.
///
/// All text is cleaned for logs and screens: no control characters, at most 64 characters a part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// The chip's id as lm-sensors makes it, and the input: `coretemp-isa-0000/temp1`. Stays the same over
    /// restarts, which the number of a `hwmonN` folder does not.
    pub sensor: String,
    /// The chip's name: `coretemp`.
    pub chip: String,
    /// The driver's label, or the name of the input if it has none: `Core 0`, `temp1`.
    pub label: String,
    /// What is measured.
    pub kind: SensorKind,
    /// The temperature.
    #[serde(rename = "temperature_celsius")]
    pub temperature: Celsius,
    /// The highest temperature for normal use; `None` if the driver gives none that can be believed.
    #[serde(rename = "max_celsius", skip_serializing_if = "Option::is_none")]
    pub max: Option<Celsius>,
    /// The temperature at which damage begins or the machine stops; `None` as with `max`.
    #[serde(rename = "critical_celsius", skip_serializing_if = "Option::is_none")]
    pub critical: Option<Celsius>,
}

/// The temperature of the hottest CPU of the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuPackage {
    /// [`Reading::sensor`] of the reading it comes from.
    pub sensor: String,
    /// The temperature.
    #[serde(rename = "temperature_celsius")]
    pub temperature: Celsius,
}

/// Why an input gave no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Below −40 °C or above 150 °C.
    OutOfRange,
    /// Its file does not hold a whole number.
    NotANumber,
    /// The chip itself says that the input is faulty, or not connected.
    Fault,
    /// The file or folder cannot be read, or is empty; the log has the error at level debug.
    Unreadable,
    /// More chips or inputs than are read.
    TooMany,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "outside -40 to 150 °C",
            Self::NotANumber => "not a number",
            Self::Fault => "the chip reports a fault",
            Self::Unreadable => "cannot be read",
            Self::TooMany => "more than are read",
        })
    }
}

/// An input that exists and gave no reading, kept for diagnosis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// As [`Reading::sensor`]; for a whole chip or folder its name below the sysfs root.
    pub sensor: String,
    /// As [`Reading::label`].
    pub label: String,
    /// What the file holds (thousandths of a degree if it is a number), if it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// Why it gave no reading.
    pub why: DropReason,
}

/// Everything that one reading of a host gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Readings {
    /// The readings, by rising chip id and then by rising number of the input.
    pub readings: Vec<Reading>,
    /// The highest reading of kind [`SensorKind::CpuPackage`], the first of equals; `None` if there is none.
    pub cpu_package: Option<CpuPackage>,
    /// The inputs that gave none.
    pub dropped: Vec<Dropped>,
}

/// Sysfs cannot be read as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SensorError {
    /// The root is missing or no folder.
    #[error("open sysfs at {} (`sensors.sysfs_root` says where it is)", path.display())]
    Root {
        /// The root that was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder of chips or zones exists and cannot be listed.
    #[error("list the sensors in {} (the proxy's user must be able to read it)", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads every temperature of the host whose sysfs is at `sysfs_root`: `temp*_input` of every chip in
/// `class/hwmon`, and every thermal zone that is not already one of those chips.
///
/// A host without any sensor gives no readings and no error. An input that cannot be read, is faulty or cannot
/// be believed is in [`Readings::dropped`], and the others are read all the same.
///
/// # Errors
/// [`SensorError::Root`] if there is no folder at `sysfs_root`, [`SensorError::List`] if a folder of chips or
/// zones exists and cannot be listed.
pub fn read_host(sysfs_root: &Path) -> Result<Readings, SensorError> {
    let root = fs::canonicalize(sysfs_root)
        .and_then(|root| fs::read_dir(&root).map(|_| root))
        .map_err(|source| SensorError::Root { path: sysfs_root.to_owned(), source })?;
    let mut dropped = Vec::new();
    let mut chips = hwmon::read_chips(&root, &mut dropped)?;
    let zones = thermal::read_zones(&root, &chips, &mut dropped)?;
    chips.extend(zones);
    Ok(readings_of(chip::identify(chips), dropped))
}

/// Joins values, ids and kinds. `chips` are in the order of their ids.
fn readings_of(chips: Vec<chip::Identified>, mut dropped: Vec<Dropped>) -> Readings {
    let kinds = kind::kinds_of(&chips);
    let mut readings = Vec::new();
    for (chip::Identified { id, chip }, kinds) in chips.into_iter().zip(kinds) {
        for (input, kind) in chip.inputs.into_iter().zip(kinds) {
            let sensor = format!("{id}/{}", input.feature);
            let label = input.label.unwrap_or(input.feature);
            match input.value {
                Ok(temperature) if readings.len() < MAX_READINGS => readings.push(Reading {
                    sensor,
                    chip: chip.name.clone(),
                    label,
                    kind,
                    temperature,
                    max: input.max,
                    critical: input.critical,
                }),
                Ok(_) => dropped.push(Dropped { sensor, label, raw: None, why: DropReason::TooMany }),
                Err(chip::NoValue { raw, why }) => dropped.push(Dropped { sensor, label, raw, why }),
            }
        }
    }
    let packages = readings.iter().filter(|reading| reading.kind == SensorKind::CpuPackage);
    let hottest =
        packages.reduce(|first, next| if next.temperature > first.temperature { next } else { first });
    let cpu_package = hottest
        .map(|reading| CpuPackage { sensor: reading.sensor.clone(), temperature: reading.temperature });
    Readings { readings, cpu_package, dropped }
}

#[cfg(test)]
mod tests;
