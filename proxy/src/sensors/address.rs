//! Where a chip sits, from the path of its device.
//!
//! In: the parts of a device's path below the sysfs root. Out: an [`Address`], written as lm-sensors writes it, so
//! that `coretemp-isa-0000` here is `coretemp-isa-0000` in the output of `sensors`.
//! Always: pure; two boots of one machine give the same address wherever the bus numbers its devices firmly.
//! Never: touches a file.
//!
//! Source: the names that `sensors` of lm-sensors 3.6 prints.

use std::fmt;

use super::attribute::number_in;

/// A bus and a place on it. Sorts by number, so that `scsi-2-0` comes before `scsi-10-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    /// A platform device; its number (an I/O port for a Super-I/O chip, the socket for coretemp) or 0.
    Isa(u32),
    /// `domain << 16 | bus << 8 | slot << 3 | function`.
    Pci(u64),
    I2c {
        bus: u32,
        address: u32,
    },
    Spi {
        bus: u32,
        chip_select: u32,
    },
    Hid {
        bus: u32,
        id: u32,
    },
    Mdio(u32),
    /// `address` is `channel << 8 | target << 4 | unit`, summed.
    Scsi {
        host: u32,
        address: u64,
    },
    Acpi,
    Virtual,
    /// A thermal zone without a hwmon chip: its place among the zones of its type. lm-sensors does not show those.
    Zone(u32),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isa(address) => write!(f, "isa-{address:04x}"),
            Self::Pci(address) => write!(f, "pci-{address:04x}"),
            Self::I2c { bus, address } => write!(f, "i2c-{bus}-{address:02x}"),
            Self::Spi { bus, chip_select } => write!(f, "spi-{bus}-{chip_select:x}"),
            Self::Hid { bus, id } => write!(f, "hid-{bus}-{id:x}"),
            Self::Mdio(address) => write!(f, "mdio-{address:x}"),
            Self::Scsi { host, address } => write!(f, "scsi-{host}-{address:x}"),
            Self::Acpi => f.write_str("acpi-0"),
            Self::Virtual => f.write_str("virtual-0"),
            Self::Zone(place) => write!(f, "zone-{place}"),
        }
    }
}

/// The address of the device at `parts`, a path below the sysfs root such as
/// `["devices", "pci0000:00", "0000:00:06.0", "0000:01:00.0", "nvme", "nvme0"]`: that of the nearest ancestor on a
/// bus with addresses. A path that does not begin in `devices` is the text of a link that leads nowhere.
pub(super) fn address_of(parts: &[String]) -> Address {
    let on_mdio = parts.iter().any(|part| part == "mdio_bus");
    let on_bus = |part: &String| {
        let mdio = || part.rsplit_once(':').and_then(|(_, n)| n.parse().ok()).map(Address::Mdio);
        scsi(part)
            .or_else(|| pci(part))
            .or_else(|| hid(part))
            .or_else(|| i2c(part))
            .or_else(|| spi(part))
            .or_else(|| on_mdio.then(mdio).flatten())
    };
    if let Some(address) = parts.iter().rev().find_map(on_bus) {
        return address;
    }
    let platform = || parts.iter().rev().find_map(|part| platform_number(part));
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["devices", "platform", ..] => Address::Isa(platform().unwrap_or(0)),
        ["devices", root, ..] if root.starts_with("LNXSYSTM") => Address::Acpi,
        ["devices", ..] => Address::Virtual,
        _ => platform().map_or(Address::Virtual, Address::Isa),
    }
}

/// `0000:01:00.0`
fn pci(part: &str) -> Option<Address> {
    let [domain, bus, rest] = split(part, ':')?;
    let [slot, function] = split(rest, '.')?;
    if domain.len() < 4 || bus.len() != 2 || slot.len() != 2 || function.len() != 1 {
        return None;
    }
    let [domain, bus, slot, function] = [hex(domain)?, hex(bus)?, hex(slot)?, hex(function)?].map(u64::from);
    Some(Address::Pci((domain << 16) + (bus << 8) + (slot << 3) + function))
}

/// `6:0:0:0`: host, channel, target, unit.
fn scsi(part: &str) -> Option<Address> {
    let [host, channel, target, unit] = split(part, ':')?;
    let [host, channel, target, unit] =
        [host.parse().ok()?, channel.parse().ok()?, target.parse().ok()?, hex(unit)?];
    Some(Address::Scsi {
        host,
        address: (u64::from(channel) << 8) + (u64::from(target) << 4) + u64::from(unit),
    })
}

/// `0003:1B1C:0C1A.0001`: bus, vendor, product, id.
fn hid(part: &str) -> Option<Address> {
    let [bus, vendor, rest] = split(part, ':')?;
    let [product, id] = split(rest, '.')?;
    let all_four = [bus, vendor, product, id].iter().all(|field| field.len() == 4);
    all_four.then_some(Address::Hid { bus: hex(bus)?, id: hex(id)? })
}

/// `3-0018`. Four digits: `1-5` is a USB port.
fn i2c(part: &str) -> Option<Address> {
    let [bus, address] = split(part, '-')?;
    if address.len() != 4 {
        return None;
    }
    Some(Address::I2c { bus: number_in(bus, "", "")?, address: hex(address)? })
}

/// `spi0.1`
fn spi(part: &str) -> Option<Address> {
    let [bus, chip_select] = split(part, '.')?;
    Some(Address::Spi { bus: number_in(bus, "spi", "")?, chip_select: number_in(chip_select, "", "")? })
}

/// 656 for `nct6775.656`.
fn platform_number(part: &str) -> Option<u32> {
    let [name, number] = split(part, '.')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    number_in(number, "", "")
}

fn hex(digits: &str) -> Option<u32> {
    if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        u32::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

fn split<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    text.split(separator).collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_lm_sensors() {
        for (path, address) in [
            ("devices/platform/coretemp.0", "isa-0000"),
            ("devices/platform/coretemp.1", "isa-0001"),
            ("devices/platform/nct6775.656", "isa-0290"),
            ("devices/platform/asus-nb-wmi", "isa-0000"),
            ("devices/platform/soc/18000000.wifi/ieee80211/phy0", "isa-0000"),
            ("devices/pci0000:00/0000:00:18.3", "pci-00c3"),
            ("devices/pci0000:00/0000:00:06.0/0000:01:00.0/nvme/nvme0", "pci-0100"),
            ("devices/pci10000:e0/10000:e1:00.0/nvme/nvme0", "pci-10000e100"),
            ("devices/platform/soc/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0", "pci-0100"),
            ("devices/pci0000:00/0000:00:1f.4/i2c-0/0-0018", "i2c-0-18"),
            ("devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0", "scsi-0-0"),
            ("devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host10/target10:0:2/10:0:2:1", "scsi-10-21"),
            ("devices/pci0000:00/0000:00:14.0/usb1/1-5/1-5:1.0/0003:1B1C:0C1A.0001", "hid-3-1"),
            ("devices/pci0000:00/0000:00:1c.0/0000:03:00.0/mdio_bus/r8169-0-300/r8169-0-300:00", "mdio-0"),
            ("devices/platform/soc/3f204000.spi/spi_master/spi0/spi0.1", "spi-0-1"),
            ("devices/LNXSYSTM:00/LNXSYBUS:01/LNXTHERM:00", "acpi-0"),
            ("devices/virtual/thermal/thermal_zone5", "virtual-0"),
            ("0000:00:18.3", "pci-00c3"),
            ("coretemp.1", "isa-0001"),
            ("nvme0", "virtual-0"),
            ("", "virtual-0"),
        ] {
            let parts = path.split('/').map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(address_of(&parts).to_string(), address, "{path}");
        }
    }
}
