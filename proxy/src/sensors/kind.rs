//! What each input measures, and which of them is the CPU package.
//!
//! In: chips with their values. Out: one [`SensorKind`] per input. Always: pure and deterministic; of the sources of
//! a package temperature only the best that has a value is used, and it gives one `CpuPackage` per socket.
//! Never: reads a file, or looks at the order of `hwmonN`.

use super::{
    Celsius, SensorKind,
    address::Address,
    chip::{Chip, Identified, Input},
};

/// What can tell the temperature of a CPU, the best first. One machine is read by the first that has a value:
/// a second driver on top of it shows the same CPU again, not another socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Coretemp,
    K10temp,
    Zenpower,
    /// The zone of a system on a chip, such as a Raspberry Pi's.
    CpuThermal,
    /// Intel's package sensor as a thermal zone: coretemp's value where coretemp is not loaded.
    PackageZone,
    /// A Super-I/O chip or an embedded controller: a probe beside the CPU.
    Board,
    /// The firmware's word; often a constant.
    Acpi,
}

/// Which input of a chip tells it best, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// `Package id 0`, `Tdie`, `CPU`.
    Package,
    /// `Tctl` (Tdie plus an offset of the model for the fans), `CPUTIN`.
    Control,
    /// `Tccd1`: one chiplet; the highest counts.
    Die,
    /// `Core 0`; the highest counts.
    Core,
}

/// The kind of an input that is not chosen as package, and what it is worth if it may be.
type Class = (SensorKind, Option<(Source, Rank)>);

/// The kind of each input of each chip.
pub(super) fn kinds_of(chips: &[Identified]) -> Vec<Vec<SensorKind>> {
    let classes = chips.iter().map(|Identified { chip, .. }| {
        chip.inputs.iter().map(|input| class_of(chip, input)).collect::<Vec<_>>()
    });
    let classes = classes.collect::<Vec<_>>();
    let mut kinds = classes
        .iter()
        .map(|inputs| inputs.iter().map(|(kind, _)| *kind).collect::<Vec<_>>())
        .collect::<Vec<_>>();
    let candidates = candidates(chips, &classes);
    for (chip, input) in packages(&candidates) {
        kinds[chip][input] = SensorKind::CpuPackage;
    }
    kinds
}

/// An input that has a value and could be the package.
struct Candidate {
    chip: usize,
    input: usize,
    source: Source,
    rank: Rank,
    temperature: Celsius,
}

fn candidates(chips: &[Identified], classes: &[Vec<Class>]) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (chip, (Identified { chip: Chip { inputs, .. }, .. }, classes)) in
        chips.iter().zip(classes).enumerate()
    {
        for (input, (Input { value, .. }, (_, worth))) in inputs.iter().zip(classes).enumerate() {
            if let (Ok(temperature), Some((source, rank))) = (value, worth) {
                // Board and firmware say 0, or a little below, where nothing is connected.
                if *source < Source::Board || temperature.degrees() > 0.0 {
                    candidates.push(Candidate {
                        chip,
                        input,
                        source: *source,
                        rank: *rank,
                        temperature: *temperature,
                    });
                }
            }
        }
    }
    candidates
}

/// The chip and input of each chosen candidate. `candidates` are by rising chip and input.
fn packages(candidates: &[Candidate]) -> Vec<(usize, usize)> {
    let Some(source) = candidates.iter().map(|candidate| candidate.source).min() else { return Vec::new() };
    let of_source = candidates.iter().filter(|candidate| candidate.source == source);
    let mut chips = of_source.clone().map(|candidate| candidate.chip).collect::<Vec<_>>();
    chips.dedup();
    let best_of = |chip: usize| {
        let of_chip = of_source.clone().filter(move |candidate| candidate.chip == chip);
        let rank = of_chip.clone().map(|candidate| candidate.rank).min();
        of_chip.filter(move |candidate| Some(candidate.rank) == rank)
    };
    let place = |candidate: &Candidate| (candidate.chip, candidate.input);
    match source {
        // One board: the chip with the best label. Two probes of one rank in it are two sockets.
        Source::Board => {
            let chip = of_source.clone().min_by_key(|candidate| (candidate.rank, candidate.chip));
            chip.map(|best| best_of(best.chip).map(place).collect()).unwrap_or_default()
        }
        // Zones are not sockets, and which is the CPU is not told: the first, so that it stays the same one.
        Source::Acpi => of_source.take(1).map(place).collect(),
        // A chip for each socket.
        _ => {
            let hottest = |chip| {
                best_of(chip)
                    .reduce(|first, next| if next.temperature > first.temperature { next } else { first })
            };
            chips.into_iter().filter_map(hottest).map(place).collect()
        }
    }
}

/// The first part of a chip's name, in lower case with `_` for `-`, and what such chips measure.
const BY_NAME: &[(&str, SensorKind)] = &[
    ("nvme", SensorKind::Nvme),
    ("drivetemp", SensorKind::Disk),
    ("amdgpu", SensorKind::Gpu),
    ("radeon", SensorKind::Gpu),
    ("nouveau", SensorKind::Gpu),
    ("nvidia", SensorKind::Gpu),
    ("i915", SensorKind::Gpu),
    ("gpu", SensorKind::Gpu),
    ("pch_", SensorKind::Chipset),
    ("i5500_temp", SensorKind::Chipset),
    ("rp1_adc", SensorKind::Chipset),
    ("spd5118", SensorKind::Memory),
    ("jc42", SensorKind::Memory),
    ("i5k_amb", SensorKind::Memory),
    ("iwlwifi", SensorKind::Network),
    ("ath9k", SensorKind::Network),
    ("ath1", SensorKind::Network),
    ("mt76", SensorKind::Network),
    ("mt79", SensorKind::Network),
    ("rtw", SensorKind::Network),
    ("r8169", SensorKind::Network),
    ("tg3", SensorKind::Network),
    ("igb", SensorKind::Network),
    ("igc", SensorKind::Network),
    ("i350", SensorKind::Network),
    ("ixgbe", SensorKind::Network),
    ("mlx", SensorKind::Network),
    ("bnxt", SensorKind::Network),
    ("bnx2x", SensorKind::Network),
    ("cxgb4", SensorKind::Network),
    ("nfp", SensorKind::Network),
    ("sfp", SensorKind::Network),
    ("enp", SensorKind::Network),
    ("eth", SensorKind::Network),
    ("acpitz", SensorKind::Acpi),
    ("int34", SensorKind::Acpi),
    ("nct", SensorKind::Board),
    ("it86", SensorKind::Board),
    ("it87", SensorKind::Board),
    ("w836", SensorKind::Board),
    ("w837", SensorKind::Board),
    ("f71", SensorKind::Board),
    ("f81", SensorKind::Board),
    ("sch31", SensorKind::Board),
    ("sch56", SensorKind::Board),
    ("dme1737", SensorKind::Board),
    ("smsc47", SensorKind::Board),
    ("pc87", SensorKind::Board),
    ("vt1211", SensorKind::Board),
    ("vt8231", SensorKind::Board),
    ("via686", SensorKind::Board),
    ("lm", SensorKind::Board),
    ("adm1", SensorKind::Board),
    ("adt7", SensorKind::Board),
    ("emc", SensorKind::Board),
    ("asus", SensorKind::Board),
    ("atk0110", SensorKind::Board),
    ("gigabyte", SensorKind::Board),
    ("dell", SensorKind::Board),
    ("thinkpad", SensorKind::Board),
    ("hp_wmi", SensorKind::Board),
    ("msi", SensorKind::Board),
    ("applesmc", SensorKind::Board),
];

fn class_of(chip: &Chip, input: &Input) -> Class {
    let name = chip.name.to_ascii_lowercase().replace('-', "_");
    let label = input.label.as_deref().map(str::to_lowercase).unwrap_or_default();
    match name.as_str() {
        "coretemp" => intel(&label),
        "k10temp" => amd(Source::K10temp, &label),
        // One input per core and place, without labels.
        "k8temp" => (SensorKind::CpuCore, Some((Source::K10temp, Rank::Core))),
        "x86_pkg_temp" => (SensorKind::CpuDie, Some((Source::PackageZone, Rank::Package))),
        "acpitz" => (SensorKind::Acpi, Some((Source::Acpi, Rank::Package))),
        // Too short to be the beginning of a name.
        "xe" => (SensorKind::Gpu, None),
        "ice" => (SensorKind::Network, None),
        _ if name.starts_with("zenpower") => amd(Source::Zenpower, &label),
        // cpu_thermal, cpu-thermal, cpu0_thermal, cpu_thermal_0
        _ if name.starts_with("cpu") && name.contains("thermal") => {
            (SensorKind::CpuDie, Some((Source::CpuThermal, Rank::Package)))
        }
        _ => {
            let kind = BY_NAME.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind);
            match (kind, chip.address) {
                (Some(SensorKind::Board), _) => board(&label),
                (Some(kind), _) => (kind, None),
                // The chips of network sockets have many names; nothing else sits on that bus.
                (None, Address::Mdio(_)) => (SensorKind::Network, None),
                (None, _) => (SensorKind::Other, None),
            }
        }
    }
}

fn intel(label: &str) -> Class {
    // "Physical id" in older kernels.
    if label.starts_with("package id") || label.starts_with("physical id") {
        (SensorKind::CpuDie, Some((Source::Coretemp, Rank::Package)))
    } else if label.starts_with("core") {
        (SensorKind::CpuCore, Some((Source::Coretemp, Rank::Core)))
    } else {
        (SensorKind::CpuDie, None)
    }
}

fn amd(source: Source, label: &str) -> Class {
    let rank = match label {
        _ if label.starts_with("tdie") => Some(Rank::Package),
        // Families before 17h have one input without a label: it is Tctl.
        _ if label.is_empty() || label.starts_with("tctl") => Some(Rank::Control),
        _ if label.starts_with("tccd") => Some(Rank::Die),
        _ => None,
    };
    (SensorKind::CpuDie, rank.map(|rank| (source, rank)))
}

fn board(label: &str) -> Class {
    // First: PCH_CPU_TEMP is the chipset's word, and 0 on most boards.
    if label.starts_with("pch") || label.contains("chipset") {
        (SensorKind::Chipset, None)
    } else if label == "cpu" || label == "cpu package" || label.contains("cpu temp") {
        (SensorKind::Board, Some((Source::Board, Rank::Package)))
    } else if label.contains("cputin") || (label.contains("cpu") && label.contains("temp")) {
        (SensorKind::Board, Some((Source::Board, Rank::Control)))
    } else if label == "gpu" || label == "video" {
        (SensorKind::Gpu, None)
    } else if label.starts_with("dimm") || label == "sodimm" {
        (SensorKind::Memory, None)
    } else {
        (SensorKind::Board, None)
    }
}
