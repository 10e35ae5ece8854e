//! How both Pulse programs read their configuration: one YAML file, the environment, and a list of every mistake.
//!
//! In: the text of a file and the variables of the process. Out: typed values, warnings, or [`Mistakes`].
//! Always: flag, then environment, then file, then default; all mistakes are found in one run, each with its place,
//! its key, the rule and the way out. A key without a value (`url:`) is as if it were not there.
//! Never: guesses what an unknown key meant, panics on input, or reads more than [`MAX_FILE_BYTES`].
//!
//! A program describes its keys once, in a closure over [`Section`]; that one description reads the file and the
//! environment and knows which keys exist:
//!
//! ```
//! use pulse_config::{Document, Environment, read};
//! use std::time::Duration;
//!
//! let document = Document::parse("report_interval: 1m\n", "config.yaml")?;
//! let environment = Environment::default();
//! let reading = read(&document, &environment, "PULSE_SENSOR_PROXY_", |keys| {
//!     keys.duration("report_interval", Duration::from_secs(1)..=Duration::from_secs(600))
//! })?;
//! assert_eq!(reading.value, Some(Duration::from_secs(60)));
//! # Ok::<(), pulse_config::Mistakes>(())
//! ```

mod environment;
mod file;
mod list_file;
mod log;
mod quantity;
mod remark;
mod section;
mod static_list;
mod tree;

pub use environment::Environment;
pub use file::{MAX_FILE_BYTES, read_text};
pub use list_file::{ListForm, Listed, ListedEntry, read_each_entry, read_list_file};
pub use log::{LogFormat, LogLevel};
pub use quantity::{parse_boolean, parse_bytes, parse_duration, show_bytes, show_duration};
pub use remark::{Mistakes, Place, Remark, Warning};
pub use section::{Reading, Section, nearest, read};
pub use static_list::{Network, StaticEntry, StaticList};
pub use tree::{Document, Entry, Node, Value};
