//! What the kernel's files say, as drivers and their bugs fill them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pulse_proto::{MAX_LABEL_BYTES, MAX_SENSOR_BYTES};
use pulse_sensor_proxy::sensors::{self, Celsius, MAX_INPUTS_PER_CHIP, Readings};

use crate::folder;

/// The files, in the order in which the input fills them.
const FILES: [&str; 14] = [
    "devices/platform/chip.0/hwmon/hwmon0/name",
    "devices/platform/chip.0/hwmon/hwmon0/temp1_input",
    "devices/platform/chip.0/hwmon/hwmon0/temp1_label",
    "devices/platform/chip.0/hwmon/hwmon0/temp1_max",
    "devices/platform/chip.0/hwmon/hwmon0/temp1_crit",
    "devices/platform/chip.0/hwmon/hwmon0/temp1_fault",
    "devices/platform/chip.0/hwmon/hwmon0/temp2_input",
    "devices/platform/chip.0/hwmon/hwmon0/temp2_label",
    "devices/platform/chip.0/hwmon/hwmon0/temp2_enable",
    "devices/platform/chip.0/name",
    "devices/virtual/thermal/thermal_zone0/type",
    "devices/virtual/thermal/thermal_zone0/temp",
    "devices/virtual/thermal/thermal_zone0/trip_point_0_temp",
    "devices/virtual/thermal/thermal_zone0/trip_point_0_type",
];

/// The contents of the files, parted by a zero byte; an empty one is missing. What is read can be believed, be shown on
/// one line, and be sent; the same files give the same readings.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let folder = folder();
    let root = folder.path();
    for (file, content) in FILES.iter().zip(data.split(|byte| *byte == 0)) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("each is in a folder")).expect("folders can be made");
        if !content.is_empty() {
            fs::write(path, content).expect("files can be written");
        }
    }
    link(root, "class/hwmon/hwmon0", "../../devices/platform/chip.0/hwmon/hwmon0");
    link(root, "devices/platform/chip.0/hwmon/hwmon0/device", "../../../chip.0");
    link(root, "class/thermal/thermal_zone0", "../../devices/virtual/thermal/thermal_zone0");

    let read = sensors::read_host(root).expect("the folders can be read");
    assert_eq!(read, sensors::read_host(root).expect("the folders can be read"), "it reads otherwise");
    assert!(read.readings.len() + read.dropped.len() <= 2 * MAX_INPUTS_PER_CHIP);
    check_readings(&read);
}

fn link(root: &Path, from: &str, to: &str) {
    let path = root.join(from);
    let parent = path.parent().expect("each is in a folder");
    fs::create_dir_all(parent).expect("folders can be made");
    if parent.join(to).exists() {
        symlink(to, path).expect("links can be made");
    }
}

fn check_readings(read: &Readings) {
    let range = Celsius::LOWEST..=Celsius::HIGHEST;
    for reading in &read.readings {
        let values = [Some(reading.temperature), reading.max, reading.critical];
        assert!(values.into_iter().flatten().all(|value| range.contains(&value)), "{reading:?}");
        // What the server takes: a reading that it refuses would take the whole report with it.
        for (text, max_bytes) in [
            (&reading.sensor, MAX_SENSOR_BYTES),
            (&reading.chip, MAX_LABEL_BYTES),
            (&reading.label, MAX_LABEL_BYTES),
        ] {
            assert!(text.len() <= max_bytes, "{} bytes: {text:?}", text.len());
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert!(!reading.sensor.is_empty());
    }
    for dropped in &read.dropped {
        let texts = [Some(&dropped.sensor), Some(&dropped.label), dropped.raw.as_ref()];
        for text in texts.into_iter().flatten() {
            assert!(text.len() <= 512 && !text.chars().any(char::is_control), "{text:?}");
        }
    }
    let hottest = read.cpu_package.as_ref();
    assert!(hottest.is_none_or(|cpu| read.readings.iter().any(|reading| reading.sensor == cpu.sensor)));
}
