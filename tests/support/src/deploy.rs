//! What the tests of both programs check on the files of `deploy/`: sample configurations and unit files.
//!
//! In: a file of that folder. Out: its settings, or a panic that names the line.
//! Never: starts a service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of `deploy/`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// The text of a file of `deploy/`.
pub fn read(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// A sample with every setting in force: `#key: value` loses its `#`, also indented (`#  key`); prose (`# Words`) stays.
/// A few lines of prose are indented by three (`#   key  what it means`) and stay as well.
pub fn uncommented(sample: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with("   ") => format!("{line}\n"),
        Some(rest)
            if rest.starts_with("  ") || rest.starts_with(|first: char| first.is_ascii_lowercase()) =>
        {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    sample.lines().map(line).collect()
}

/// The path of every key in `document`, as in `limits.max_connections`.
pub fn keys(document: &pulse_config::Document) -> Vec<String> {
    fn below(entries: &[pulse_config::Entry], path: &str, keys: &mut Vec<String>) {
        for entry in entries {
            match &entry.node.value {
                pulse_config::Value::Map(inner) => below(inner, &format!("{path}{}.", entry.key), keys),
                _ => keys.push(format!("{path}{}", entry.key)),
            }
        }
    }
    let mut keys = Vec::new();
    below(document.entries(), "", &mut keys);
    keys.sort();
    keys
}

/// A unit file: section, key, and its values in order (an empty one stands for itself).
pub struct Unit(BTreeMap<(String, String), Vec<String>>);

impl Unit {
    /// Parses `text` strictly: known sections and keys alone, no key twice.
    pub fn parse(text: &str) -> Self {
        let mut settings: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        let mut section = String::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            assert_eq!(line, line.trim_end(), "line {number} ends in white space");
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                assert!(
                    ["Unit", "Service", "Install"].contains(&name),
                    "line {number}: unknown section {name}"
                );
                name.clone_into(&mut section);
                continue;
            }
            let (key, value) =
                line.split_once('=').unwrap_or_else(|| panic!("line {number}: no setting: {line}"));
            assert!(
                KNOWN.contains(&(section.as_str(), key)),
                "line {number}: unknown key {key} in [{section}]"
            );
            let values = settings.entry((section.clone(), key.to_owned())).or_default();
            values.push(value.to_owned());
            assert_eq!(values.len(), 1, "line {number}: {key} stands there twice");
        }
        Self(settings)
    }

    /// The value of `key` in `[Service]`.
    pub fn service(&self, key: &str) -> &str {
        let values = self.0.get(&("Service".to_owned(), key.to_owned()));
        values.and_then(|values| values.first()).unwrap_or_else(|| panic!("[Service] has no {key}"))
    }

    /// The words of `ExecStart`: the program's absolute path, then its arguments.
    pub fn command(&self) -> Vec<&str> {
        self.service("ExecStart").split_whitespace().collect()
    }

    /// Checks what holds for both services.
    pub fn check_common(&self, name: &str) {
        assert_eq!(self.service("Type"), "notify");
        assert_eq!(self.service("Restart"), "on-failure");
        assert_eq!(self.service("RestartPreventExitStatus"), "2");
        assert_eq!(self.service("TimeoutStopSec"), "15s");
        assert_eq!(self.service("StateDirectory"), name);
        assert_eq!(self.service("StateDirectoryMode"), "0700");
        assert_eq!(self.service("ProtectSystem"), "strict");
        for key in ["NoNewPrivileges", "PrivateTmp", "ProtectHome", "MemoryDenyWriteExecute"] {
            assert_eq!(self.service(key), "yes", "{key}");
        }
        // The addresses of this host come through netlink: a service without it could not tell which node it is.
        assert_eq!(self.service("RestrictAddressFamilies"), "AF_UNIX AF_INET AF_INET6 AF_NETLINK");
        assert_eq!(self.service("SystemCallFilter"), "@system-service");
        assert_eq!(self.command()[0], format!("/usr/bin/{name}"));
        assert_eq!(self.0[&("Install".to_owned(), "WantedBy".to_owned())], ["multi-user.target"]);
    }
}

/// Lets systemd check the unit `name`; the program need not be installed. Skipped, loudly, where systemd is not.
pub fn verify_with_systemd(name: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path: PathBuf = folder.path().join(name);
    let text = read(name);
    let program = Unit::parse(&text).command()[0].to_owned();
    std::fs::write(&path, text.replace(&format!("={program} "), "=/bin/true ")).expect("the unit is written");
    let output = match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output() {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED: systemd-analyze did not run ({error}); {name} was not verified by systemd");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // Of the units that it pulls in, systemd's own may complain about this machine.
    let about_us: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
    assert!(about_us.is_empty(), "systemd says about {name}:\n{}", about_us.join("\n"));
    if !output.status.success() {
        println!("SKIPPED: systemd-analyze could not verify here: {said}");
    }
}

const KNOWN: &[(&str, &str)] = &[
    ("Unit", "Description"),
    ("Unit", "Wants"),
    ("Unit", "After"),
    ("Service", "Type"),
    ("Service", "ExecStart"),
    ("Service", "ExecReload"),
    ("Service", "Restart"),
    ("Service", "RestartPreventExitStatus"),
    ("Service", "RestartSec"),
    ("Service", "TimeoutStopSec"),
    ("Service", "User"),
    ("Service", "DynamicUser"),
    ("Service", "StateDirectory"),
    ("Service", "ReadWritePaths"),
    ("Service", "StateDirectoryMode"),
    ("Service", "UMask"),
    ("Service", "LimitNOFILE"),
    ("Service", "CapabilityBoundingSet"),
    ("Service", "AmbientCapabilities"),
    ("Service", "LockPersonality"),
    ("Service", "MemoryDenyWriteExecute"),
    ("Service", "NoNewPrivileges"),
    ("Service", "PrivateDevices"),
    ("Service", "PrivateTmp"),
    ("Service", "ProtectClock"),
    ("Service", "ProtectControlGroups"),
    ("Service", "ProtectHome"),
    ("Service", "ProtectHostname"),
    ("Service", "ProtectKernelLogs"),
    ("Service", "ProtectKernelModules"),
    ("Service", "ProtectKernelTunables"),
    ("Service", "ProtectSystem"),
    ("Service", "RestrictAddressFamilies"),
    ("Service", "RestrictNamespaces"),
    ("Service", "RestrictRealtime"),
    ("Service", "RestrictSUIDSGID"),
    ("Service", "SystemCallArchitectures"),
    ("Service", "SystemCallErrorNumber"),
    ("Service", "SystemCallFilter"),
    ("Install", "WantedBy"),
];
