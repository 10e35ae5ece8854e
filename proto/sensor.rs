//! [`SensorKind`]: what a sensor measures, with one word for it in JSON, tables, logs and the database.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::v1;

/// What a sensor measures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SensorKind {
    /// A CPU as a whole: the one chosen reading of each socket. The highest is the node's CPU temperature.
    CpuPackage,
    /// One core of a CPU.
    CpuCore,
    /// Another temperature of a CPU: a chiplet (Tccd), or a package reading that a better one replaced.
    CpuDie,
    /// An NVMe drive.
    Nvme,
    /// A SATA, SAS or USB disk.
    Disk,
    /// A graphics processor.
    Gpu,
    /// The chipset, or another controller beside the CPU.
    Chipset,
    /// A memory module.
    Memory,
    /// A network interface, wired or wireless.
    Network,
    /// The mainboard: what a Super-I/O chip or an embedded controller measures.
    Board,
    /// A zone that the firmware or the kernel reports, of unknown place.
    Acpi,
    /// Anything else.
    Other,
}

impl SensorKind {
    /// All of them.
    pub const ALL: [SensorKind; 12] = [
        SensorKind::CpuPackage,
        SensorKind::CpuCore,
        SensorKind::CpuDie,
        SensorKind::Nvme,
        SensorKind::Disk,
        SensorKind::Gpu,
        SensorKind::Chipset,
        SensorKind::Memory,
        SensorKind::Network,
        SensorKind::Board,
        SensorKind::Acpi,
        SensorKind::Other,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SensorKind::CpuPackage => "cpu_package",
            SensorKind::CpuCore => "cpu_core",
            SensorKind::CpuDie => "cpu_die",
            SensorKind::Nvme => "nvme",
            SensorKind::Disk => "disk",
            SensorKind::Gpu => "gpu",
            SensorKind::Chipset => "chipset",
            SensorKind::Memory => "memory",
            SensorKind::Network => "network",
            SensorKind::Board => "board",
            SensorKind::Acpi => "acpi",
            SensorKind::Other => "other",
        }
    }
}

impl fmt::Display for SensorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SensorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl From<SensorKind> for v1::SensorKind {
    fn from(kind: SensorKind) -> Self {
        match kind {
            SensorKind::CpuPackage => v1::SensorKind::CpuPackage,
            SensorKind::CpuCore => v1::SensorKind::CpuCore,
            SensorKind::CpuDie => v1::SensorKind::CpuDie,
            SensorKind::Nvme => v1::SensorKind::Nvme,
            SensorKind::Disk => v1::SensorKind::Disk,
            SensorKind::Gpu => v1::SensorKind::Gpu,
            SensorKind::Chipset => v1::SensorKind::Chipset,
            SensorKind::Memory => v1::SensorKind::Memory,
            SensorKind::Network => v1::SensorKind::Network,
            SensorKind::Board => v1::SensorKind::Board,
            SensorKind::Acpi => v1::SensorKind::Acpi,
            SensorKind::Other => v1::SensorKind::Other,
        }
    }
}

/// A kind that is unset, or that only a newer version knows, is another one here.
impl From<v1::SensorKind> for SensorKind {
    fn from(wire: v1::SensorKind) -> Self {
        SensorKind::ALL
            .into_iter()
            .find(|kind| v1::SensorKind::from(*kind) == wire)
            .unwrap_or(SensorKind::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_survives_the_wire_and_is_called_as_the_contract_calls_it() {
        for kind in SensorKind::ALL {
            let wire = v1::SensorKind::from(kind);
            assert_eq!(SensorKind::from(wire), kind);
            assert_eq!(wire.as_str_name(), format!("SENSOR_KIND_{}", kind.as_str().to_uppercase()));
        }
        assert_eq!(SensorKind::from(v1::SensorKind::Unspecified), SensorKind::Other);
    }
}
