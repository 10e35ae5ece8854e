//! A sysfs of the test's own: one Intel CPU, whose temperature the test sets.

use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tempfile::TempDir;

use crate::wait::{PATIENCE, eventually};

/// A folder like `/sys` with the chip coretemp: its package and one core.
#[derive(Debug)]
pub struct SysTree {
    folder: TempDir,
}

impl SysTree {
    /// Makes it; the package has 40 °C and the core 39 °C.
    pub fn new() -> SysTree {
        let tree = SysTree { folder: TempDir::new().expect("a temporary folder can be made") };
        let class = tree.root().join("class/hwmon");
        fs::create_dir_all(tree.chip()).expect("folders can be made");
        fs::create_dir_all(&class).expect("folders can be made");
        symlink("../../devices/platform/coretemp.0/hwmon/hwmon0", class.join("hwmon0"))
            .expect("links can be made");
        symlink("../../../coretemp.0", tree.chip().join("device")).expect("links can be made");
        for (file, content) in [
            ("name", "coretemp"),
            ("temp1_label", "Package id 0"),
            ("temp1_max", "84000"),
            ("temp1_crit", "100000"),
            ("temp2_label", "Core 0"),
            ("temp2_input", "39000"),
        ] {
            tree.write(file, content);
        }
        tree.set_temperature(40.0);
        tree
    }

    /// Sets the temperature of the CPU package, in degrees Celsius. Whoever reads sees the old value or the new.
    pub fn set_temperature(&self, celsius: f64) {
        self.write("temp1_input", &format!("{:.0}", celsius * 1000.0));
    }

    /// Sets the temperature of the CPU package, and waits until a proxy has begun to read that value.
    ///
    /// # Panics
    /// When nobody reads it in [`PATIENCE`](crate::PATIENCE).
    pub fn let_read(&self, celsius: f64) {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify is there");
        inotify::add_watch(&events, self.chip(), WatchFlags::MOVED_TO | WatchFlags::OPEN)
            .expect("a folder can be watched");
        self.set_temperature(celsius);
        // Events come in order: who opens the file after it was moved to its place opens the new one.
        let mut is_in_place = false;
        eventually(PATIENCE, &format!("{celsius} °C is read"), || {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&events, &mut buffer);
            while let Ok(event) = reader.next() {
                if event.file_name() == Some(c"temp1_input") {
                    is_in_place |= event.events().contains(ReadFlags::MOVED_TO);
                    if is_in_place && event.events().contains(ReadFlags::OPEN) {
                        return Ok(());
                    }
                }
            }
            Err("nobody opened the file")
        });
    }

    /// What stands in the place of `/sys`.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    fn chip(&self) -> PathBuf {
        self.root().join("devices/platform/coretemp.0/hwmon/hwmon0")
    }

    fn write(&self, file: &str, content: &str) {
        // Beside the chip's folder, so that nobody takes it for an attribute.
        let new = self.root().join("devices/new");
        fs::write(&new, format!("{content}\n")).expect("a file can be written");
        fs::rename(&new, self.chip().join(file)).expect("a file can be renamed");
    }
}

impl Default for SysTree {
    fn default() -> Self {
        SysTree::new()
    }
}
