//! Small trees made by hand, for what the captured ones do not hold.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use tempfile::TempDir;

use super::*;

/// A sysfs in a temporary folder.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder can be made"))
    }

    fn bytes(&self, path: &str, content: &[u8]) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("the path is below the tree")).expect("folders can be made");
        fs::write(path, content).expect("a file can be written");
        self
    }

    fn file(&self, path: &str, content: &str) -> &Self {
        self.bytes(path, format!("{content}\n").as_bytes())
    }

    fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("the path is below the tree")).expect("folders can be made");
        symlink(target, path).expect("a link can be made");
        self
    }

    /// A chip with its device, as the kernel lays it out; each file is a name and its content.
    fn chip(&self, number: u32, device: &str, name: &str, files: &[(&str, &str)]) -> &Self {
        let folder = format!("devices/{device}/hwmon/hwmon{number}");
        self.file(&format!("{folder}/name"), name);
        for (file, content) in files {
            self.file(&format!("{folder}/{file}"), content);
        }
        self.link(&format!("{folder}/device"), "../..");
        self.link(&format!("class/hwmon/hwmon{number}"), &format!("../../{folder}"))
    }

    /// A thermal zone, with the link in `class/thermal`.
    fn zone(&self, number: u32, zone_type: &str, temp: &str) -> &Self {
        let folder = format!("devices/virtual/thermal/thermal_zone{number}");
        self.file(&format!("{folder}/type"), zone_type);
        self.file(&format!("{folder}/temp"), temp);
        self.link(&format!("class/thermal/thermal_zone{number}"), &format!("../../{folder}"))
    }

    fn read(&self) -> Readings {
        read_host(self.0.path()).expect("the tree is readable as a whole")
    }

    /// Sensor, label, kind and temperature of each reading.
    fn lines(&self) -> Vec<String> {
        let line = |reading: &Reading| {
            format!(
                "{} {:?} {} {}",
                reading.sensor,
                reading.label,
                reading.kind,
                reading.temperature.degrees()
            )
        };
        self.read().readings.iter().map(line).collect()
    }
}

fn package(readings: &Readings) -> Option<(&str, f64)> {
    readings.cpu_package.as_ref().map(|package| (package.sensor.as_str(), package.temperature.degrees()))
}

fn dropped(sensor: &str, label: &str, raw: Option<&str>, why: DropReason) -> Dropped {
    Dropped { sensor: sensor.to_owned(), label: label.to_owned(), raw: raw.map(str::to_owned), why }
}

const NCT6798: &[(&str, &str)] = &[
    ("temp1_label", "SYSTIN"),
    ("temp1_input", "31000"),
    ("temp2_label", "CPUTIN"),
    ("temp2_input", "44500"),
    ("temp8_label", "PCH_CHIP_CPU_MAX_TEMP"),
    ("temp8_input", "0"),
];

#[test]
fn each_socket_is_a_package_and_the_hottest_is_the_hosts() {
    let tree = Tree::new();
    // The second socket comes first, and Core 1 is temp6: neither order means anything.
    tree.chip(
        0,
        "platform/coretemp.1",
        "coretemp",
        &[
            ("temp1_label", "Package id 1"),
            ("temp1_input", "61000"),
            ("temp1_max", "84000"),
            ("temp1_crit", "94000"),
        ],
    );
    tree.chip(
        1,
        "platform/coretemp.0",
        "coretemp",
        &[
            ("temp1_label", "Package id 0"),
            ("temp1_input", "52000"),
            ("temp2_label", "Core 0"),
            ("temp2_input", "70000"),
            ("temp10_label", "Core 9"),
            ("temp10_input", "49000"),
            ("temp6_label", "Core 1"),
            ("temp6_input", "50000"),
        ],
    );
    assert_eq!(
        tree.lines(),
        [
            "coretemp-isa-0000/temp1 \"Package id 0\" cpu_package 52",
            "coretemp-isa-0000/temp2 \"Core 0\" cpu_core 70",
            "coretemp-isa-0000/temp6 \"Core 1\" cpu_core 50",
            "coretemp-isa-0000/temp10 \"Core 9\" cpu_core 49",
            "coretemp-isa-0001/temp1 \"Package id 1\" cpu_package 61",
        ]
    );
    let readings = tree.read();
    assert_eq!(package(&readings), Some(("coretemp-isa-0001/temp1", 61.0)));
    assert_eq!(readings.readings[4].max, Celsius::from_millidegrees(84_000));
    assert_eq!(readings.readings[4].critical, Celsius::from_millidegrees(94_000));
}

#[test]
fn hottest_core_stands_in_for_a_package_without_label() {
    let tree = Tree::new();
    let cores = [
        ("temp2_label", "Core 0"),
        ("temp2_input", "43000"),
        ("temp3_label", "Core 1"),
        ("temp3_input", "48000"),
    ];
    tree.chip(0, "platform/coretemp.0", "coretemp", &cores);
    assert_eq!(
        tree.lines(),
        [
            "coretemp-isa-0000/temp2 \"Core 0\" cpu_core 43",
            "coretemp-isa-0000/temp3 \"Core 1\" cpu_package 48",
        ]
    );
}

#[test]
fn tdie_comes_before_tctl_before_the_hottest_tccd() {
    let (tctl, tdie) = (
        [("temp1_label", "Tctl"), ("temp1_input", "72500")],
        [("temp2_label", "Tdie"), ("temp2_input", "62500")],
    );
    let tccds = [
        ("temp3_label", "Tccd1"),
        ("temp3_input", "60000"),
        ("temp5_label", "Tccd3"),
        ("temp5_input", "64250"),
    ];
    for (files, chosen) in [
        ([&tctl[..], &tdie, &tccds].concat(), ("k10temp-pci-00c3/temp2", 62.5)),
        ([&tctl[..], &tccds].concat(), ("k10temp-pci-00c3/temp1", 72.5)),
        (tccds.to_vec(), ("k10temp-pci-00c3/temp5", 64.25)),
        (vec![("temp1_input", "49250")], ("k10temp-pci-00c3/temp1", 49.25)),
    ] {
        let tree = Tree::new();
        tree.chip(2, "pci0000:00/0000:00:18.3", "k10temp", &files);
        let readings = tree.read();
        assert_eq!(package(&readings), Some(chosen));
        for reading in &readings.readings {
            let kind = if reading.sensor == chosen.0 { SensorKind::CpuPackage } else { SensorKind::CpuDie };
            assert_eq!(reading.kind, kind, "{}", reading.sensor);
        }
    }
}

#[test]
fn zenpower_is_read_like_k10temp() {
    let tree = Tree::new();
    let files = [
        ("temp1_label", "Tdie"),
        ("temp1_input", "55000"),
        ("temp2_label", "Tctl"),
        ("temp2_input", "65000"),
    ];
    tree.chip(0, "pci0000:00/0000:00:18.3", "zenpower", &files);
    assert_eq!(package(&tree.read()), Some(("zenpower-pci-00c3/temp1", 55.0)));
}

#[test]
fn super_io_tells_the_cpu_only_where_the_cpu_does_not() {
    let tree = Tree::new();
    tree.chip(0, "platform/nct6775.656", "nct6798", NCT6798);
    assert_eq!(
        tree.lines(),
        [
            "nct6798-isa-0290/temp1 \"SYSTIN\" board 31",
            "nct6798-isa-0290/temp2 \"CPUTIN\" cpu_package 44.5",
            "nct6798-isa-0290/temp8 \"PCH_CHIP_CPU_MAX_TEMP\" chipset 0",
        ]
    );

    // It stays a board reading even where it is hotter.
    tree.chip(
        1,
        "platform/coretemp.0",
        "coretemp",
        &[("temp1_label", "Package id 0"), ("temp1_input", "37000")],
    );
    assert_eq!(tree.lines()[2], "nct6798-isa-0290/temp2 \"CPUTIN\" board 44.5");
    assert_eq!(package(&tree.read()), Some(("coretemp-isa-0000/temp1", 37.0)));
}

#[test]
fn unconnected_cpu_probe_is_no_package() {
    let tree = Tree::new();
    tree.chip(0, "platform/nct6775.656", "nct6779", &[("temp2_label", "CPUTIN"), ("temp2_input", "0")]);
    tree.chip(
        1,
        "virtual/thermal/thermal_zone0",
        "acpitz",
        &[("temp1_input", "-1000"), ("temp2_input", "27800")],
    );
    assert_eq!(
        tree.lines(),
        [
            "acpitz-virtual-0/temp1 \"temp1\" acpi -1",
            "acpitz-virtual-0/temp2 \"temp2\" cpu_package 27.8",
            "nct6779-isa-0290/temp2 \"CPUTIN\" board 0",
        ]
    );
}

#[test]
fn two_cpu_probes_of_one_controller_are_two_sockets() {
    let tree = Tree::new();
    let files = [
        ("temp1_label", "CPU"),
        ("temp1_input", "45000"),
        ("temp2_label", "CPU"),
        ("temp2_input", "49000"),
        ("temp3_label", "SODIMM"),
        ("temp3_input", "38000"),
        ("temp4_label", "GPU"),
        ("temp4_input", "40000"),
    ];
    tree.chip(0, "platform/dell_smm_hwmon", "dell_smm", &files);
    assert_eq!(
        tree.lines(),
        [
            "dell_smm-isa-0000/temp1 \"CPU\" cpu_package 45",
            "dell_smm-isa-0000/temp2 \"CPU\" cpu_package 49",
            "dell_smm-isa-0000/temp3 \"SODIMM\" memory 38",
            "dell_smm-isa-0000/temp4 \"GPU\" gpu 40",
        ]
    );
    assert_eq!(package(&tree.read()), Some(("dell_smm-isa-0000/temp2", 49.0)));
}

#[test]
fn firmware_zone_is_the_package_only_when_alone() {
    let tree = Tree::new();
    tree.chip(0, "virtual/thermal/thermal_zone0", "acpitz", &[("temp1_input", "73000")]);
    assert_eq!(tree.lines(), ["acpitz-virtual-0/temp1 \"temp1\" cpu_package 73"]);
    tree.chip(1, "platform/nct6775.656", "nct6798", NCT6798);
    assert_eq!(tree.lines()[0], "acpitz-virtual-0/temp1 \"temp1\" acpi 73");
    assert_eq!(package(&tree.read()), Some(("nct6798-isa-0290/temp2", 44.5)));
}

#[test]
fn firmware_zone_is_named_by_the_device_it_stands_for() {
    let tree = Tree::new();
    tree.chip(0, "virtual/thermal/thermal_zone0", "acpitz", &[("temp1_input", "40000")]);
    tree.file("devices/LNXSYSTM:00/LNXSYBUS:01/LNXTHERM:00/hid", "LNXTHERM");
    tree.link("devices/virtual/thermal/thermal_zone0/device", "../../../LNXSYSTM:00/LNXSYBUS:01/LNXTHERM:00");
    assert_eq!(tree.lines(), ["acpitz-acpi-0/temp1 \"temp1\" cpu_package 40"]);
}

#[test]
fn raspberry_pi_is_read_once() {
    let tree = Tree::new();
    tree.zone(0, "cpu-thermal", "42355");
    tree.file("devices/virtual/thermal/thermal_zone0/hwmon0/name", "cpu_thermal");
    tree.file("devices/virtual/thermal/thermal_zone0/hwmon0/temp1_input", "42355");
    tree.link("devices/virtual/thermal/thermal_zone0/hwmon0/device", "../../thermal_zone0");
    tree.link("class/hwmon/hwmon0", "../../devices/virtual/thermal/thermal_zone0/hwmon0");
    tree.chip(1, "platform/axi/1000120000.pcie/1f000c8000.adc", "rp1_adc", &[("temp1_input", "50000")]);
    assert_eq!(
        tree.lines(),
        [
            "cpu_thermal-virtual-0/temp1 \"temp1\" cpu_package 42.355",
            "rp1_adc-isa-0000/temp1 \"temp1\" chipset 50",
        ]
    );
}

#[test]
fn zones_of_one_type_are_inputs_of_one_chip_and_others_are_read_themselves() {
    let tree = Tree::new();
    // The kernel makes one chip for both zones, below the first.
    tree.zone(3, "acpitz", "40000").zone(4, "acpitz", "41000").zone(5, "INT3400 Thermal", "20000");
    tree.zone(6, "x86_pkg_temp", "47000")
        .zone(7, "gpu-thermal", "44000")
        .zone(8, "TSKN", "33000")
        .zone(9, "TSKN", "34000");
    tree.file("devices/virtual/thermal/thermal_zone6/trip_point_0_type", "passive");
    tree.file("devices/virtual/thermal/thermal_zone6/trip_point_0_temp", "-274000");
    tree.file("devices/virtual/thermal/thermal_zone6/trip_point_1_type", "critical");
    tree.file("devices/virtual/thermal/thermal_zone6/trip_point_1_temp", "105000");
    let folder = "devices/virtual/thermal/thermal_zone3/hwmon2";
    tree.file(&format!("{folder}/name"), "acpitz");
    tree.file(&format!("{folder}/temp1_input"), "40000").file(&format!("{folder}/temp2_input"), "41000");
    tree.link(&format!("{folder}/device"), "../../thermal_zone3");
    tree.link("class/hwmon/hwmon2", &format!("../../{folder}"));
    assert_eq!(
        tree.lines(),
        [
            "INT3400_Thermal-zone-0/temp \"INT3400 Thermal\" acpi 20",
            "TSKN-zone-0/temp \"TSKN\" other 33",
            "TSKN-zone-1/temp \"TSKN\" other 34",
            "acpitz-virtual-0/temp1 \"temp1\" acpi 40",
            "acpitz-virtual-0/temp2 \"temp2\" acpi 41",
            "gpu-thermal-zone-0/temp \"gpu-thermal\" gpu 44",
            "x86_pkg_temp-zone-0/temp \"x86_pkg_temp\" cpu_package 47",
        ]
    );
    let readings = tree.read().readings;
    assert_eq!(readings[6].critical, Celsius::from_millidegrees(105_000));
}

#[test]
fn intel_package_zone_is_no_second_socket() {
    let tree = Tree::new();
    tree.zone(0, "x86_pkg_temp", "47000");
    tree.chip(
        0,
        "platform/coretemp.0",
        "coretemp",
        &[("temp1_label", "Package id 0"), ("temp1_input", "46000")],
    );
    assert_eq!(
        tree.lines(),
        [
            "coretemp-isa-0000/temp1 \"Package id 0\" cpu_package 46",
            "x86_pkg_temp-zone-0/temp \"x86_pkg_temp\" cpu_die 47",
        ]
    );
}

#[test]
fn zones_and_chips_in_plain_folders_are_read_once() {
    let tree = Tree::new();
    tree.file("class/thermal/thermal_zone0/type", "cpu-thermal");
    tree.file("class/thermal/thermal_zone0/temp", "42000");
    tree.file("class/thermal/thermal_zone1/type", "soc-thermal");
    tree.file("class/thermal/thermal_zone1/temp", "43000");
    tree.file("class/thermal/thermal_zone1/hwmon1/name", "soc");
    tree.file("class/hwmon/hwmon0/name", "cpu_thermal").file("class/hwmon/hwmon0/temp1_input", "42000");
    tree.file("class/hwmon/hwmon1/name", "soc").file("class/hwmon/hwmon1/temp1_input", "43000");
    assert_eq!(
        tree.lines(),
        ["cpu_thermal-virtual-0/temp1 \"temp1\" cpu_package 42", "soc-virtual-0/temp1 \"temp1\" other 43",]
    );
}

#[test]
fn devices_are_told_apart_by_chip_and_place() {
    let tree = Tree::new();
    let temp = [("temp1_input", "30000")];
    tree.chip(10, "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0", "drivetemp", &temp);
    tree.chip(2, "pci0000:00/0000:00:17.0/ata11/host10/target10:0:0/10:0:0:0", "drivetemp", &temp);
    tree.chip(3, "pci0000:00/0000:00:17.0/ata3/host2/target2:0:0/2:0:0:0", "drivetemp", &temp);
    tree.chip(4, "pci0000:00/0000:00:1f.4/i2c-0/0-0051", "spd5118", &temp);
    tree.chip(5, "pci0000:00/0000:00:1f.4/i2c-0/0-0018", "jc42", &temp);
    tree.chip(6, "virtual/thermal/thermal_zone9", "iwlwifi_1", &temp);
    tree.chip(7, "virtual/thermal/thermal_zone8", "pch_cannonlake", &temp);
    tree.chip(
        8,
        "pci0000:00/0000:00:1c.0/0000:03:00.0/mdio_bus/r8169-0-300/r8169-0-300:00",
        "rtl8226",
        &temp,
    );
    assert_eq!(
        tree.lines(),
        [
            "drivetemp-scsi-0-0/temp1 \"temp1\" disk 30",
            "drivetemp-scsi-2-0/temp1 \"temp1\" disk 30",
            "drivetemp-scsi-10-0/temp1 \"temp1\" disk 30",
            "iwlwifi_1-virtual-0/temp1 \"temp1\" network 30",
            "jc42-i2c-0-18/temp1 \"temp1\" memory 30",
            "pch_cannonlake-virtual-0/temp1 \"temp1\" chipset 30",
            "rtl8226-mdio-0/temp1 \"temp1\" network 30",
            "spd5118-i2c-0-51/temp1 \"temp1\" memory 30",
        ]
    );
}

#[test]
fn folder_numbers_do_not_change_ids_or_order() {
    let disks = ["nvme0", "nvme1", "nvme2"];
    let made_in = |order: [u32; 3]| {
        let tree = Tree::new();
        for (disk, number) in disks.iter().zip(order) {
            let temp = format!("3{}000", disk.trim_start_matches("nvme"));
            // All on the same PCI function, so that only the device tells them apart.
            tree.chip(
                number,
                &format!("pci0000:00/0000:01:00.0/nvme/{disk}"),
                "nvme",
                &[("temp1_input", temp.as_str())],
            );
        }
        tree.lines()
    };
    let lines = made_in([0, 1, 2]);
    assert_eq!(
        lines,
        [
            "nvme-pci-0100@nvme0/temp1 \"temp1\" nvme 30",
            "nvme-pci-0100@nvme1/temp1 \"temp1\" nvme 31",
            "nvme-pci-0100@nvme2/temp1 \"temp1\" nvme 32",
        ]
    );
    assert_eq!(made_in([12, 3, 7]), lines);
}

#[test]
fn chips_that_nothing_tells_apart_still_have_ids_of_their_own() {
    let tree = Tree::new();
    for number in [0, 1] {
        tree.file(&format!("class/hwmon/hwmon{number}/name"), "nvme");
        tree.file(&format!("class/hwmon/hwmon{number}/temp1_input"), "30000");
    }
    assert_eq!(
        tree.lines(),
        ["nvme-virtual-0/temp1 \"temp1\" nvme 30", "nvme-virtual-0#2/temp1 \"temp1\" nvme 30",]
    );
}

#[test]
fn graphics_are_read_by_temperature_inputs_only() {
    let tree = Tree::new();
    let nouveau =
        [("in0_label", "GPU core"), ("in0_input", "900"), ("temp1_input", "51000"), ("temp1_max", "95000")];
    tree.chip(0, "pci0000:00/0000:01:00.0", "nouveau", &nouveau);
    let amdgpu = [
        ("temp1_label", "edge"),
        ("temp1_input", "45000"),
        ("temp1_crit_hyst", "-273150"),
        ("temp2_label", "junction"),
        ("temp2_input", "47000"),
        ("temp3_label", "mem"),
        ("temp3_input", "52000"),
        ("temp3_emergency", "105000"),
        ("freq1_input", "500000000"),
        ("power1_average", "9000000"),
    ];
    tree.chip(1, "pci0000:00/0000:03:00.0", "amdgpu", &amdgpu);
    assert_eq!(
        tree.lines(),
        [
            "amdgpu-pci-0300/temp1 \"edge\" gpu 45",
            "amdgpu-pci-0300/temp2 \"junction\" gpu 47",
            "amdgpu-pci-0300/temp3 \"mem\" gpu 52",
            "nouveau-pci-0100/temp1 \"temp1\" gpu 51",
        ]
    );
    assert_eq!(package(&tree.read()), None);
}

#[test]
fn unbelievable_values_are_dropped_and_kept_for_diagnosis() {
    let tree = Tree::new();
    let files = [
        ("temp1_label", "Package id 0"),
        ("temp1_input", "150001"),
        ("temp2_label", "Core 0"),
        ("temp2_input", "150000"),
        ("temp3_label", "Core 1"),
        ("temp3_input", "-40000"),
        ("temp4_label", "Core 2"),
        ("temp4_input", "-40001"),
        ("temp5_input", "warm"),
        ("temp6_label", "Core 4"),
        ("temp6_input", "99999999999999999999"),
        ("temp7_label", "Core 5"),
        ("temp7_input", "0"),
    ];
    tree.chip(0, "platform/coretemp.0", "coretemp", &files);
    assert_eq!(
        tree.lines(),
        [
            "coretemp-isa-0000/temp2 \"Core 0\" cpu_package 150",
            "coretemp-isa-0000/temp3 \"Core 1\" cpu_core -40",
            "coretemp-isa-0000/temp7 \"Core 5\" cpu_core 0",
        ]
    );
    assert_eq!(
        tree.read().dropped,
        [
            dropped("coretemp-isa-0000/temp1", "Package id 0", Some("150001"), DropReason::OutOfRange),
            dropped("coretemp-isa-0000/temp4", "Core 2", Some("-40001"), DropReason::OutOfRange),
            dropped("coretemp-isa-0000/temp5", "temp5", Some("warm"), DropReason::NotANumber),
            dropped(
                "coretemp-isa-0000/temp6",
                "Core 4",
                Some("99999999999999999999"),
                DropReason::NotANumber
            ),
        ]
    );
}

#[test]
fn faulty_and_unreadable_inputs_are_left_out() {
    let tree = Tree::new();
    let files = [
        ("temp1_input", "36000"),
        ("temp1_fault", "0"),
        ("temp2_label", "AUXTIN0"),
        ("temp2_input", "-62000"),
        ("temp2_fault", "1"),
        ("temp3_input", ""),
    ];
    tree.chip(0, "platform/nct6775.656", "nct6779", &files);
    // A folder in the place of a file fails as an input does whose driver answers EIO.
    tree.file("devices/platform/nct6775.656/hwmon/hwmon0/temp4_input/x", "1");
    assert_eq!(tree.lines(), ["nct6779-isa-0290/temp1 \"temp1\" board 36"]);
    assert_eq!(
        tree.read().dropped,
        [
            dropped("nct6779-isa-0290/temp2", "AUXTIN0", Some("-62000"), DropReason::Fault),
            dropped("nct6779-isa-0290/temp3", "temp3", None, DropReason::Unreadable),
            dropped("nct6779-isa-0290/temp4", "temp4", None, DropReason::Unreadable),
        ]
    );
}

#[test]
fn sentinels_are_no_limits() {
    let tree = Tree::new();
    for (input, (max, crit)) in
        [("65261850", "-273150"), ("0", "255000"), ("x", ""), ("-10000", "84850")].iter().enumerate()
    {
        let input = input + 1;
        tree.file(&format!("class/hwmon/hwmon0/temp{input}_input"), "30000");
        tree.file(&format!("class/hwmon/hwmon0/temp{input}_max"), max);
        tree.file(&format!("class/hwmon/hwmon0/temp{input}_crit"), crit);
    }
    let limits =
        tree.read().readings.iter().map(|reading| (reading.max, reading.critical)).collect::<Vec<_>>();
    let believed = (Celsius::from_millidegrees(-10_000), Celsius::from_millidegrees(84_850));
    assert_eq!(limits, [(None, None), (None, None), (None, None), believed]);
}

#[test]
fn chip_without_name_is_called_after_its_device_or_its_folder() {
    let tree = Tree::new();
    tree.file("class/hwmon/hwmon4/temp1_input", "55000");
    let folder = "devices/platform/foo.3/hwmon/hwmon7";
    tree.file(&format!("{folder}/temp1_input"), "44000").link(&format!("{folder}/device"), "../../../foo.3");
    tree.link("class/hwmon/hwmon7", &format!("../../{folder}"));
    assert_eq!(
        tree.lines(),
        ["foo.3-isa-0003/temp1 \"temp1\" other 44", "hwmon4-virtual-0/temp1 \"temp1\" other 55",]
    );
}

#[test]
fn old_drivers_keep_their_files_with_the_device() {
    let tree = Tree::new();
    tree.file("devices/platform/applesmc.768/name", "applesmc");
    tree.file("devices/platform/applesmc.768/temp1_input", "41250");
    tree.file("devices/platform/applesmc.768/temp1_label", "TC0P");
    tree.link("devices/platform/applesmc.768/hwmon/hwmon2/device", "../../../applesmc.768");
    tree.link("class/hwmon/hwmon2", "../../devices/platform/applesmc.768/hwmon/hwmon2");
    assert_eq!(tree.lines(), ["applesmc-isa-0300/temp1 \"TC0P\" board 41.25"]);
}

#[test]
fn loops_and_dead_ends_cost_only_the_chip_behind_them() {
    let tree = Tree::new();
    tree.link("class/hwmon/hwmon0", "hwmon1").link("class/hwmon/hwmon1", "hwmon0");
    tree.link("class/hwmon/hwmon2", "../../devices/gone");
    tree.file("class/hwmon/hwmon3", "a file where a folder should be");
    tree.link("class/thermal/thermal_zone0", "thermal_zone0");
    tree.chip(
        4,
        "platform/coretemp.0",
        "coretemp",
        &[("temp1_label", "Package id 0"), ("temp1_input", "46000")],
    );
    // As in a real sysfs: the class is reachable from the chip.
    tree.link("devices/platform/coretemp.0/hwmon/hwmon4/subsystem", "../../../../../class/hwmon");
    // A device link into itself: the chip is read, its place is unknown.
    tree.file("class/hwmon/hwmon5/name", "spd5118").file("class/hwmon/hwmon5/temp1_input", "31000");
    tree.link("class/hwmon/hwmon5/device", "device");
    // Out of sysfs: nothing out there names a chip.
    tree.file("class/hwmon/hwmon6/name", "jc42").file("class/hwmon/hwmon6/temp1_input", "33500");
    tree.link("class/hwmon/hwmon6/device", "/");
    assert_eq!(
        tree.lines(),
        [
            "coretemp-isa-0000/temp1 \"Package id 0\" cpu_package 46",
            "jc42-virtual-0/temp1 \"temp1\" memory 33.5",
            "spd5118-virtual-0/temp1 \"temp1\" memory 31",
        ]
    );
    let skipped = [
        "class/hwmon/hwmon0",
        "class/hwmon/hwmon1",
        "class/hwmon/hwmon2",
        "class/hwmon/hwmon3",
        "class/thermal/thermal_zone0",
    ];
    assert_eq!(tree.read().dropped, skipped.map(|chip| dropped(chip, "", None, DropReason::Unreadable)));
}

#[test]
fn huge_files_sockets_and_pipes_are_not_read() {
    let tree = Tree::new();
    tree.file("class/hwmon/hwmon0/name", "nvme").file("class/hwmon/hwmon0/temp4_input", "30000");
    tree.file("class/hwmon/hwmon0/temp1_input", &"1".repeat(1 << 20));
    let folder = tree.0.path().join("class/hwmon/hwmon0");
    let _socket = UnixListener::bind(folder.join("temp2_input")).expect("a socket can be made");
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("temp3_input"), rustix::fs::Mode::RUSR)
        .expect("a pipe can be made");
    let (done_tx, done_rx) = mpsc::channel();
    let root = tree.0.path().to_owned();
    std::thread::spawn(move || done_tx.send(read_host(&root)));
    let readings = done_rx.recv_timeout(Duration::from_secs(20)).expect("the pipe does not hang the reader");
    let readings = readings.expect("the tree is readable as a whole");
    assert_eq!(readings.readings.len(), 1);
    let why = readings.dropped.iter().map(|dropped| dropped.why).collect::<Vec<_>>();
    assert_eq!(why, [DropReason::Unreadable; 3]);
}

#[test]
fn text_of_drivers_is_made_safe() {
    let tree = Tree::new();
    tree.bytes("class/hwmon/hwmon0/name", b"ev/il\x1b[2J na\xffme\n");
    tree.file("class/hwmon/hwmon0/temp1_input", "30000")
        .bytes("class/hwmon/hwmon0/temp1_label", b"w\xe4rm\n");
    tree.file("class/hwmon/hwmon0/temp2_input", "30000");
    tree.bytes("class/hwmon/hwmon0/temp2_label", "red\u{1b}[31m\u{202e}\n".as_bytes());
    tree.file("class/hwmon/hwmon0/temp3_input", "x\u{7}y");
    tree.file("class/hwmon/hwmon0/temp3_label", &"long".repeat(100));
    let readings = tree.read();
    assert_eq!(readings.readings[0].chip, "ev_il__2J_na_me");
    assert_eq!(readings.readings[0].sensor, "ev_il__2J_na_me-virtual-0/temp1");
    assert_eq!(readings.readings[0].label, "w\u{fffd}rm");
    assert_eq!(readings.readings[1].label, "red\u{fffd}[31m\u{fffd}");
    assert_eq!(readings.dropped[0].raw.as_deref(), Some("x\u{fffd}y"));
    assert_eq!(readings.dropped[0].label.len(), 64);
}

#[test]
fn names_that_are_not_the_kernels_are_not_inputs() {
    let tree = Tree::new();
    for file in [
        "temp_input",
        "temp01_input",
        "temp+1_input",
        "temp1_input.bak",
        "xtemp1_input",
        "bogus1_input",
        "temp4294967296_input",
    ] {
        tree.file(&format!("class/hwmon/hwmon0/{file}"), "30000");
    }
    let folder = tree.0.path().join("class/hwmon/hwmon0");
    fs::write(folder.join(std::ffi::OsStr::from_bytes(b"temp\xff_input")), "1")
        .expect("any name can be written");
    tree.file("class/hwmon/hwmonX/temp1_input", "30000").file("class/hwmon/hwmon/temp1_input", "30000");
    assert_eq!(tree.read(), Readings::default());
}

#[test]
fn work_is_bounded() {
    let tree = Tree::new();
    for input in 1..=MAX_INPUTS_PER_CHIP + 3 {
        tree.file(&format!("class/hwmon/hwmon0/temp{input}_input"), "30000");
    }
    let readings = tree.read();
    assert_eq!(readings.readings.len(), MAX_INPUTS_PER_CHIP);
    assert_eq!(readings.readings[MAX_INPUTS_PER_CHIP - 1].label, format!("temp{MAX_INPUTS_PER_CHIP}"));
    assert_eq!(readings.dropped, [dropped("hwmon0/temp*_input", "", Some("515"), DropReason::TooMany)]);

    // Each further folder is a link to the first: some twenty chips of 512 inputs are over the limit of readings.
    for chip in 1..20 {
        tree.link(&format!("class/hwmon/hwmon{chip}"), "hwmon0");
    }
    let readings = tree.read();
    assert_eq!(readings.readings.len(), MAX_READINGS);
    assert!(
        readings.dropped.len() < 3 * MAX_INPUTS_PER_CHIP,
        "{} were read and dropped",
        readings.dropped.len()
    );
}

#[test]
fn host_without_sensors_has_no_readings_and_a_missing_root_is_an_error() {
    let tree = Tree::new();
    assert_eq!(tree.read(), Readings::default());
    let error = read_host(&tree.0.path().join("nowhere")).expect_err("there is no such folder");
    assert!(matches!(error, SensorError::Root { .. }), "{error}");
    let error = read_host(Path::new("/proc/self/status")).expect_err("a file is no sysfs");
    assert!(matches!(error, SensorError::Root { .. }), "{error}");
    tree.file("class/hwmon", "a file where the class should be");
    let error = read_host(tree.0.path()).expect_err("the class cannot be listed");
    assert!(matches!(error, SensorError::List { .. }), "{error}");
}

#[test]
fn json_names_units_and_leaves_out_what_is_missing() {
    let tree = Tree::new();
    let files = [
        ("temp1_label", "Package id 0"),
        ("temp1_input", "46500"),
        ("temp1_crit", "100000"),
        ("temp2_input", "999000"),
    ];
    tree.chip(0, "platform/coretemp.0", "coretemp", &files);
    let json = serde_json::to_value(tree.read()).expect("readings are plain values");
    assert_eq!(
        json,
        serde_json::json!({
            "readings": [{
                "sensor": "coretemp-isa-0000/temp1",
                "chip": "coretemp",
                "label": "Package id 0",
                "kind": "cpu_package",
                "temperature_celsius": 46.5,
                "critical_celsius": 100.0,
            }],
            "cpu_package": {"sensor": "coretemp-isa-0000/temp1", "temperature_celsius": 46.5},
            "dropped": [{"sensor": "coretemp-isa-0000/temp2", "label": "temp2", "raw": "999000", "why": "out_of_range"}],
        })
    );
}

#[test]
fn words_of_kinds_are_those_of_the_json() {
    use SensorKind::*;
    for kind in [CpuPackage, CpuCore, CpuDie, Nvme, Disk, Gpu, Chipset, Memory, Network, Board, Acpi, Other] {
        assert_eq!(serde_json::to_value(kind).expect("a kind is a word"), kind.as_str());
    }
}
