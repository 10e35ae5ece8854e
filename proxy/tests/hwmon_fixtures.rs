//! Every captured sysfs tree gives the readings that its files hold, as written down here by hand.
//!
//! The trees are not part of the project: `pulse_test_support::fixtures` tells where they are, and what happens without.

use std::collections::BTreeSet;
use std::fs;

use pulse_sensor_proxy::sensors::{DropReason, Reading, Readings, read_host};
use pulse_test_support::{Proxy, fixtures};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One reading: sensor, chip, label, kind, temperature, max and critical, the last three in degrees Celsius.
type Expected = (&'static str, &'static str, &'static str, &'static str, f64, Option<f64>, Option<f64>);

/// What one tree must give.
struct Tree {
    /// The folder below `hwmon/`.
    name: &'static str,
    /// Where in it the root of sysfs is.
    root: &'static str,
    readings: &'static [Expected],
    cpu_package: (&'static str, f64),
}

const TREES: &[Tree] = &[
    Tree {
        name: "laptop-lm-sensors",
        root: "",
        readings: LAPTOP,
        cpu_package: ("coretemp-isa-0000/temp1", 42.0),
    },
    Tree {
        name: "node-exporter",
        root: "sys",
        readings: NODE_EXPORTER,
        cpu_package: ("coretemp-isa-0000/temp1", 55.0),
    },
    Tree {
        name: "telegraf-general",
        root: "",
        readings: TELEGRAF_GENERAL,
        cpu_package: ("k10temp-virtual-0/temp1", 33.25),
    },
    Tree {
        name: "telegraf-with_device_tag",
        root: "",
        readings: TELEGRAF_WITH_DEVICE_TAG,
        cpu_package: ("k10temp-pci-00c3/temp1", 31.875),
    },
];

/// Battery and mains adapter have no temperature. The critical 210 °C of acpitz cannot be believed. Zones 5 and 13
/// own the chips acpitz and iwlwifi_1 and have no `temp` of their own in the capture.
#[rustfmt::skip]
const LAPTOP: &[Expected] = &[
    ("acpitz-virtual-0/temp1", "acpitz", "temp1", "acpi", 43.8, None, None),
    ("acpitz-virtual-0/temp2", "acpitz", "temp2", "acpi", 42.8, None, None),
    ("acpitz-virtual-0/temp3", "acpitz", "temp3", "acpi", 43.8, None, None),
    ("acpitz-virtual-0/temp4", "acpitz", "temp4", "acpi", 39.8, None, None),
    ("acpitz-virtual-0/temp5", "acpitz", "temp5", "acpi", 29.8, None, None),
    ("coretemp-isa-0000/temp1", "coretemp", "Package id 0", "cpu_package", 42.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp2", "coretemp", "Core 0", "cpu_core", 41.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp3", "coretemp", "Core 4", "cpu_core", 37.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp4", "coretemp", "Core 8", "cpu_core", 39.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp5", "coretemp", "Core 12", "cpu_core", 40.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp6", "coretemp", "Core 16", "cpu_core", 40.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp7", "coretemp", "Core 17", "cpu_core", 39.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp8", "coretemp", "Core 18", "cpu_core", 39.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp9", "coretemp", "Core 19", "cpu_core", 40.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp10", "coretemp", "Core 20", "cpu_core", 39.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp11", "coretemp", "Core 21", "cpu_core", 41.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp12", "coretemp", "Core 22", "cpu_core", 40.0, Some(100.0), Some(100.0)),
    ("coretemp-isa-0000/temp13", "coretemp", "Core 23", "cpu_core", 39.0, Some(100.0), Some(100.0)),
    ("iwlwifi_1-virtual-0/temp1", "iwlwifi_1", "temp1", "network", 44.0, None, None),
    ("nvme-pci-0100/temp1", "nvme", "Composite", "nvme", 36.85, Some(89.85), Some(93.85)),
];

/// Two sockets that both call themselves 0, with equal values. hwmon4 is a plain folder without name or device; the
/// chip `bogus` has no `temp*_input`; the zone has no chip of its own, and coretemp comes before it.
#[rustfmt::skip]
const NODE_EXPORTER: &[Expected] = &[
    ("coretemp-isa-0000/temp1", "coretemp", "Physical id 0", "cpu_package", 55.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0000/temp2", "coretemp", "Core 0", "cpu_core", 54.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0000/temp3", "coretemp", "Core 1", "cpu_core", 52.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0000/temp4", "coretemp", "Core 2", "cpu_core", 53.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0000/temp5", "coretemp", "Core 3", "cpu_core", 50.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0001/temp1", "coretemp", "Physical id 0", "cpu_package", 55.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0001/temp2", "coretemp", "Core 0", "cpu_core", 54.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0001/temp3", "coretemp", "Core 1", "cpu_core", 52.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0001/temp4", "coretemp", "Core 2", "cpu_core", 53.0, Some(84.0), Some(100.0)),
    ("coretemp-isa-0001/temp5", "coretemp", "Core 3", "cpu_core", 50.0, Some(84.0), Some(100.0)),
    ("cpu-thermal-zone-0/temp", "cpu-thermal", "cpu-thermal", "cpu_die", 12.376, None, None),
    ("hwmon4-virtual-0/temp1", "hwmon4", "foosensor", "other", 55.0, Some(100.0), Some(100.0)),
    ("hwmon4-virtual-0/temp2", "hwmon4", "foosensor", "other", 54.0, Some(100.0), Some(100.0)),
    ("mt7996_phy0_0-isa-0000/temp1", "mt7996_phy0_0", "temp1", "network", 55.0, None, None),
    ("mt7996_phy0_1-isa-0000/temp1", "mt7996_phy0_1", "temp1", "network", 56.0, None, None),
    ("mt7996_phy0_2-isa-0000/temp1", "mt7996_phy0_2", "temp1", "network", 57.0, None, None),
];

/// Plain folders without devices; the highest 65261.85 °C of the drive's sensors is no limit.
#[rustfmt::skip]
const TELEGRAF_GENERAL: &[Expected] = &[
    ("k10temp-virtual-0/temp1", "k10temp", "Tctl", "cpu_package", 33.25, None, None),
    ("k10temp-virtual-0/temp3", "k10temp", "Tccd1", "cpu_die", 33.25, None, None),
    ("nvme-virtual-0/temp1", "nvme", "Composite", "nvme", 35.85, Some(81.85), Some(84.85)),
    ("nvme-virtual-0/temp2", "nvme", "Sensor 1", "nvme", 35.85, None, None),
    ("nvme-virtual-0/temp3", "nvme", "Sensor 2", "nvme", 38.85, None, None),
];

/// The `device` links lead nowhere; their text still names the devices.
#[rustfmt::skip]
const TELEGRAF_WITH_DEVICE_TAG: &[Expected] = &[
    ("k10temp-pci-00c3/temp1", "k10temp", "Tctl", "cpu_package", 31.875, None, None),
    ("k10temp-pci-00c3/temp3", "k10temp", "Tccd1", "cpu_die", 30.75, None, None),
    ("nvme-virtual-0@nvme0/temp1", "nvme", "Composite", "nvme", 32.85, Some(81.85), Some(84.85)),
    ("nvme-virtual-0@nvme0/temp2", "nvme", "Sensor 1", "nvme", 32.85, None, None),
    ("nvme-virtual-0@nvme0/temp3", "nvme", "Sensor 2", "nvme", 36.85, None, None),
    ("nvme-virtual-0@nvme1/temp1", "nvme", "Composite", "nvme", 35.85, Some(81.85), Some(84.85)),
    ("nvme-virtual-0@nvme1/temp2", "nvme", "Sensor 1", "nvme", 35.85, None, None),
    ("nvme-virtual-0@nvme1/temp3", "nvme", "Sensor 2", "nvme", 37.85, None, None),
];

#[test]
fn every_captured_tree_gives_the_readings_that_its_files_hold() {
    for tree in TREES {
        let Some(readings) = read_tree(tree) else { return };
        let expected = tree.readings.iter().map(|expected| format!("{expected:?}"));
        let found = readings.readings.iter().map(|reading| format!("{:?}", as_expected(reading)));
        assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{}", tree.name);
        let package = readings.cpu_package.as_ref().expect("every tree has a CPU");
        assert_eq!(
            (package.sensor.as_str(), package.temperature.degrees()),
            tree.cpu_package,
            "{}",
            tree.name
        );
        assert_eq!(readings.dropped, [], "{}", tree.name);
    }
}

/// The same through the program itself: what a person gets who asks for it.
#[test]
fn the_program_prints_the_same_readings() {
    for tree in TREES {
        let Some(copy) = pulse_test_support::tree(tree.name) else { return };
        let proxy = Proxy::builder("delly").sysfs_root(&copy.path().join(tree.root)).build();
        let ran = proxy.proxy("collect", &["--json"]);
        assert!(ran.is_success(), "{}: {ran:?}", tree.name);
        let printed = ran.json();
        let expected = Value::from_iter(tree.readings.iter().map(as_json));
        assert_eq!(printed["readings"], expected, "{}", tree.name);
        let (sensor, temperature) = tree.cpu_package;
        let package = json!({ "sensor": sensor, "temperature_celsius": temperature });
        assert_eq!(printed["cpu_package"], package, "{}", tree.name);
        assert_eq!(printed["dropped"], json!([]), "{}", tree.name);

        // And for people: each sensor a line, in the same order.
        let table = proxy.proxy("collect", &[]);
        let lines = table.stdout.lines().collect::<Vec<_>>();
        assert_eq!((table.code, lines.len()), (Some(0), tree.readings.len()), "{}: {table:?}", tree.name);
        for (line, (sensor, _, label, kind, temperature, _, _)) in lines.iter().zip(tree.readings) {
            let told = [kind, sensor, label].iter().all(|text| line.contains(**text));
            assert!(told && line.ends_with(&format!("{temperature:.1} °C")), "{}: {line}", tree.name);
        }
    }
}

#[test]
fn every_tree_in_the_folder_has_expectations() {
    let Some(fixtures) = fixtures() else { return };
    let folders = fs::read_dir(fixtures.join("hwmon")).expect("the trees can be listed");
    let found = folders
        .map(|entry| {
            entry.expect("the trees can be listed").file_name().into_string().expect("names are text")
        })
        .collect::<BTreeSet<_>>();
    let expected = TREES.iter().map(|tree| tree.name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found, expected);
}

/// The second witness: what lm-sensors itself printed for the laptop's tree.
#[test]
fn laptop_reads_as_lm_sensors_reads_it() {
    let Some(fixtures) = fixtures() else { return };
    let text = fs::read(fixtures.join("sensors/laptop-12core-6dec-j-format.json"))
        .expect("the output of sensors is readable");
    let json: serde_json::Value = serde_json::from_slice(&text).expect("the output of sensors is JSON");
    let mut expected = BTreeSet::new();
    for (chip, features) in json.as_object().expect("chips by id") {
        // The capture lacks the links that told lm-sensors the bus, so only the name can be compared.
        let name = chip.split('-').next().expect("a split has a first part");
        for (label, values) in features.as_object().expect("features by label") {
            let Some(values) = values.as_object() else { continue };
            let input = values.iter().find_map(|(key, value)| {
                let feature = key.strip_suffix("_input").filter(|feature| feature.starts_with("temp"))?;
                Some((feature, value.as_f64().expect("values are numbers")))
            });
            if let Some((feature, value)) = input {
                let limit = |what: &str| {
                    let limit = values.get(&format!("{feature}_{what}")).and_then(serde_json::Value::as_f64);
                    limit.filter(|limit| (-40.0..=150.0).contains(limit) && *limit != 0.0)
                };
                expected.insert(format!(
                    "{name} {feature} {label} {value} {:?} {:?}",
                    limit("max"),
                    limit("crit")
                ));
            }
        }
    }
    let tree = TREES.iter().find(|tree| tree.name == "laptop-lm-sensors").expect("the laptop is in the list");
    let readings = read_tree(tree).expect("there are captures").readings;
    let found = readings.iter().map(as_expected).map(|(sensor, chip, label, _, value, max, critical)| {
        let (_, feature) = sensor.rsplit_once('/').expect("a sensor is a chip and an input");
        format!("{chip} {feature} {label} {value} {max:?} {critical:?}")
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
}

/// A tree that was unpacked without its links is seen to be broken, not taken for a host without sensors.
#[test]
fn links_that_became_files_are_named() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let class = folder.path().join("class/hwmon");
    fs::create_dir_all(&class).expect("folders can be made");
    fs::write(class.join("hwmon0"), "../../devices/platform/coretemp.0/hwmon/hwmon0")
        .expect("a file can be written");
    let readings = read_host(folder.path()).expect("the tree is readable as a whole");
    assert_eq!(readings.dropped.len(), 1);
    assert_eq!(readings.dropped[0].sensor, "class/hwmon/hwmon0");
    assert_eq!(readings.dropped[0].why, DropReason::Unreadable);
}

fn as_expected(reading: &Reading) -> (&str, &str, &str, &str, f64, Option<f64>, Option<f64>) {
    (
        &reading.sensor,
        &reading.chip,
        &reading.label,
        reading.kind.as_str(),
        reading.temperature.degrees(),
        reading.max.map(|max| max.degrees()),
        reading.critical.map(|critical| critical.degrees()),
    )
}

/// A reading as the program prints it; a limit that is not there is left out.
fn as_json(&(sensor, chip, label, kind, temperature, max, critical): &Expected) -> Value {
    let mut reading = json!({
        "sensor": sensor, "chip": chip, "label": label, "kind": kind, "temperature_celsius": temperature,
    });
    for (key, limit) in [("max_celsius", max), ("critical_celsius", critical)] {
        if let Some(limit) = limit {
            reading[key] = json!(limit);
        }
    }
    reading
}

/// Reads a captured tree; `None` after saying that there are no captures.
fn read_tree(tree: &Tree) -> Option<Readings> {
    let copy = pulse_test_support::tree(tree.name)?;
    Some(read_host(&copy.path().join(tree.root)).expect("the tree is readable as a whole"))
}
